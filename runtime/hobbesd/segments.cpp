// The manager's requests about XEMEM segments. hobbesd keeps a descriptor of every segment and hands out copies; it never
// maps or reads one.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "core/identity.h"
#include "enclave/describe.h"
#include "hobbesd/keeper.h"
#include "hobbesd/manager.h"

namespace hobbes {
namespace {

std::string document_name(std::uint64_t id) { return "volatile/segment/" + hex(id); }

Json segment_json(const hobbes_record& record) {
  Json out = describe(record);
  out["handle"] = record.id;  // as a number: programs use it, people read the other form
  return out;
}

// A second open file description of the same memory with only the rights asked for.
Result<Fd> reopened(const Fd& fd, bool writable) {
  std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  Fd out(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!out) return os_error("open a segment", errno);
  return out;
}

}  // namespace

bool Manager::may(const Session& session, const hobbes_record& segment, bool write) const {
  if (segment.enclave != 0 && enclave_containing(session.peer.pid) == segment.enclave) return true;  // it is the enclave's own
  if (session.peer.uid == 0 || session.peer.uid == segment.uid) {
    std::uint32_t bits = segment.body.segment.mode >> 6U;
    if (session.peer.uid == 0) return true;
    return (bits & (write ? 6U : 4U)) == (write ? 6U : 4U);
  }
  std::uint32_t bits = session.peer.gid == segment.gid ? segment.body.segment.mode >> 3U : segment.body.segment.mode;
  return (bits & (write ? 6U : 4U)) == (write ? 6U : 4U);
}

Result<Reply> Manager::make_segment(Session& session, const Json& request, std::vector<Fd>& fds) {
  std::string name = text_at(request, "name");
  std::string attempt = "make segment '" + name + "'";
  HOBBES_CHECK(check_id(name));
  if (nis_->by_name(HOBBES_SEGMENT, 0, name) != nullptr)
    return Error{Code::exists, attempt, "the name is taken", "choose another name, or remove the other segment"};
  if (fds.size() != 1) return Error{Code::invalid, attempt, "one memory descriptor is needed", ""};
  struct stat info {};
  int seals = ::fcntl(fds[0].get(), F_GET_SEALS);
  if (::fstat(fds[0].get(), &info) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    return Error{Code::invalid, attempt, "the descriptor is not memory sealed against shrinking",
                 "make it with memfd_create and F_SEAL_SHRINK"};
  if ((::fcntl(fds[0].get(), F_GETFL) & O_ACCMODE) != O_RDWR)
    return Error{Code::denied, attempt, "the descriptor is not writable", "give one that the maker may write"};
  // The memory's own mode is what keeps a read-only attachment from being opened again for writing through /proc.
  if (::fchmod(fds[0].get(), 0600) != 0 || (::geteuid() == 0 && ::fchown(fds[0].get(), 0, 0) != 0)) return os_error(attempt, errno);
  HOBBES_TRY(owner, ProcessId::of(session.peer.pid));
  bool persistent = request.value("persistent", false);
  // Declared by a bundle: it belongs to that enclave, which the caller is making, and is held until the enclave is released.
  const hobbes_record* declaring =
      request.contains("declaredBy") ? nis_->by_id(static_cast<std::uint64_t>(number_at(request, "declaredBy"))) : nullptr;
  if (request.contains("declaredBy") && (declaring == nullptr || session.reservations.count(declaring->id) == 0))
    return Error{Code::denied, attempt, "the enclave it is declared by is not being made by the caller", ""};
  std::optional<Held> held;
  if (persistent || declaring != nullptr) {
    HOBBES_TRY(kept, keep(fds[0]));
    held = kept;
  }
  hobbes_record record = nis_->make(HOBBES_SEGMENT, 0, name);
  record.uid = session.peer.uid;
  record.gid = session.peer.gid;
  record.enclave = declaring != nullptr ? declaring->id : enclave_containing(session.peer.pid);
  hobbes_segment& body = record.body.segment;
  body.size = static_cast<std::uint64_t>(info.st_size);
  body.page_size = static_cast<std::uint64_t>(info.st_blksize);
  body.inode = info.st_ino;
  body.owner_pid = owner.pid;
  body.owner_start_ticks = owner.start_ticks;
  body.owner_fd = static_cast<std::int32_t>(number_at(request, "fd", -1));
  body.mode = static_cast<std::uint32_t>(number_at(request, "mode", 0600)) & 0666U;
  body.flags = (held ? 1U : 0U) | (declaring != nullptr ? 2U : 0U);
  if (held) {
    body.owner_pid = held->keeper.pid;
    body.owner_start_ticks = held->keeper.start_ticks;
    body.owner_fd = held->number;
  }
  Transition transition;
  transition.put(record);
  if (request.contains("enclaves")) transition.put_document(document_name(record.id), {{"enclaves", request["enclaves"]}});
  HOBBES_CHECK(nis_->commit(transition));
  segment_fds_[record.id] = std::move(fds[0]);
  if (!held) watch_process(owner.pid);
  return Reply{segment_json(record), {}};
}

Result<const hobbes_record*> Manager::segment_of(const Json& request) const {
  std::string name = text_at(request, "name");
  const hobbes_record* record = request.contains("handle") ? nis_->by_id(static_cast<std::uint64_t>(number_at(request, "handle")))
                                                           : nis_->by_name(HOBBES_SEGMENT, 0, name);
  if (record == nullptr || record->type != HOBBES_SEGMENT)
    return Error{Code::not_found, "find segment '" + name + "'", "there is no such segment", "see `hobbes segments`"};
  return record;
}

Result<Reply> Manager::get_segment(Session& session, const Json& request) {
  HOBBES_TRY(record, segment_of(request));
  bool write = text_at(request, "access", "rw") != "ro";
  if (!may(session, *record, write))
    return Error{Code::denied, "get segment '" + std::string(record->name) + "'",
                 "its permissions do not let user " + std::to_string(session.peer.uid) + (write ? " write" : " read"),
                 "ask for read-only access, or its owner to permit more"};
  if (auto document = nis_->document(document_name(record->id)); document && session.peer.uid != 0) {
    std::uint64_t inside = enclave_containing(session.peer.pid);
    const hobbes_record* enclave = nis_->by_id(inside);
    bool listed = false;
    for (const Json& one : document->value("enclaves", Json::array()))
      listed = listed || (enclave != nullptr && one.is_string() && one.get<std::string>() == enclave->name && enclave->uid == record->uid);
    if (!listed) return Error{Code::denied, "get segment '" + std::string(record->name) + "'", "it is for named enclaves only", ""};
  }
  return Reply{segment_json(*record), {}};
}

Result<Reply> Manager::attach_segment(Session& session, const Json& request) {
  HOBBES_TRY(got, get_segment(session, request));
  std::uint64_t id = static_cast<std::uint64_t>(number_at(got.body, "handle"));
  bool write = text_at(request, "access", "rw") != "ro";
  auto held = segment_fds_.find(id);
  if (held == segment_fds_.end())
    return Error{Code::unavailable, "attach segment '" + text_at(got.body, "name") + "'", "its memory is lost", "make it again"};
  HOBBES_TRY(fd, reopened(held->second, write));
  HOBBES_TRY(peer, ProcessId::of(session.peer.pid));
  hobbes_record segment = *nis_->by_id(id);
  hobbes_record attachment = nis_->make(HOBBES_ATTACHMENT, id, std::to_string(peer.pid) + "." + std::to_string(nis_->sequence()));
  attachment.uid = session.peer.uid;
  attachment.gid = session.peer.gid;
  attachment.enclave = enclave_containing(peer.pid);
  attachment.body.attachment = {id, peer.start_ticks, peer.pid, write ? 1U : 0U, 0};
  ++segment.body.segment.attachments;
  Transition transition;
  transition.put(attachment);
  transition.put(segment);
  HOBBES_CHECK(nis_->commit(transition));
  watch_process(peer.pid);
  Reply reply{segment_json(segment), {}};
  reply.body["attachment"] = attachment.id;
  reply.fds.push_back(std::move(fd));
  return reply;
}

Result<Reply> Manager::detach_segment(Session& session, const Json& request) {
  const hobbes_record* attachment = nis_->by_id(static_cast<std::uint64_t>(number_at(request, "attachment")));
  if (attachment == nullptr || attachment->type != HOBBES_ATTACHMENT)
    return Error{Code::not_found, "detach a segment", "it is not attached", ""};
  if (session.peer.uid != 0 && session.peer.uid != attachment->uid)
    return Error{Code::denied, "detach a segment", "the attachment is another user's", ""};
  Transition transition;
  std::map<std::uint64_t, hobbes_record> changed;
  end_attachment(*attachment, changed, transition);
  for (const auto& [id, segment] : changed) transition.put(segment);
  HOBBES_CHECK(nis_->commit(transition));
  return Reply{Json::object(), {}};
}

// Its segment's record, if there still is one, is changed in `segments`: several attachments may end in one transition.
void Manager::end_attachment(const hobbes_record& attachment, std::map<std::uint64_t, hobbes_record>& segments, Transition& transition) {
  const hobbes_attachment& body = attachment.body.attachment;
  const hobbes_record* segment = nis_->by_id(body.segment);
  if (segment != nullptr) {
    hobbes_segment& changed = segments.try_emplace(body.segment, *segment).first->second.body.segment;
    if (changed.attachments > 0) --changed.attachments;
    if (body.bell != 0) {
      if (changed.listeners > 0) --changed.listeners;
      ++changed.listeners_version;
    }
  }
  bells_.erase(attachment.id);
  transition.erase(attachment.id);
}

void Manager::drop_segment(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* attachment : nis_->all(HOBBES_ATTACHMENT)) {
    if (attachment->body.attachment.segment != id) continue;
    bells_.erase(attachment->id);
    transition.erase(attachment->id);
  }
  if (const hobbes_record* segment = nis_->by_id(id); segment != nullptr && (segment->body.segment.flags & 1U) != 0)
    let_go(segment->body.segment.owner_fd);
  transition.erase(id);
  transition.erase_document(document_name(id));
  segment_fds_.erase(id);
}

Result<Reply> Manager::remove_segment(Session& session, const Json& request) {
  HOBBES_TRY(record, segment_of(request));
  if (session.peer.uid != 0 && session.peer.uid != record->uid)
    return Error{Code::denied, "remove segment '" + std::string(record->name) + "'", "it belongs to user " + std::to_string(record->uid),
                 ""};
  Transition transition;
  drop_segment(record->id, transition);
  HOBBES_CHECK(nis_->commit(transition));
  return Reply{Json::object(), {}};
}

void Manager::watch_process(pid_t pid) {
  if (process_watches_.count(pid) != 0) return;
  auto process = ProcessId::of(pid);
  if (process) {
    if (auto pidfd = process->open()) {
      int fd = pidfd->get();
      if (loop_.watch(fd, [this, pid] { process_ended(pid); })) process_watches_[pid] = std::move(*pidfd);
      return;
    }
  }
  loop_.post([this, pid] { process_ended(pid); });
}

void Manager::process_ended(pid_t pid) {
  if (auto at = process_watches_.find(pid); at != process_watches_.end()) {
    loop_.unwatch(at->second.get());
    process_watches_.erase(at);
  }
  for (auto at = makers_.begin(); at != makers_.end();) {
    const hobbes_record* bound = at->second == pid ? nis_->by_id(at->first) : nullptr;
    if (bound == nullptr) {
      ++at;
      continue;
    }
    at = makers_.erase(at);
    // Bound enclaves go with their maker; others only when it died over the making.
    Json document = nis_->document("volatile/enclave/" + hex(bound->id)).value_or(Json::object());
    if (bound->state != HOBBES_CREATING && !document.value("bound", false)) continue;
    kill_asked_.insert(bound->id);
    clean_up(*bound);
  }
  Transition transition;
  std::map<std::uint64_t, hobbes_record> changed;
  for (const hobbes_record* attachment : nis_->all(HOBBES_ATTACHMENT))
    if (attachment->body.attachment.pid == pid) end_attachment(*attachment, changed, transition);
  for (const hobbes_record* segment : nis_->all(HOBBES_SEGMENT)) {
    bool orphaned = segment->body.segment.owner_pid == pid && (segment->body.segment.flags & 1U) == 0;
    if (!orphaned) continue;
    changed.erase(segment->id);
    drop_segment(segment->id, transition);
  }
  for (const auto& [id, segment] : changed) transition.put(segment);
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
}

// After a restart: the owner still has the memory open, so it can be had from there.
void Manager::adopt_segments() {
  std::vector<hobbes_record> all;
  for (const hobbes_record* segment : nis_->all(HOBBES_SEGMENT)) all.push_back(*segment);
  for (const hobbes_record& segment : all) {
    const hobbes_segment& body = segment.body.segment;
    Fd fd;
    ProcessId owner{body.owner_pid, body.owner_start_ticks};
    if (owner.alive()) {
      std::string path = "/proc/" + std::to_string(body.owner_pid) + "/fd/" + std::to_string(body.owner_fd);
      // Pinned first: what stands behind another process's descriptor is its choice, and opening a device acts on it.
      Fd pin(::open(path.c_str(), O_PATH | O_CLOEXEC));
      struct stat pinned {};
      if (pin && ::fstat(pin.get(), &pinned) == 0 && S_ISREG(pinned.st_mode) && pinned.st_ino == body.inode)
        if (auto again = reopened(pin, true)) fd = std::move(*again);
      int seals = fd ? ::fcntl(fd.get(), F_GET_SEALS) : -1;  // only sealed memory has any
      if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) fd.reset();
    }
    struct stat info {};
    if (fd && ::fstat(fd.get(), &info) == 0 && info.st_ino == body.inode) {
      segment_fds_[segment.id] = std::move(fd);
      if ((body.flags & 1U) == 0) watch_process(body.owner_pid);
      continue;
    }
    spdlog::warn("segment '{}' ended with its owner", segment.name);
    Transition transition;
    drop_segment(segment.id, transition);
    if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
  }
  std::set<pid_t> attached;
  for (const hobbes_record* attachment : nis_->all(HOBBES_ATTACHMENT)) attached.insert(attachment->body.attachment.pid);
  for (pid_t pid : attached) watch_process(pid);
  adopt_doorbells();
}

}  // namespace hobbes
