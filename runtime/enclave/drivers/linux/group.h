// The control group of a linux enclave: made with our own rights, or delegated by hobbesd to a user
// who has none.
#pragma once
#include <optional>

#include "enclave/record.h"
#include "partition/cgroup.h"

namespace hobbes {

/// One enclave's group. A delegated one was made and limited by hobbesd together with the lease and
/// goes with it; what needs privilege in between (entering, freezing) is asked of hobbesd, which
/// looks at who asks and for whose process. Not thread-safe.
class EnclaveGroup {
 public:
  static Result<EnclaveGroup> of(const EnclaveRecord& record);

  /// Makes and limits it. Lent: it is there already.
  Result<void> create(const oci::Resources& resources) const;
  /// Errors for a delegated group: Code::unsupported, its limits are the lease's.
  Result<void> apply(const oci::Resources& resources) const;
  /// `pid` must be alive, and for a delegated group the caller's own.
  Result<void> enter(pid_t pid) const;
  Result<void> freeze(bool frozen) const;
  [[nodiscard]] bool frozen() const { return cgroup_.frozen(); }
  [[nodiscard]] bool exists() const { return cgroup_.exists(); }
  [[nodiscard]] Result<std::vector<pid_t>> processes() const { return cgroup_.processes(); }
  [[nodiscard]] std::map<std::string, std::uint64_t> statistics() const {
    return cgroup_.statistics();
  }
  /// Kills everything inside and takes the group away; a delegated one is left empty for hobbesd.
  Result<void> destroy(std::chrono::milliseconds deadline) const;
  [[nodiscard]] const Cgroup& cgroup() const { return cgroup_; }

 private:
  EnclaveGroup(Cgroup cgroup, std::uint64_t handle, bool delegated)
      : cgroup_(std::move(cgroup)), handle_(handle), delegated_(delegated) {}
  Cgroup cgroup_;
  std::uint64_t handle_;
  bool delegated_;
};

}  // namespace hobbes
