// The control groups that hobbesd delegates to users without privilege: one for each of their
// enclaves, made and limited with its lease. Its processes enter and freeze through hobbesd, and
// only their owner's.
#pragma once
#include <cstdint>
#include <string>

#include "core/cpu_set.h"
#include "core/json.h"
#include "core/result.h"
#include "hobbesd/authorization.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/nis.h"
#include "partition/placement.h"

namespace hobbes {

/// Part of the manager: called in its loop, never waits for the kernel.
class DelegatedGroups {
 public:
  DelegatedGroups(const Nis& nis, const Policies& policies) : nis_(nis), policies_(policies) {}

  /// Makes the group of an enclave that is being reserved and returns its path. One that a step of
  /// a batch job reserves is inside the step's (partition/batch_step.h) and ends with the step.
  /// `step` is that of the process that asks (Session::step); `limits` are the bundle's wishes,
  /// which may only narrow what the lease and the quota allow. Errors: Code::os.
  Result<std::string> delegate(const hobbes_record& enclave, const std::string& step,
                               const Placement& placement, const CpuSet& shared,
                               const Json& limits);
  static Result<void> limit(const std::string& path, const Placement& placement,
                            const CpuSet& shared);
  /// Errors: Code::unsupported when none was delegated.
  Result<std::string> path_of(const hobbes_record& enclave) const;
  /// {"op":"enclave.enter"}. Where the process is now is asked once it is known to be the one
  /// meant.
  Result<Reply> enter(const hobbes_record& enclave, const Authorization& authorization,
                      const Json& request) const;
  /// {"op":"enclave.freeze"}
  Result<Reply> freeze(const hobbes_record& enclave, const Json& request) const;
  /// Empties groups of enclaves that have ended and removes those of enclaves, or steps, that are
  /// gone, at most so many at a time. Whether it found something to do.
  [[nodiscard]] bool sweep(unsigned most);

 private:
  [[nodiscard]] const hobbes_record* owner_of(const std::string& path) const;
  const Nis& nis_;
  const Policies& policies_;
  bool may_be_in_steps_ = true;  // some of the groups: of the time before this one nobody knows
};

}  // namespace hobbes
