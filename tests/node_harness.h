// A private Hobbes node for one test: its own hobbesd, folders and names on this machine, and a
// check that nothing is left of them.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/json.h"
#include "core/process.h"

namespace hobbes::test {

/// Sets HOBBES_RUN_DIR and HOBBES_STATE_DIR for this process and its children while it lives.
class Node {
 public:
  Node();
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string run_folder() const { return folder_ + "/run"; }
  /// A program of the build tree with arguments; "hobbes-run", "hobbes", "remora" or a path.
  Outcome run(std::vector<std::string> argv, int seconds = 60) const;
  /// The same, expected to succeed; its standard output.
  std::string good(std::vector<std::string> argv, int seconds = 60) const;
  /// A host-root bundle whose program is `sh -c script`; `patch` is merged into its configuration.
  std::string bundle(const std::string& name, const std::string& script,
                     const Json& patch = {}) const;
  /// `hobbes-run create` with output into <folder>/out: the enclave process keeps its creator's.
  Outcome create(const std::string& id, const std::string& bundle_folder) const;
  /// A bundle with a root file system of busybox.
  std::string busybox_bundle(const std::string& name, const std::string& script,
                             const Json& patch = {}) const;
  /// hobbesd's pid, 0 when it does not run.
  [[nodiscard]] pid_t daemon() const;
  void kill_daemon() const;
  /// Starts hobbesd when it does not run.
  void wake_daemon() const;
  /// curl on the REST socket: method, path, body -> {status, body}.
  std::pair<int, Json> rest(const std::string& method, const std::string& path,
                            const std::string& body = {},
                            std::vector<std::string> headers = {}) const;
  /// Waits until an operation has ended and returns it.
  Json finished(const Json& operation) const;
  /// Whether this build joins MPI programs of compositions: it has the component of its Open MPI.
  static bool joins_mpi();
  /// The record of an enclave as the shell shows it, or {}.
  Json enclave(const std::string& id) const;
  /// Fails the test when cores, memory, control groups, mounts or folders of enclaves are still
  /// held.
  void expect_clean() const;

 private:
  void keep_evidence() const;
  std::string folder_;
};

/// Waits up to `seconds` for a condition.
template <class Condition>
bool eventually(Condition condition, int seconds = 10) {
  for (int i = 0; i < seconds * 50; ++i) {
    if (condition()) return true;
    ::usleep(20'000);
  }
  return condition();
}

}  // namespace hobbes::test
