#include "hobbesd/doorbell_table.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "core/file.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

constexpr std::uint32_t listener_limit = message_fd_limit;  // one answer names them all

// A new open file description of a pipe's end.
Fd opened_anew(const std::string& path, int flags) {
  return Fd(::open(path.c_str(), flags | O_NONBLOCK | O_CLOEXEC));
}

std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

}  // namespace

Result<hobbes_record> DoorbellTable::attachment_of(const Session& session, const Json& request,
                                                   const std::string& attempt) const {
  const hobbes_record* attachment =
      nis_.by_id(static_cast<std::uint64_t>(number_at(request, "attachment")));
  if (attachment == nullptr || attachment->type != HOBBES_ATTACHMENT ||
      nis_.by_id(attachment->body.attachment.segment) == nullptr)
    return Error{Code::not_found, attempt, "it is not attached, or was removed", "get it again"};
  if (!session.privileged && session.peer.uid != attachment->uid)
    return Error{Code::denied, attempt, "the attachment is another user's", ""};
  return *attachment;
}

Result<Reply> DoorbellTable::listen(Session& session, const Json& request) {
  const std::string attempt = "listen to a segment's doorbell";
  HOBBES_TRY(attachment, attachment_of(session, request, attempt));
  hobbes_record segment = *nis_.by_id(attachment.body.attachment.segment);
  if (attachment.body.attachment.bell != 0)
    return Error{Code::exists, attempt, "this attachment listens already", ""};
  if (segment.body.segment.listeners >= listener_limit)
    return Error{Code::exhausted, attempt, std::to_string(listener_limit) + " listen to it already",
                 "let one of them stop"};
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return os_error(attempt, errno);
  Fd reads(ends[0]), writes(ends[1]);
  (void)::fcntl(reads.get(), F_SETPIPE_SZ, 4096);  // only "something" is ever said
  // Open for both, the listener's end never sees that nobody is left to ring.
  Fd hears = opened_anew(path_of(reads), O_RDWR);
  struct stat info {};
  if (!hears || ::fstat(hears.get(), &info) != 0) return os_error(attempt, errno);
  attachment.body.attachment.bell = info.st_ino;
  ++segment.body.segment.listeners;
  ++segment.body.segment.listeners_version;
  Transition transition;
  transition.put(attachment);
  transition.put(segment);
  HOBBES_CHECK(nis_.commit(transition));
  bells_[attachment.id] = std::move(writes);
  Reply reply{Json::object(), {}};
  reply.fds.push_back(std::move(hears));
  return reply;
}

// Everybody who listens, but for the asking process itself.
Result<Reply> DoorbellTable::listeners(Session& session, const Json& request) {
  HOBBES_TRY(attachment, attachment_of(session, request, "ring a segment's doorbell"));
  std::uint64_t segment = attachment.body.attachment.segment;
  Reply reply{{{"version", nis_.by_id(segment)->body.segment.listeners_version}}, {}};
  for (const hobbes_record* other : nis_.all(HOBBES_ATTACHMENT)) {
    auto bell = bells_.find(other->id);
    if (other->body.attachment.segment != segment ||
        other->body.attachment.pid == session.peer.pid || bell == bells_.end())
      continue;
    Fd rings = opened_anew(path_of(bell->second), O_WRONLY);
    if (rings)
      reply.fds.push_back(std::move(rings));  // else its listener is gone, which will be noticed
  }
  return reply;
}

// After a restart: the listener still has its end, which leads to the pipe.
void DoorbellTable::adopt() {
  std::vector<hobbes_record> all;
  for (const hobbes_record* attachment : nis_.all(HOBBES_ATTACHMENT))
    if (attachment->body.attachment.bell != 0) all.push_back(*attachment);
  for (hobbes_record& attachment : all) {
    hobbes_attachment& body = attachment.body.attachment;
    const std::string folder = "/proc/" + std::to_string(body.pid) + "/fd",
                      pipe = "pipe:[" + std::to_string(body.bell) + "]";
    Fd rings;
    for (const std::string& name : Files::system().list(folder).value_or({})) {
      if (read_link(folder + "/" + name).value_or("") != pipe) continue;
      Fd pin(::open((folder + "/" + name).c_str(),
                    O_PATH | O_CLOEXEC));  // it may be something else by now
      struct stat info {};
      if (pin && ::fstat(pin.get(), &info) == 0 && S_ISFIFO(info.st_mode) &&
          info.st_ino == body.bell)
        rings = opened_anew(path_of(pin), O_WRONLY);
      if (rings) break;
    }
    if (rings) {
      bells_[attachment.id] = std::move(rings);
      continue;
    }
    Transition transition;
    body.bell = 0;
    transition.put(attachment);
    if (const hobbes_record* segment = nis_.by_id(body.segment)) {
      hobbes_record changed = *segment;
      if (changed.body.segment.listeners > 0) --changed.body.segment.listeners;
      ++changed.body.segment.listeners_version;
      transition.put(changed);
    }
    if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  }
}

}  // namespace hobbes
