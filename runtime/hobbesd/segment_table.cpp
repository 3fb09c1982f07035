#include "hobbesd/segment_table.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <set>
#include <vector>

#include "core/file.h"
#include "core/identity.h"
#include "core/process.h"
#include "enclave/describe.h"
#include "hobbesd/keeper.h"
#include "xemem/pinned_memory.h"

namespace hobbes {
namespace {

std::string document_name(std::uint64_t id) { return "volatile/segment/" + hex(id); }

Json segment_json(const hobbes_record& record) {
  Json out = describe(record);
  out["handle"] = record.id;  // as a number: programs use it, people read the other form
  return out;
}

// From proc(5): how a process has opened what it offers, so that nobody gains more than he had.
Result<void> check_writable(pid_t pid, int number, const std::string& attempt) {
  auto text =
      Files::system().read("/proc/" + std::to_string(pid) + "/fdinfo/" + std::to_string(number));
  std::size_t at = text ? text->find("flags:") : std::string::npos;
  if (at == std::string::npos)
    return Error{Code::invalid, attempt, "the request names no open descriptor of its process",
                 "send the number of a memfd as \"fd\""};
  if ((std::strtoul(text->c_str() + at + 6, nullptr, 8) & O_ACCMODE) != O_RDWR)
    return Error{Code::denied, attempt, "the descriptor is not writable",
                 "give one that the maker may write"};
  return {};
}

// A second open file description of the same memory with only the rights asked for.
Result<Fd> reopened(const Fd& fd, bool writable) {
  std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  Fd out(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!out) return os_error("open a segment", errno);
  return out;
}

bool may(const Session& session, const hobbes_record& segment, bool write) {
  if (segment.enclave != 0 && session.inside == segment.enclave)
    return true;  // it is the enclave's own
  if (session.privileged) return true;
  std::uint32_t mode = segment.body.segment.mode;
  std::uint32_t bits = session.peer.uid == segment.uid      ? mode >> 6U
                       : session.peer.in_group(segment.gid) ? mode >> 3U
                                                            : mode;
  return (bits & (write ? 6U : 4U)) == (write ? 6U : 4U);
}

}  // namespace

// Each segment is a descriptor of hobbesd's; users together leave a quarter of them to root.
Result<void> SegmentTable::check_quota(const Session& session, const std::string& attempt) const {
  if (session.privileged) return {};
  std::uint64_t limit = policies_.of(session.peer.uid).segments, own = 0;
  for (const hobbes_record* record : nis_.all(HOBBES_SEGMENT))
    own += record->uid == session.peer.uid ? 1 : 0;
  if (own >= limit)
    return Error{Code::exhausted, attempt,
                 "user " + std::to_string(session.peer.uid) + " has " + std::to_string(own) +
                     " segments, the quota is " + std::to_string(limit),
                 "remove some, or ask the administrator to raise the quota"};
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && memory_.size() >= files.rlim_cur / 4 * 3)
    return Error{
        Code::exhausted, attempt,
        "the node has " + std::to_string(memory_.size()) + " segments, and the rest is root's",
        "wait until others are removed"};
  return {};
}

