// Operations: verbs that take time, done by hobbes-run with the requester's own rights. hobbesd
// delegates resources, never its privilege.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/cpu_set.h"
#include "core/fd.h"
#include "core/json.h"
#include "hobbesd/loop.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "hobbesd/verb.h"
#include "nis/nis.h"

namespace hobbes {

/// For whom hobbes-run works, and within what.
struct Requester {
  uid_t uid = 0;
  gid_t gid = 0;
  CpuSet cpus;                      ///< affinity; empty: hobbesd's own
  std::vector<std::string> groups;  ///< control groups, as files to enter them by; empty: hobbesd's
};

/// Part of the manager: called in its loop, never blocks. The last 1000 are kept.
class OperationTable {
 public:
  /// `cleaned_up` is called when a clean-up of an enclave has succeeded.
  OperationTable(Loop& loop, Nis& nis, const Policies& policies,
                 std::function<void(std::uint64_t)> cleaned_up)
      : loop_(loop), nis_(nis), policies_(policies), cleaned_up_(std::move(cleaned_up)) {}

  /// {"op":"operation.begin"}. `target` is the enclave that the verb names, null when there is
  /// none. Whether the session may act on it is asked before.
  Result<Reply> begin(Session& session, const Verb& verb, const hobbes_record* target,
                      const Json& request);
  /// {"op":"operation.get","operation"}
  Result<Reply> get(Session& session, const Json& request);
  /// Starts hobbes-run. `repeatable` is {"key", "request"} or null; `forgets` is the enclave that
  /// `cleaned_up` is told when it has succeeded, 0 for none.
  Result<Reply> start(const Requester& requester, const Verb& verb, const Json& repeatable,
                      std::uint64_t forgets);
  /// Whether a child of hobbesd's is one of them.
  [[nodiscard]] bool is_of(pid_t pid) const;
  /// After a restart: those that ran have nobody left who knows their end.
  Result<void> adopt();

 private:
  struct Operation {
    Json document;
    pid_t pid = 0;
    Fd pidfd, output, report;
    bool has_result = false;
    std::uint64_t forgets = 0;
  };
  Result<void> check_quota(const Session& session) const;
  void ended(const std::string& name);
  void forget(const std::string& name, Transition& transition);

  Loop& loop_;
  Nis& nis_;
  const Policies& policies_;
  std::function<void(std::uint64_t)> cleaned_up_;
  std::map<std::string, Operation> operations_;  // those that run
  std::uint64_t next_operation_ = 1;
};

}  // namespace hobbes
