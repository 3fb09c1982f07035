#include "hobbesd/name_table.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/file.h"
#include "core/identity.h"
#include "core/process.h"
#include "ipc/channel.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

constexpr int queue_most = 32 << 10;  // bytes of introductions that wait to be accepted

std::uint64_t inode_of(const Fd& fd) {
  struct stat info {};
  return fd && ::fstat(fd.get(), &info) == 0 ? info.st_ino : 0;
}

// A pipe for one way: what its one hearer reads, and what the other side rings.
struct Bell {
  Fd hears, rings;
};
Result<Bell> make_bell() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return os_error("make a channel", errno);
  Bell out{Fd(ends[0]), Fd()};
  Fd writes(ends[1]);
  (void)::fcntl(writes.get(), F_SETPIPE_SZ, 4096);  // only "something" is ever said
  // Open for both, a ring never meets a pipe without readers (SIGPIPE).
  out.rings = Fd(::open(("/proc/self/fd/" + std::to_string(writes.get())).c_str(),
                        O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!out.rings) return os_error("make a channel", errno);
  return out;
}

bool has_bit(const Session& session, const hobbes_record& name) {
  if (session.privileged || (name.enclave != 0 && session.inside == name.enclave)) return true;
  const std::uint32_t mode = name.body.name.mode;
  const std::uint32_t bits = session.peer.uid == name.uid      ? mode >> 6U
                             : session.peer.in_group(name.gid) ? mode >> 3U
                                                               : mode;
  return (bits & 2U) != 0;
}

// User 0 of an enclave is not the node's root, for whom others look first.
std::uint32_t owner_of_names(const Session& session) {
  constexpr std::uint32_t of_an_enclave = 0x8000'0000;
  if (session.peer.uid != 0 || session.privileged) return session.peer.uid;
  return of_an_enclave | static_cast<std::uint32_t>(session.inside);
}

}  // namespace

std::uint64_t NameTable::composition_of(std::uint64_t enclave) const {
  std::uint64_t out = 0;
  if (enclave == 0) return out;
  for (const hobbes_record* rank : nis_.all(HOBBES_PROCESS))
    if (rank->enclave == enclave && rank->body.process.composition != 0)
      out = rank->body.process.composition;
  return out;
}

Standing NameTable::standing_of(const Session& session) const {
  Standing out{owner_of_names(session), session.inside, session.peer.uid, 0};
  if (const hobbes_record* enclave = nis_.by_id(session.inside)) out.enclave_uid = enclave->uid;
  out.composition = composition_of(session.inside);
  if (session.inside == 0)
    for (const hobbes_record* rank : nis_.all(HOBBES_PROCESS))
      if (rank->body.process.composition != 0 && rank->body.process.pid == session.peer.pid)
        out.composition = rank->body.process.composition;
  return out;
}

const hobbes_record* NameTable::find(const Session& session, const NameQuery& query) const {
  return first_name(
      query, standing_of(session),
      [&](std::uint64_t scope) { return nis_.by_name(HOBBES_NAME, scope, query.name); },
      [&](auto is_there) -> const hobbes_record* {
        for (const hobbes_record* record : nis_.all(HOBBES_NAME))
          if (is_there(*record)) return record;
        return nullptr;
      });
}

Result<Reply> NameTable::self(Session& session, const Json&) {
  const Standing standing = standing_of(session);
  const hobbes_record* enclave = nis_.by_id(standing.enclave);
  return Reply{{{"id", enclave != nullptr ? enclave->name : ""},
                {"names", standing.uid},
                {"enclave", standing.enclave},
                {"enclaveUser", standing.enclave_uid},
                {"composition", standing.composition}},
               {}};
}