Result<Reply> SegmentTable::make(Session& session, const Json& request) {
  std::string name = text_at(request, "name");
  std::string attempt = "make segment '" + name + "'";
  HOBBES_CHECK(check_id(name));
  if (nis_.by_name(HOBBES_SEGMENT, session.peer.uid, name) != nullptr)
    return Error{Code::exists, attempt, "the name is taken",
                 "choose another name, or remove the other segment"};
  HOBBES_CHECK(check_quota(session, attempt));
  auto number = static_cast<int>(number_at(request, "fd", -1));
  HOBBES_CHECK(check_writable(session.peer.pid, number, attempt));
  auto memory = open_memory_of(session.peer.pid, number);
  if (!memory) return std::move(memory.error()).within(attempt);
  struct stat info {};
  if (::fstat(memory->get(), &info) != 0) return os_error(attempt, errno);
  // The memory's own mode is what keeps a read-only attachment from being opened again for writing
  // through /proc.
  if (::fchmod(memory->get(), 0600) != 0 ||
      (::geteuid() == 0 && ::fchown(memory->get(), 0, 0) != 0))
    return os_error(attempt, errno);
  HOBBES_TRY(owner, ProcessId::of(session.peer.pid));
  bool persistent = request.value("persistent", false);
  // Declared by a bundle: it belongs to that enclave, which the caller is making, and is held until
  // the enclave is released.
  const hobbes_record* declaring =
      request.contains("declaredBy")
          ? nis_.by_id(static_cast<std::uint64_t>(number_at(request, "declaredBy")))
          : nullptr;
  if (request.contains("declaredBy") &&
      (declaring == nullptr || session.reservations.count(declaring->id) == 0))
    return Error{Code::denied, attempt,
                 "the enclave it is declared by is not being made by the caller", ""};
  std::uint64_t snapshot_of = 0;
  if (request.contains("snapshotOf")) {
    HOBBES_TRY(source, get(session, {{"handle", request["snapshotOf"]}, {"access", "ro"}}));
    snapshot_of = static_cast<std::uint64_t>(number_at(source.body, "handle"));
  }
  std::optional<Held> held;
  if (persistent || declaring != nullptr) {
    HOBBES_TRY(kept, keep(*memory));
    held = kept;
  }
  hobbes_record record = nis_.make(HOBBES_SEGMENT, session.peer.uid, name);
  record.uid = session.peer.uid;
  record.gid = session.peer.gid;
  record.enclave = declaring != nullptr ? declaring->id : session.inside;
  hobbes_segment& body = record.body.segment;
  body.size = static_cast<std::uint64_t>(info.st_size);
  body.page_size = static_cast<std::uint64_t>(info.st_blksize);
  body.inode = info.st_ino;
  body.owner_pid = owner.pid;
  body.owner_start_ticks = owner.start_ticks;
  body.owner_fd = number;
  body.mode = static_cast<std::uint32_t>(number_at(request, "mode", 0600)) & 0666U;
  body.snapshot_of = snapshot_of;
  body.flags = (held ? 1U : 0U) | (declaring != nullptr ? 2U : 0U);
  if (held) {
    body.owner_pid = held->keeper.pid;
    body.owner_start_ticks = held->keeper.start_ticks;
    body.owner_fd = held->number;
  }
  Transition transition;
  transition.put(record);
  if (request.contains("enclaves"))
    transition.put_document(document_name(record.id), {{"enclaves", request["enclaves"]}});
  HOBBES_CHECK(nis_.commit(transition));
  memory_[record.id] = std::move(*memory);
  if (!held) watch_(owner.pid);
  return Reply{segment_json(record), {}};
}

// A name is its user's. Without a wish for an owner it is the asking user's own, else that of the
// user whose enclave he is in, else root's, else anybody's: nobody gets in between by taking a name
// first.
const hobbes_record* SegmentTable::named(const Session& session, const std::string& name) const {
  const hobbes_record* enclave = nis_.by_id(session.inside);
  for (uid_t uid :
       {session.peer.uid, enclave != nullptr ? enclave->uid : session.peer.uid, uid_t{0}})
    if (const hobbes_record* record = nis_.by_name(HOBBES_SEGMENT, uid, name)) return record;
  for (const hobbes_record* record : nis_.all(HOBBES_SEGMENT))
    if (name == record->name) return record;
  return nullptr;
}

Result<const hobbes_record*> SegmentTable::segment_of(const Session& session,
                                                      const Json& request) const {
  std::string name = text_at(request, "name");
  const hobbes_record* record =
      request.contains("handle")
          ? nis_.by_id(static_cast<std::uint64_t>(number_at(request, "handle")))
      : request.contains("owner")
          ? nis_.by_name(HOBBES_SEGMENT,
                         static_cast<std::uint64_t>(number_at(request, "owner", -1)), name)
          : named(session, name);
  if (record == nullptr || record->type != HOBBES_SEGMENT)
    return Error{Code::not_found, "find segment '" + name + "'", "there is no such segment",
                 "see `hobbes segments`"};
  if (request.contains("owner") && number_at(request, "owner", -1) != record->uid)
    return Error{Code::denied, "find segment '" + std::string(record->name) + "'",
                 "it belongs to user " + std::to_string(record->uid), ""};
  return record;
}

