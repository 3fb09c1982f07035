// Control groups as this node has them: v1, v2, or v1 controllers beside an empty v2 tree (hybrid).
#pragma once
#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "bundle/oci.h"
#include "core/file.h"

namespace hobbes {

/// Where each controller is mounted. A value; read once.
struct CgroupLayout {
  std::map<std::string, std::string>
      v1;  ///< controller -> mount point; on a hybrid node of root's, "unified" -> the v2 tree
  std::string v2;  ///< mount point of a tree that has controllers; empty on v1 and hybrid

  /// From the text of /proc/self/mountinfo (proc(5)).
  static CgroupLayout parse(const std::string& mountinfo, const Files& files = Files::system());
  static Result<CgroupLayout> detect(const Files& files = Files::system());
  [[nodiscard]] const char* mode() const {
    return !v2.empty() ? "v2" : !v1.empty() ? "v1" : "none";
  }
};

/// One control group, by the same path in every hierarchy. One in a batch job's step (batch_step.h)
/// is below /hobbes in those where the step has no group. Does not own it: create() and remove()
/// are explicit, because the group outlives the program that makes it. Not thread-safe.
class Cgroup {
 public:
  Cgroup(CgroupLayout layout, std::string path, const Files& files = Files::system())
      : layout_(std::move(layout)), path_(std::move(path)), files_(&files) {}

  /// Makes the group in every hierarchy; one that exists is taken as it is. Nothing is left behind
  /// on failure.
  Result<void> create() const;
  /// Makes a group below this one, which has processes and limits of its own; the new one has this
  /// one's limits and none besides.
  [[nodiscard]] Result<Cgroup> make_subgroup(const std::string& name) const;
  /// Writes limits. Only what is set is touched. Errors name the file that refused.
  Result<void> apply(const oci::Resources& resources) const;
  /// Moves a process (all its threads) in. Errors: Code::os from the first hierarchy that refuses.
  Result<void> enter(pid_t pid) const;
  /// Moves a process into a group below this one, which exists. `words`:
  /// "[CONTROLLER[,CONTROLLER...]:]PATH"; named controllers of v1 are the only ones whose group
  /// changes. Errors: Code::invalid for a path that leads out or a controller that is not there;
  /// Code::not_found.
  Result<void> enter_subgroup(pid_t pid, const std::string& words) const;
  /// The folders that enter_subgroup would write to; the same errors, without a process.
  [[nodiscard]] Result<std::vector<std::string>> subgroup_folders(const std::string& words) const;
  Result<void> freeze(bool frozen,
                      std::chrono::milliseconds deadline = std::chrono::milliseconds(2000)) const;
  [[nodiscard]] bool frozen() const;
  /// Every process in it and below, as seen from the caller's pid namespace.
  [[nodiscard]] Result<std::vector<pid_t>> processes() const;
  /// Kills everything in it with SIGKILL, frozen or not, until it is empty or the deadline passes.
  Result<void> kill_all(std::chrono::milliseconds deadline = std::chrono::milliseconds(5000)) const;
  /// Removes the group and groups below it; missing ones are success. Errors: Code::busy at the
  /// deadline.
  Result<void> remove(std::chrono::milliseconds deadline = std::chrono::milliseconds(2000)) const;
  [[nodiscard]] bool exists() const;
  /// Names of the groups directly below it.
  [[nodiscard]] std::vector<std::string> subgroups() const;
  /// Counters for `events --stats`: name -> value, only those this node has.
  [[nodiscard]] std::map<std::string, std::uint64_t> statistics() const;
  [[nodiscard]] const std::string& path() const { return path_; }
  /// Its folder in the hierarchy of a controller; with v2 there is one for all. Empty: there is
  /// none.
  [[nodiscard]] std::string directory(const std::string& controller) const;

 private:
  void kill_member(pid_t pid) const;
  [[nodiscard]] std::string folder_in(const std::string& mount) const;
  [[nodiscard]] std::vector<std::string> directories() const;
  Result<void> write(const std::string& controller, const std::string& file,
                     const std::string& value) const;
  Result<void> inherit_cpuset(const std::string& mount, const std::string& directory) const;
  Result<void> apply_v1(const oci::Resources& resources) const;
  Result<void> apply_v2(const oci::Resources& resources) const;

  CgroupLayout layout_;
  std::string path_;
  const Files* files_;
};

}  // namespace hobbes