Result<Reply> NameTable::publish(Session& session, const Json& request) {
  const std::string name = text_at(request, "name"), attempt = "publish the name '" + name + "'";
  HOBBES_CHECK(check_id(name));
  const std::uint32_t kind = name_kind_of(text_at(request, "kind")),
                      scope = scope_named(text_at(request, "scope", "node"));
  if (kind == 0 || scope == 0)
    return Error{Code::invalid, attempt, "its kind or scope is unknown",
                 "kinds are service, value and segment; scopes node, composition and enclave"};
  if (session.peer.pid == 0)
    return Error{Code::denied, attempt, "a name belongs to a process of this node", ""};
  const Standing standing = standing_of(session);
  const std::uint64_t scope_id = scope == HOBBES_SCOPE_ENCLAVE       ? standing.enclave
                                 : scope == HOBBES_SCOPE_COMPOSITION ? standing.composition
                                                                     : 0;
  if (scope != HOBBES_SCOPE_NODE && scope_id == 0)
    return Error{Code::invalid, attempt, std::string("the caller is in no ") + name_of_scope(scope),
                 "choose scope \"node\""};
  const std::uint64_t place = name_scope(scope, scope_id, owner_of_names(session));
  const hobbes_record* before = nis_.by_name(HOBBES_NAME, place, name);
  const bool replaces = before != nullptr && request.value("replace", false) &&
                        kind != HOBBES_NAME_SERVICE && before->body.name.kind == kind &&
                        owns(session, *before);
  if (before != nullptr && !replaces)
    return Error{Code::exists, attempt, "this user has published it already",
                 "choose another name, or withdraw the other one"};
  if (!session.privileged && before == nullptr) {
    const auto all = nis_.all(HOBBES_NAME);
    const std::uint64_t limit = policies_.of(session.peer.uid).names;
    const auto own = std::count_if(all.begin(), all.end(), [&](const hobbes_record* record) {
      return record->uid == session.peer.uid;
    });
    if (static_cast<std::uint64_t>(own) >= limit)
      return Error{Code::exhausted, attempt,
                   "user " + std::to_string(session.peer.uid) + " has " + std::to_string(own) +
                       " names, the quota is " + std::to_string(limit),
                   "withdraw some, or ask the administrator to raise the quota"};
  }
  HOBBES_TRY(owner, ProcessId::of(session.peer.pid));
  hobbes_record record{};
  if (before != nullptr) record = *before;
  record.uid = session.peer.uid;
  record.gid = session.peer.gid;
  record.enclave = session.inside;
  hobbes_name& body = record.body.name;
  body.kind = kind;
  body.scope = scope;
  body.scope_id = scope_id;
  body.mode = static_cast<std::uint32_t>(number_at(request, "mode", 0600)) & 0666U;
  body.flags = request.value("persistent", false) ? HOBBES_NAME_PERSISTENT : 0;
  body.owner_pid = owner.pid;
  body.owner_start_ticks = owner.start_ticks;
  Reply reply{Json::object(), {}};
  Fd delivery;
  if (kind == HOBBES_NAME_SERVICE) {
    if (body.flags != 0)
      return Error{Code::invalid, attempt, "a service ends with its process",
                   "publish it without \"persistent\""};
    const std::int64_t size = number_at(request, "ring", HOBBES_CHANNEL_USUAL);
    if (size < HOBBES_CHANNEL_LEAST || size > HOBBES_CHANNEL_MOST ||
        !std::has_single_bit(static_cast<std::uint64_t>(size)))
      return Error{Code::invalid, attempt, std::to_string(size) + " bytes is no size of a ring",
                   "choose a power of two from 4 KiB to 64 MiB"};
    body.ring = static_cast<std::uint32_t>(size);
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      return os_error(attempt, errno);
    reply.fds.emplace_back(ends[0]);
    delivery = Fd(ends[1]);
    // The listener holds this end, too: after a restart hobbesd finds it there.
    reply.fds.emplace_back(::fcntl(delivery.get(), F_DUPFD_CLOEXEC, 3));
    if (!reply.fds.back()) return os_error(attempt, errno);
    body.inbox = inode_of(delivery);
  } else if (kind == HOBBES_NAME_SEGMENT) {
    body.target = static_cast<std::uint64_t>(number_at(request, "segment"));
    const hobbes_record* segment = nis_.by_id(body.target);
    if (segment == nullptr || segment->type != HOBBES_SEGMENT)
      return Error{Code::not_found, attempt, "there is no such segment", "see `hobbes segments`"};
  } else {
    const std::string value = from_hex(text_at(request, "value"));
    if (value.size() > sizeof body.value || value.size() * 2 != text_at(request, "value").size())
      return Error{Code::invalid, attempt, "its value is no hexadecimal number of up to 256 bytes",
                   "publish a segment for more"};
    std::memset(body.value, 0, sizeof body.value);
    std::memcpy(body.value, value.data(), value.size());
    body.value_size = static_cast<std::uint32_t>(value.size());
  }
  if (before == nullptr) {
    hobbes_record fresh = nis_.make(HOBBES_NAME, place, name);
    fresh.uid = record.uid;
    fresh.gid = record.gid;
    fresh.enclave = record.enclave;
    fresh.body = record.body;
    record = fresh;
  }
  Transition transition;
  transition.put(record);
  HOBBES_CHECK(nis_.commit(transition));
  if (delivery) deliveries_[record.id] = std::move(delivery);
  if (body.flags == 0) watch_(owner.pid);
  reply.body = {{"handle", record.id}};
  return reply;
}

Result<Reply> NameTable::withdraw(Session& session, const Json& request) {
  const hobbes_record* record =
      nis_.by_id(static_cast<std::uint64_t>(number_at(request, "handle")));
  if (record == nullptr || record->type != HOBBES_NAME)
    return Error{Code::not_found, "withdraw a name", "there is no such name", "see `hobbes names`"};
  if (!owns(session, *record))
    return Error{Code::denied, "withdraw the name '" + std::string(record->name) + "'",
                 "it belongs to user " + std::to_string(record->uid) +
                     (session.inside != 0 ? ", outside of this enclave" : ""),
                 ""};
  Transition transition;
  drop(*record, transition);
  HOBBES_CHECK(nis_.commit(transition));
  return Reply{Json::object(), {}};
}

