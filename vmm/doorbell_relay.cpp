#include "vmm/doorbell_relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "vmm/relay.h"

namespace hobbes::vmm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t stream_limit = 64;  // of one segment

}  // namespace

DoorbellRelay::~DoorbellRelay() {
  while (!doorbells_.empty()) end(doorbells_.begin());
}

Result<void> DoorbellRelay::connect(SegmentAccess access, Fd stream, std::int64_t program,
                                    bool listens) {
  const std::uint64_t handle = access.handle();
  auto bell = doorbells_.find(handle);
  if (bell == doorbells_.end()) bell = doorbells_.try_emplace(handle, std::move(access)).first;
  auto added = [&]() -> Result<void> {
    Bell& its = bell->second;
    if (its.streams.size() >= stream_limit)
      return Error{Code::exhausted, "use a segment's doorbell", "too many programs of the guest do",
                   "let one of them end"};
    if (listens && its.descriptor < 0) {
      HOBBES_TRY(descriptor, its.access.doorbell().listen(manager_limit));
      HOBBES_CHECK(loop_.watch(descriptor, EPOLLIN, [this, &its](auto) { heard_from_node(its); }));
      its.descriptor = descriptor;
    }
    its.streams.push_back({std::move(stream), program, listens});
    auto at = std::prev(its.streams.end());
    auto watched = loop_.watch(at->fd.get(), EPOLLIN | EPOLLRDHUP,
                               [this, bell, at](auto) { heard_from_guest(bell, at); });
    if (!watched) its.streams.erase(at);
    return watched;
  }();
  if (!added && bell->second.streams.empty()) end(bell);
  return added;
}

void DoorbellRelay::heard_from_guest(Bells::iterator bell, std::list<Stream>::iterator from) {
  char said[4096];
  ssize_t n = ::recv(from->fd.get(), said, sizeof said, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    for (const Stream& other : bell->second.streams)
      if (other.listens && other.program != from->program) send_wake_up(other.fd);
    auto rung = bell->second.access.doorbell().ring(manager_limit);
    if (rung || rung.error().code != Code::not_found) return;
    return end(bell);  // its programs learn it by the end of their streams
  }
  loop_.unwatch(from->fd.get());
  bell->second.streams.erase(from);
  if (bell->second.streams.empty()) end(bell);
}

void DoorbellRelay::heard_from_node(Bell& bell) const {
  if (!Doorbell::wait(bell.descriptor, milliseconds(0))) return;
  for (const Stream& stream : bell.streams)
    if (stream.listens) send_wake_up(stream.fd);
}

void DoorbellRelay::end(Bells::iterator bell) {
  for (const Stream& stream : bell->second.streams) loop_.unwatch(stream.fd.get());
  if (bell->second.descriptor >= 0) loop_.unwatch(bell->second.descriptor);
  doorbells_.erase(bell);
}

}  // namespace hobbes::vmm
