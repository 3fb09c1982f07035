// What the runtime did to this Linux for one enclave: the folder <root>/<id>. Written before each
// claim is made, so that a cleaner that knows only the folder can undo everything, whichever
// process died when. hobbesd need not run to read it.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/process.h"
#include "core/result.h"

namespace hobbes {

/// OCI status of an enclave as its processes show it.
enum class Status { creating, created, running, paused, stopped };
const char* name_of(Status status);

/// <root>/<id>/record.json, version 1. A value.
struct EnclaveRecord {
  std::string root, id;
  std::string bundle;
  std::string oci_version = "1.0.2";
  Kind kind = Kind::linux_;
  std::uint64_t handle = 0;       ///< hobbesd's, 0 before it answered
  ProcessId process;              ///< the enclave process; pid 0 before it exists
  std::string cgroup;             ///< path in every hierarchy, empty when none is used
  bool cgroup_delegated = false;  ///< made by hobbesd for an unprivileged owner, and its to remove
  std::int64_t created_s = 0;     ///< wall clock
  uid_t owner = 0;
  bool prepared = false;  ///< create has finished
  std::map<std::string, std::string> annotations;
  std::vector<oci::Hook> poststop;

  [[nodiscard]] std::string folder() const { return root + "/" + id; }
  [[nodiscard]] std::string start_socket() const { return folder() + "/start.sock"; }
  /// Exists while an enclave is paused whose control group is not frozen.
  [[nodiscard]] std::string pause_note() const { return folder() + "/paused"; }
  [[nodiscard]] Status status() const;
  /// The state document of the runtime-spec.
  [[nodiscard]] Json state() const;
  /// The same, saying `now` whatever became of the process since.
  [[nodiscard]] Json state(Status now) const;

  /// Makes the folder; the id is then ours. Errors: Code::exists.
  static Result<void> claim(const std::string& root, const std::string& id);
  Result<void> save() const;
  /// Errors: Code::not_found with the phrase engines look for; Code::corrupt.
  static Result<EnclaveRecord> load(const std::string& root, const std::string& id);
  /// Every readable record below a root; a folder without one shows up as `creating` with only its
  /// id.
  static std::vector<EnclaveRecord> list(const std::string& root);
};

/// `verb` is refused because of the enclave's status.
Error not_running(const EnclaveRecord& record, const std::string& verb);

/// Where an enclave's control group is when the bundle does not say: /hobbes/<root hash>-<id>.
std::string default_cgroup(const std::string& root, const std::string& id);

}  // namespace hobbes
