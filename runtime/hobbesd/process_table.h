// The processes that Hobbes has started, by global process id: the ids of their records. Those of
// compositions are their launchers' affair (composition_table.h).
#pragma once
#include <functional>
#include <map>
#include <string>

#include "core/process.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. A record goes with its process.
class ProcessTable {
 public:
  /// `watch`: asks that process_ended() be called when a process has ended.
  ProcessTable(Nis& nis, std::function<void(pid_t)> watch) : nis_(nis), watch_(std::move(watch)) {}

  /// {"op":"process.begin","handle","pid","program"}: one was executed in an enclave of the
  /// caller's. The answer has its "id".
  /// `place`: the enclave that the process is in, 0 outside of any.
  Result<Reply> begin(Session& session, const hobbes_record& enclave, std::uint64_t place,
                      const Json& request);
  /// {"op":"process.end","id","status"}: told by the hobbes-run that waited for it.
  Result<Reply> end(Session& session, const Json& request);
  /// {"op":"process.kill","id","signal"}. Whether the caller may act on the process's enclave is
  /// asked before.
  Result<Reply> kill(Session& session, const hobbes_record& process, const Json& request);
  /// Errors: Code::not_found.
  Result<hobbes_record> find(const Json& request) const;

  void enclave_started(const hobbes_record& enclave, const std::string& program);
  void process_ended(pid_t pid, Transition& transition);
  void enclave_ended(std::uint64_t id, Transition& transition);
  void adopt();

 private:
  Result<std::uint64_t> add(const hobbes_record& enclave, pid_t pid, std::uint32_t role,
                            const std::string& program);
  void drop(const hobbes_record& record, Transition& transition);
  Nis& nis_;
  std::function<void(pid_t)> watch_;
  // Who waits for what was executed and tells its status: until then, or its own end, the record
  // of one that has ended stays.
  std::map<std::uint64_t, ProcessId> waiters_;
};

}  // namespace hobbes