Result<Reply> SegmentTable::get(Session& session, const Json& request) {
  HOBBES_TRY(record, segment_of(session, request));
  bool write = text_at(request, "access", "rw") != "ro";
  if (write && record->body.segment.snapshot_of != 0)
    return Error{Code::denied, "get segment '" + std::string(record->name) + "'",
                 "it is a snapshot, which nobody writes to", "ask for read-only access"};
  if (!may(session, *record, write))
    return Error{Code::denied, "get segment '" + std::string(record->name) + "'",
                 "its permissions do not let user " + std::to_string(session.peer.uid) +
                     (write ? " write" : " read"),
                 "ask for read-only access, or its owner to permit more"};
  if (request.value("ofComposition", false)) {
    const std::uint64_t composition = names_.composition_of(session.inside);
    if (composition == 0 || names_.composition_of(record->enclave) != composition)
      return Error{Code::denied, "get segment '" + std::string(record->name) + "'",
                   "it was not made in an enclave of the same composition", ""};
  }
  if (auto document = nis_.document(document_name(record->id)); document && !session.privileged) {
    const hobbes_record* enclave = nis_.by_id(session.inside);
    bool listed = false;
    for (const Json& one : document->value("enclaves", Json::array()))
      listed = listed || (enclave != nullptr && one.is_string() &&
                          one.get<std::string>() == enclave->name && enclave->uid == record->uid);
    if (!listed)
      return Error{Code::denied, "get segment '" + std::string(record->name) + "'",
                   "it is for named enclaves only", ""};
  }
  return Reply{segment_json(*record), {}};
}

Result<void> SegmentTable::check_attachments(const Session& session) const {
  std::uint64_t limit = policies_.of(session.peer.uid).attachments, own = 0;
  if (session.privileged) return {};
  for (const hobbes_record* record : nis_.all(HOBBES_ATTACHMENT))
    own += record->uid == session.peer.uid ? 1 : 0;
  if (own < limit) return {};
  return Error{Code::exhausted, "attach a segment",
               "user " + std::to_string(session.peer.uid) + " has " + std::to_string(own) +
                   " attachments, the quota is " + std::to_string(limit),
               "release some, or ask the administrator to raise the quota"};
}

Result<Reply> SegmentTable::attach(Session& session, const Json& request) {
  HOBBES_TRY(got, get(session, request));
  std::uint64_t id = static_cast<std::uint64_t>(number_at(got.body, "handle"));
  bool write = text_at(request, "access", "rw") != "ro";
  auto held = memory_.find(id);
  if (held == memory_.end())
    return Error{Code::unavailable, "attach segment '" + text_at(got.body, "name") + "'",
                 "its memory is lost", "make it again"};
  HOBBES_CHECK(check_attachments(session));
  HOBBES_TRY(fd, reopened(held->second, write));
  HOBBES_TRY(peer, ProcessId::of(session.peer.pid));
  hobbes_record segment = *nis_.by_id(id);
  hobbes_record attachment = nis_.make(
      HOBBES_ATTACHMENT, id, std::to_string(peer.pid) + "." + std::to_string(nis_.sequence()));
  attachment.uid = session.peer.uid;
  attachment.gid = session.peer.gid;
  attachment.enclave = session.inside;
  attachment.body.attachment = {id, peer.start_ticks, peer.pid, write ? 1U : 0U, 0};
  ++segment.body.segment.attachments;
  Transition transition;
  transition.put(attachment);
  transition.put(segment);
  HOBBES_CHECK(nis_.commit(transition));
  watch_(peer.pid);
  Reply reply{segment_json(segment), {}};
  reply.body["attachment"] = attachment.id;
  reply.fds.push_back(std::move(fd));
  return reply;
}

Result<Reply> SegmentTable::detach(Session& session, const Json& request) {
  const hobbes_record* attachment =
      nis_.by_id(static_cast<std::uint64_t>(number_at(request, "attachment")));
  if (attachment == nullptr || attachment->type != HOBBES_ATTACHMENT)
    return Error{Code::not_found, "detach a segment", "it is not attached", ""};
  if (!session.privileged && session.peer.uid != attachment->uid)
    return Error{Code::denied, "detach a segment", "the attachment is another user's", ""};
  Transition transition;
  std::map<std::uint64_t, hobbes_record> changed;
  end_attachment(*attachment, changed, transition);
  for (const auto& [id, segment] : changed) transition.put(segment);
  HOBBES_CHECK(nis_.commit(transition));
  return Reply{Json::object(), {}};
}

