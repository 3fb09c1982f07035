// Who a caller is: the user the kernel names, the enclave his process is in, and what that enclave
// may manage.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "core/result.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. An enclave's processes are those of its
/// control group.
class Authorization {
 public:
  explicit Authorization(const Nis& nis) : nis_(nis) {}

  void set_group(std::uint64_t enclave, const std::string& group) { groups_[enclave] = group; }
  void forget(std::uint64_t enclave) { groups_.erase(enclave); }
  /// "" when it has none of its own.
  [[nodiscard]] std::string group_of(std::uint64_t enclave) const;
  /// 0: outside of any.
  [[nodiscard]] std::uint64_t enclave_containing(pid_t pid) const;

  /// Finds out, at each request, where the session's process is and what it may. Errors:
  /// Code::denied for a process that has ended.
  Result<void> identify(Session& session, const std::string& op) const;
  /// Whether a caller inside an enclave may manage `target` (0: the node). Errors: Code::denied.
  Result<void> check_grant(const Session& session, std::uint64_t target) const;

 private:
  [[nodiscard]] Grant grant_of(std::uint64_t enclave) const;

  const Nis& nis_;
  std::map<std::uint64_t, std::string> groups_;  // enclave -> control group
};

}  // namespace hobbes
