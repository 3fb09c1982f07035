#include "vmm/bells.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace hobbes::vmm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t stream_limit = 64;     // of one segment
constexpr milliseconds manager_limit(2000);  // hobbesd's, while the guest's other requests wait

void tell(const Fd& stream) {
  (void)!::send(stream.get(), "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}  // a full one was told

}  // namespace

Bells::~Bells() {
  while (!bells_.empty()) end(bells_.begin());
}

Result<void> Bells::connect(const std::string& segment, bool writable, Fd stream,
                            std::int64_t program, bool listens) {
  auto bell = bells_.find(segment);
  if (bell == bells_.end()) {
    HOBBES_TRY(access, SegmentAccess::get(segment, writable, manager_limit));
    bell = bells_.try_emplace(segment, std::move(access)).first;
  }
  auto added = [&]() -> Result<void> {
    Bell& its = bell->second;
    if (its.streams.size() >= stream_limit)
      return Error{Code::exhausted, "use a segment's doorbell", "too many programs of the guest do",
                   "let one of them end"};
    if (listens && its.hears < 0) {
      HOBBES_TRY(hears, its.access.doorbell().listen(manager_limit));
      HOBBES_CHECK(loop_.watch(hears, EPOLLIN, [this, &its](auto) { heard_from_node(its); }));
      its.hears = hears;
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

void Bells::heard_from_guest(Shelf::iterator bell, std::list<Stream>::iterator from) {
  char said[4096];
  ssize_t n = ::recv(from->fd.get(), said, sizeof said, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    for (const Stream& other : bell->second.streams)
      if (other.listens && other.program != from->program) tell(other.fd);
    auto rung = bell->second.access.doorbell().ring(manager_limit);
    if (rung || rung.error().code != Code::not_found) return;
    return end(bell);  // its programs learn it by the end of their streams
  }
  loop_.unwatch(from->fd.get());
  bell->second.streams.erase(from);
  if (bell->second.streams.empty()) end(bell);
}

void Bells::heard_from_node(Bell& bell) const {
  if (!Doorbell::wait(bell.hears, milliseconds(0))) return;
  for (const Stream& stream : bell.streams)
    if (stream.listens) tell(stream.fd);
}

void Bells::end(Shelf::iterator bell) {
  for (const Stream& stream : bell->second.streams) loop_.unwatch(stream.fd.get());
  if (bell->second.hears >= 0) loop_.unwatch(bell->second.hears);
  bells_.erase(bell);
}

}  // namespace hobbes::vmm
