#include "hobbesd/process_table.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "core/clock.h"
#include "core/file.h"
#include "core/process.h"

namespace hobbes {
namespace {

constexpr std::ptrdiff_t of_one_user = 4096;

// From proc(5): the process that waits for it.
pid_t parent_of(pid_t pid) {
  auto text = Files::system().read("/proc/" + std::to_string(pid) + "/status");
  std::size_t at = text ? text->find("\nPPid:") : std::string::npos;
  return at == std::string::npos
             ? 0
             : static_cast<pid_t>(std::strtol(text->c_str() + at + 6, nullptr, 10));
}

bool is_rank(const hobbes_record& record) { return record.body.process.composition != 0; }

}  // namespace

Result<std::uint64_t> ProcessTable::add(const hobbes_record& enclave, pid_t pid, std::uint32_t role,
                                        const std::string& program) {
  HOBBES_TRY(process, ProcessId::of(pid));
  const std::string name = std::to_string(pid);
  Transition transition;
  // The number was another process's, whose end is on its way here.
  if (const hobbes_record* before = nis_.by_name(HOBBES_PROCESS, enclave.id, name)) {
    transition.erase(before->id);
    HOBBES_CHECK(nis_.commit(transition));
    transition = {};
  }
  hobbes_record record = nis_.make(HOBBES_PROCESS, enclave.id, name);
  record.uid = enclave.uid;
  record.gid = enclave.gid;
  record.enclave = enclave.id;
  record.state = HOBBES_PHASE_STARTED;
  hobbes_process& body = record.body.process;
  body.pid = process.pid;
  body.start_ticks = process.start_ticks;
  body.exit_status = -1;
  body.role = role;
  body.started_ns = clock_ns(CLOCK_REALTIME);
  program.copy(body.program, sizeof body.program - 1);
  transition.put(record);
  HOBBES_CHECK(nis_.commit(transition));
  watch_(pid);
  return record.id;
}

Result<Reply> ProcessTable::begin(Session& session, const hobbes_record& enclave,
                                  std::uint64_t place, const Json& request) {
  const std::string attempt = "note a process of enclave '" + std::string(enclave.name) + "'";
  const auto pid = static_cast<pid_t>(number_at(request, "pid"));
  if (!session.privileged && session.peer.uid != enclave.uid)
    return Error{Code::denied, attempt, "the enclave is another user's", ""};
  // One of the enclave's, or what its user's hobbes-run keeps outside for a program in a guest.
  const bool is_there =
      place == enclave.id || (place == session.inside && parent_of(pid) == session.peer.pid);
  if (!is_there) return Error{Code::denied, attempt, "the process is not in it", ""};
  if (!session.privileged && !process_has_user(pid, session.peer.uid, true))
    return Error{Code::denied, attempt, "the process is another user's", ""};
  const auto all = nis_.all(HOBBES_PROCESS);
  const auto own = std::count_if(all.begin(), all.end(), [&](const hobbes_record* record) {
    return record->uid == enclave.uid && !is_rank(*record);
  });
  if (own >= of_one_user)
    return Error{Code::exhausted, attempt, "its user has " + std::to_string(own) + " already", ""};
  HOBBES_TRY(id, add(enclave, pid, HOBBES_PROCESS_EXEC, text_at(request, "program")));
  if (auto waiter = ProcessId::of(session.peer.pid)) waiters_[id] = *waiter;
  return Reply{{{"id", id}}, {}};
}

Result<hobbes_record> ProcessTable::find(const Json& request) const {
  const hobbes_record* record = nis_.by_id(static_cast<std::uint64_t>(number_at(request, "id")));
  if (record == nullptr || record->type != HOBBES_PROCESS)
    return Error{Code::not_found, "find a process", "there is no process with that global id",
                 "see `hobbes ps`"};
  return *record;
}

Result<Reply> ProcessTable::end(Session& session, const Json& request) {
  HOBBES_TRY(record, find(request));
  if (is_rank(record) || !owns(session, record))
    return Error{Code::denied, "note the end of a process", "it is not the caller's", ""};
  // Those who watch the mirror learn the status, then that it is gone.
  record.state = HOBBES_PHASE_ENDED;
  record.body.process.exit_status = static_cast<std::int32_t>(number_at(request, "status", -1));
  Transition ended, gone;
  ended.put(record);
  HOBBES_CHECK(nis_.commit(ended));
  gone.erase(record.id);
  HOBBES_CHECK(nis_.commit(gone));
  waiters_.erase(record.id);
  return Reply{Json::object(), {}};
}

Result<Reply> ProcessTable::kill(Session& session, const hobbes_record& process,
                                 const Json& request) {
  const hobbes_process& body = process.body.process;
  const std::string attempt = "signal process " + std::to_string(body.pid);
  const std::int64_t number = number_at(request, "signal", SIGTERM);
  if (number < 1 || number > SIGRTMAX)
    return Error{Code::invalid, attempt, std::to_string(number) + " is no signal", ""};
  if (!session.privileged && session.peer.uid != process.uid)
    return Error{Code::denied, attempt, "it is user " + std::to_string(process.uid) + "'s", ""};
  const Error over{Code::not_found, attempt, "it has ended", "see `hobbes ps`"};
  auto pidfd = ProcessId{body.pid, body.start_ticks}.open();
  if (!pidfd) return over;
  // It may have become another user's meanwhile, by executing a program with set-user-id bits.
  if (!session.privileged && !process_has_user(body.pid, session.peer.uid, true))
    return Error{Code::denied, attempt, "it runs as another user", ""};
  if (::syscall(SYS_pidfd_send_signal, pidfd->get(), static_cast<int>(number), nullptr, 0) != 0)
    return errno == ESRCH ? over : os_error(attempt, errno);
  return Reply{Json::object(), {}};
}

void ProcessTable::enclave_started(const hobbes_record& enclave, const std::string& program) {
  for (const hobbes_record* record : nis_.all(HOBBES_PROCESS))
    if (record->enclave == enclave.id && record->body.process.role == HOBBES_PROCESS_INIT) return;
  auto added = add(enclave, enclave.body.enclave.pid, HOBBES_PROCESS_INIT, program);
  if (!added) spdlog::debug("{}", added.error().text());  // it has ended
}

void ProcessTable::process_ended(pid_t pid, Transition& transition) {
  for (const hobbes_record* record : nis_.all(HOBBES_PROCESS)) {
    if (is_rank(*record)) continue;
    const hobbes_process& body = record->body.process;
    if (body.pid == pid && record->state != HOBBES_PHASE_ENDED &&
        ProcessId{pid, body.start_ticks}.alive()) {
      watch_(pid);  // another process, which has got the number
      continue;
    }
    auto waiter = waiters_.find(record->id);
    const bool waited_for = waiter != waiters_.end() && waiter->second.alive();
    if (record->body.process.pid == pid && waited_for) {
      hobbes_record ended = *record;
      ended.state = HOBBES_PHASE_ENDED;
      transition.put(ended);
      watch_(waiter->second.pid);
    } else if (record->body.process.pid == pid ||
               (waiter != waiters_.end() && waiter->second.pid == pid &&
                record->state == HOBBES_PHASE_ENDED)) {
      drop(*record, transition);
    }
  }
}

void ProcessTable::enclave_ended(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* record : nis_.all(HOBBES_PROCESS))
    if (record->enclave == id && !is_rank(*record)) drop(*record, transition);
}

void ProcessTable::drop(const hobbes_record& record, Transition& transition) {
  waiters_.erase(record.id);
  transition.erase(record.id);
}

void ProcessTable::adopt() {
  Transition transition;
  for (const hobbes_record* record : nis_.all(HOBBES_PROCESS)) {
    if (is_rank(*record)) continue;
    const hobbes_process& body = record->body.process;
    if (ProcessId{body.pid, body.start_ticks}.alive())
      watch_(body.pid);
    else
      transition.erase(record->id);
  }
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
}

}  // namespace hobbes