Result<Reply> NameTable::connect(Session& session, const Json& request) {
  const NameQuery query{text_at(request, "name"), scope_named(text_at(request, "scope")),
                        number_at(request, "owner", -1)};
  const std::string attempt = "connect to '" + query.name + "'";
  const hobbes_record* record = find(session, query);
  if (record == nullptr)
    return Error{Code::not_found, attempt, "there is no such name", "see `hobbes services`"};
  auto delivery = deliveries_.find(record->id);
  if (record->body.name.kind != HOBBES_NAME_SERVICE || delivery == deliveries_.end())
    return Error{Code::not_found, attempt, "nobody listens there", "see `hobbes services`"};
  if (!has_bit(session, *record))
    return Error{Code::denied, attempt,
                 "its permissions do not let user " + std::to_string(session.peer.uid) + " connect",
                 "ask user " + std::to_string(record->uid) + " to permit it"};
  int waiting = 0;
  if (::ioctl(delivery->second.get(), SIOCOUTQ, &waiting) != 0 || waiting > queue_most)
    return Error{Code::busy, attempt, "its listener does not accept those that wait",
                 "try again later"};
  auto memory = Channel::make_memory(record->body.name.ring);
  if (!memory) return std::move(memory.error()).within(attempt);
  HOBBES_TRY(to_listener, make_bell());
  HOBBES_TRY(to_caller, make_bell());
  auto vouch = [&](std::uint64_t enclave, std::int64_t pid, uid_t uid, gid_t gid) {
    const hobbes_record* found = nis_.by_id(enclave);
    return Json{
        {"enclave", found != nullptr ? found->name : ""}, {"pid", pid}, {"uid", uid}, {"gid", gid}};
  };
  MessageSocket listener(std::move(delivery->second));
  auto sent =
      listener.send_now(vouch(session.inside, session.peer.pid, session.peer.uid, session.peer.gid),
                        {memory->get(), to_listener.hears.get(), to_caller.rings.get()});
  delivery->second = std::move(listener).take();
  if (!sent)
    return Error{Code::busy, attempt, "its listener does not accept those that wait",
                 "try again later"};
  Reply reply{vouch(record->enclave, record->body.name.owner_pid, record->uid, record->gid), {}};
  reply.fds.push_back(std::move(*memory));
  reply.fds.push_back(std::move(to_caller.hears));
  reply.fds.push_back(std::move(to_listener.rings));
  return reply;
}

void NameTable::drop(const hobbes_record& record, Transition& transition) {
  deliveries_.erase(record.id);
  transition.erase(record.id);
}

void NameTable::process_ended(pid_t pid, Transition& transition) {
  for (const hobbes_record* record : nis_.all(HOBBES_NAME)) {
    const hobbes_name& body = record->body.name;
    if (body.owner_pid != pid || (body.flags & HOBBES_NAME_PERSISTENT) != 0) continue;
    if (ProcessId{pid, body.owner_start_ticks}.alive())
      watch_(pid);  // another process, which has got the number
    else
      drop(*record, transition);
  }
}

void NameTable::enclave_released(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* record : nis_.all(HOBBES_NAME))
    if (record->body.name.scope == HOBBES_SCOPE_ENCLAVE && record->body.name.scope_id == id)
      drop(*record, transition);
}

void NameTable::composition_ended(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* record : nis_.all(HOBBES_NAME))
    if (record->body.name.scope == HOBBES_SCOPE_COMPOSITION && record->body.name.scope_id == id)
      drop(*record, transition);
}

void NameTable::adopt() {
  std::vector<hobbes_record> all;
  for (const hobbes_record* record : nis_.all(HOBBES_NAME)) all.push_back(*record);
  for (const hobbes_record& record : all) {
    const hobbes_name& body = record.body.name;
    if ((body.flags & HOBBES_NAME_PERSISTENT) != 0) continue;
    ProcessId owner{body.owner_pid, body.owner_start_ticks};
    Fd delivery;
    if (owner.alive() && body.kind == HOBBES_NAME_SERVICE) {
      const std::string folder = "/proc/" + std::to_string(body.owner_pid) + "/fd",
                        socket = "socket:[" + std::to_string(body.inbox) + "]";
      auto process = owner.open();
      for (const std::string& number : Files::system().list(folder).value_or({})) {
        if (!process || read_link(folder + "/" + number).value_or("") != socket) continue;
        delivery = Fd(static_cast<int>(
            ::syscall(SYS_pidfd_getfd, process->get(), std::atoi(number.c_str()), 0)));
        if (inode_of(delivery) != body.inbox) delivery = Fd();  // it was something else by then
        if (delivery) break;
      }
    }
    if (owner.alive() && (delivery || body.kind != HOBBES_NAME_SERVICE)) {
      if (delivery) deliveries_[record.id] = std::move(delivery);
      watch_(body.owner_pid);
      continue;
    }
    Transition transition;
    drop(record, transition);
    if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  }
}

}  // namespace hobbes