// Its segment's record, if there still is one, is changed in `segments`: several attachments may
// end in one transition.
void SegmentTable::end_attachment(const hobbes_record& attachment,
                                  std::map<std::uint64_t, hobbes_record>& segments,
                                  Transition& transition) {
  const hobbes_attachment& body = attachment.body.attachment;
  const hobbes_record* segment = nis_.by_id(body.segment);
  if (segment != nullptr) {
    hobbes_segment& changed =
        segments.try_emplace(body.segment, *segment).first->second.body.segment;
    if (changed.attachments > 0) --changed.attachments;
    if (body.bell != 0) {
      if (changed.listeners > 0) --changed.listeners;
      ++changed.listeners_version;
    }
  }
  bells_.attachment_ended(attachment.id);
  transition.erase(attachment.id);
}

void SegmentTable::drop(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* attachment : nis_.all(HOBBES_ATTACHMENT)) {
    if (attachment->body.attachment.segment != id) continue;
    bells_.attachment_ended(attachment->id);
    transition.erase(attachment->id);
  }
  if (const hobbes_record* segment = nis_.by_id(id);
      segment != nullptr && (segment->body.segment.flags & 1U) != 0)
    let_go(segment->body.segment.owner_fd);
  transition.erase(id);
  transition.erase_document(document_name(id));
  memory_.erase(id);
}

Result<Reply> SegmentTable::remove(Session& session, const Json& request) {
  HOBBES_TRY(record, segment_of(session, request));
  if (!session.privileged && session.peer.uid != record->uid)
    return Error{Code::denied, "remove segment '" + std::string(record->name) + "'",
                 "it belongs to user " + std::to_string(record->uid), ""};
  Transition transition;
  drop(record->id, transition);
  HOBBES_CHECK(nis_.commit(transition));
  return Reply{Json::object(), {}};
}

// After a restart: the owner still has the memory open, so it can be had from there.
void SegmentTable::adopt() {
  std::vector<hobbes_record> all;
  for (const hobbes_record* segment : nis_.all(HOBBES_SEGMENT)) all.push_back(*segment);
  for (const hobbes_record& segment : all) {
    const hobbes_segment& body = segment.body.segment;
    Fd fd;
    ProcessId owner{body.owner_pid, body.owner_start_ticks};
    if (owner.alive()) {
      if (auto memory = open_memory_of(body.owner_pid, body.owner_fd)) fd = std::move(*memory);
    }
    struct stat info {};
    if (fd && ::fstat(fd.get(), &info) == 0 && info.st_ino == body.inode) {
      memory_[segment.id] = std::move(fd);
      if ((body.flags & 1U) == 0) watch_(body.owner_pid);
      continue;
    }
    spdlog::warn("segment '{}' ended with its owner", segment.name);
    Transition transition;
    drop(segment.id, transition);
    if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  }
  std::set<pid_t> attached;
  for (const hobbes_record* attachment : nis_.all(HOBBES_ATTACHMENT))
    attached.insert(attachment->body.attachment.pid);
  for (pid_t pid : attached) watch_(pid);
  bells_.adopt();
}

void SegmentTable::process_ended(pid_t pid, Transition& transition) {
  std::map<std::uint64_t, hobbes_record> changed;
  for (const hobbes_record* attachment : nis_.all(HOBBES_ATTACHMENT))
    if (attachment->body.attachment.pid == pid) end_attachment(*attachment, changed, transition);
  for (const hobbes_record* segment : nis_.all(HOBBES_SEGMENT)) {
    bool orphaned =
        segment->body.segment.owner_pid == pid && (segment->body.segment.flags & 1U) == 0;
    if (!orphaned) continue;
    changed.erase(segment->id);
    drop(segment->id, transition);
  }
  for (const auto& [id, segment] : changed) transition.put(segment);
}

void SegmentTable::enclave_released(std::uint64_t id, Transition& transition) {
  for (const hobbes_record* segment : nis_.all(HOBBES_SEGMENT))
    if (segment->enclave == id && (segment->body.segment.flags & 2U) != 0)
      drop(segment->id, transition);
}

}  // namespace hobbes
