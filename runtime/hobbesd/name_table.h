// The names of the node, and the introduction of those who connect to those who listen. hobbesd is
// not between them afterwards.
#pragma once
#include <functional>
#include <map>
#include <set>

#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/names.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. A name goes with the process that has
/// published it, unless it is persistent, and with its scope.
class NameTable {
 public:
  /// `watch`: asks that process_ended() be called when a process has ended.
  NameTable(Nis& nis, const Policies& policies, std::function<void(pid_t)> watch)
      : nis_(nis), policies_(policies), watch_(std::move(watch)) {}

  // Requests; docs/CONTROL.md.
  Result<Reply> publish(Session& session, const Json& request);
  Result<Reply> withdraw(Session& session, const Json& request);
  Result<Reply> connect(Session& session, const Json& request);
  Result<Reply> self(Session& session, const Json& request);

  /// The composition that has ranks in an enclave, 0: none.
  [[nodiscard]] std::uint64_t composition_of(std::uint64_t enclave) const;

  void process_ended(pid_t pid, Transition& transition);
  void enclave_released(std::uint64_t id, Transition& transition);
  void composition_ended(std::uint64_t id, Transition& transition);
  /// After a restart: listeners still hold the other end.
  void adopt();

 private:
  [[nodiscard]] Standing standing_of(const Session& session) const;
  [[nodiscard]] const hobbes_record* find(const Session& session, const NameQuery& query) const;
  void drop(const hobbes_record& record, Transition& transition);

  Nis& nis_;
  const Policies& policies_;
  std::function<void(pid_t)> watch_;
  std::map<std::uint64_t, Fd> deliveries_;  // name -> where its listener is told who connects
};

}  // namespace hobbes
