#include "vmm/virtio/vsock.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace hobbes::vmm {
namespace {

constexpr std::uint32_t privileged_ports =
    1024;  // Linux's LAST_RESERVED_PORT + 1: below, a program needs CAP_NET_BIND_SERVICE

enum QueueNumber : unsigned { to_guest = 0, from_guest = 1 };
constexpr std::uint32_t window =
    256 * 1024;  // bytes the guest may send before the host side has taken them
constexpr std::size_t control_limit = 1024;  // packets; a guest that takes none gets no more
constexpr std::size_t stream_limit = 256;
constexpr std::uint64_t host_cid = 2;

}  // namespace

Result<Fd> Vsock::connect(std::uint32_t port) {
  std::string attempt = "reach port " + std::to_string(port) + " of the guest";
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return os_error(attempt, errno);
  Fd theirs(pair[0]), ours(pair[1]);
  (void)::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  Result<void> done;
  transport().locked([&]() -> Result<void> {
    if (!transport().running())
      done = Error{Code::unavailable, attempt, "the guest has no vsock driver yet",
                   "wait until it has booted"};
    else if (streams_.size() >= stream_limit)
      done = Error{Code::exhausted, attempt, "too many streams are open", "close some"};
    if (!done) return {};
    Key key{next_port_++, port};
    Stream& stream = streams_[key];
    stream.fd = std::move(ours);
    stream.host_port = key.first;
    stream.guest_port = port;
    say(stream, VIRTIO_VSOCK_OP_REQUEST);
    return send_waiting();
  });
  HOBBES_CHECK(std::move(done));
  return theirs;
}

void Vsock::say(const Stream& stream, std::uint16_t operation) {
  if (control_.size() >= control_limit) return;
  virtio_vsock_hdr header{};
  header.src_cid = host_cid;
  header.dst_cid = guest_cid;
  header.src_port = stream.host_port;
  header.dst_port = stream.guest_port;
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = operation;
  header.buf_alloc = window;
  header.fwd_cnt = stream.received;
  control_.push_back(header);
}

Result<void> Vsock::notified(unsigned number) {
  if (number == from_guest) {
    HOBBES_CHECK(
        transport().each(from_guest, [&](const DescriptorChain& chain) -> Result<std::uint64_t> {
          receive(chain);
          return std::uint64_t{0};
        }));
  }
  return send_waiting();
}

// As much as the guest has room for: first what has no data, then streams that have some.
Result<void> Vsock::send_waiting() {
  if (!transport().running()) return {};
  HOBBES_CHECK(send_control());
  std::vector<Key> keys;
  for (const auto& [key, stream] : streams_) keys.push_back(key);
  for (Key key : keys)
    for (auto at = streams_.find(key); at != streams_.end(); at = streams_.find(key)) {
      HOBBES_TRY(more, read_from_host(at->second));
      if (!more) break;
    }
  for (auto& [key, stream] : streams_) update_watch(stream);
  return send_control();
}

Result<void> Vsock::send_control() {
  Queue& queue = transport().queue(to_guest);
  while (!control_.empty() && transport().running()) {
    HOBBES_TRY(chain, queue.pop(transport().memory()));
    if (!chain) return {};
    std::uint64_t given = chain->give(0, std::as_bytes(std::span(&control_.front(), 1)));
    control_.pop_front();
    transport().finish(to_guest, chain->head, given);
  }
  return {};
}

// One packet of data, if the host side has written, the guest has room for it and a buffer waits.
// True when it may have more.
Result<bool> Vsock::read_from_host(Stream& stream) {
  if (!stream.established || credit(stream) == 0) return false;
  char probe = 0;
  ssize_t waiting = ::recv(stream.fd.get(), &probe, 1, MSG_PEEK | MSG_DONTWAIT);
  if (waiting < 0) return false;
  if (waiting == 0) {
    drop({stream.host_port, stream.guest_port}, true);
    return false;
  }
  Queue& queue = transport().queue(to_guest);
  HOBBES_TRY(chain, queue.pop(transport().memory()));
  if (!chain) return false;
  std::uint64_t room = chain->writable_size();
  std::byte data[16 * 1024];
  if (room <= sizeof(virtio_vsock_hdr))
    return Error{Code::corrupt, "send to the guest", "a receive buffer is too small", ""};
  std::size_t limit =
      std::min<std::size_t>({sizeof data, room - sizeof(virtio_vsock_hdr), credit(stream)});
  ssize_t n = ::recv(stream.fd.get(), data, limit, MSG_DONTWAIT);
  if (n <= 0) {
    queue.unpop();
    return false;
  }
  virtio_vsock_hdr header{};
  header.src_cid = host_cid;
  header.dst_cid = guest_cid;
  header.src_port = stream.host_port;
  header.dst_port = stream.guest_port;
  header.len = static_cast<__u32>(n);
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = VIRTIO_VSOCK_OP_RW;
  header.buf_alloc = window;
  header.fwd_cnt = stream.announced = stream.received;
  chain->give(0, std::as_bytes(std::span(&header, 1)));
  chain->give(sizeof header, std::span<const std::byte>(data).first(static_cast<std::size_t>(n)));
  stream.sent += static_cast<std::uint32_t>(n);
  transport().finish(to_guest, chain->head, sizeof header + static_cast<std::uint64_t>(n));
  return true;
}

void Vsock::receive(const DescriptorChain& chain) {
  virtio_vsock_hdr header{};
  if (!chain.take(0, std::as_writable_bytes(std::span(&header, 1)))) return;
  if (header.dst_cid != host_cid || header.src_cid != guest_cid ||
      header.type != VIRTIO_VSOCK_TYPE_STREAM)
    return;
  Key key(std::uint32_t{header.dst_port}, std::uint32_t{header.src_port});
  auto at = streams_.find(key);
  if (at == streams_.end()) return answer_request(header);
  Stream& stream = at->second;
  stream.peer_room = header.buf_alloc;
  stream.peer_taken = header.fwd_cnt;
  // The guest may claim to have taken what was never sent: then it has no room.
  if (stream.sent - stream.peer_taken > stream.peer_room)
    stream.peer_room = stream.sent - stream.peer_taken;
  switch (header.op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
      stream.established = true;
      break;
    case VIRTIO_VSOCK_OP_RST:
      stream.guest_done = true;
      stream.established = false;
      flush(stream);
      if (stream.pending.empty()) drop(key, false);  // else when its reader has it all
      break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
      if ((header.flags & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) stream.guest_done = true;
      flush(stream);
      if (stream.guest_done && stream.pending.empty()) drop(key, true);
      break;
    case VIRTIO_VSOCK_OP_RW: {
      std::vector<std::byte> data(
          std::min<std::uint64_t>(header.len, chain.readable_size() - sizeof header));
      if (!stream.established ||
          stream.pending.size() + data.size() > window) {  // beyond what it was granted
        drop(key, true);
        break;
      }
      (void)chain.take(sizeof header, data);
      stream.pending.insert(stream.pending.end(), data.begin(), data.end());
      flush(stream);
      break;
    }
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
      stream.announced = stream.received;
      say(stream, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
      break;
    default:
      break;
  }
}

// For a stream that is not there: a program of the guest may be making it.
void Vsock::answer_request(const virtio_vsock_hdr& header) {
  if (header.op == VIRTIO_VSOCK_OP_RST) return;
  Stream stream;
  stream.host_port = header.dst_port;
  stream.guest_port = header.src_port;
  auto listener = listeners_.find(stream.host_port);
  int pair[2];
  if (header.op != VIRTIO_VSOCK_OP_REQUEST || listener == listeners_.end() ||
      stream.guest_port >= privileged_ports || streams_.size() >= stream_limit ||
      ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return say(stream, VIRTIO_VSOCK_OP_RST);
  Fd theirs(pair[0]);
  stream.fd.reset(pair[1]);
  (void)::fcntl(pair[1], F_SETFL, O_NONBLOCK);
  stream.established = true;
  stream.peer_room = header.buf_alloc;
  stream.peer_taken = header.fwd_cnt;
  say(stream, VIRTIO_VSOCK_OP_RESPONSE);
  Key key{stream.host_port, stream.guest_port};
  streams_[key] = std::move(stream);
  listener->second(std::move(theirs));
}

void Vsock::flush(Stream& stream) {
  while (!stream.pending.empty()) {
    ssize_t n = ::send(stream.fd.get(), stream.pending.data(), stream.pending.size(),
                       MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (n <= 0) n = static_cast<ssize_t>(stream.pending.size());  // nobody will read it
    stream.pending.erase(stream.pending.begin(), stream.pending.begin() + n);
    stream.received += static_cast<std::uint32_t>(n);
  }
  if (stream.established && stream.received - stream.announced > window / 2) {
    stream.announced = stream.received;
    say(stream, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  }
}

void Vsock::drop(Key key, bool tell_guest) {
  auto at = streams_.find(key);
  if (at == streams_.end()) return;
  if (tell_guest) say(at->second, VIRTIO_VSOCK_OP_RST);
  if (at->second.watching != 0) loop_.unwatch(at->second.fd.get());
  streams_.erase(at);
}

void Vsock::update_watch(Stream& stream) {
  Key key{stream.host_port, stream.guest_port};
  std::uint32_t wanted = EPOLLRDHUP | EPOLLET |
                         (stream.established && credit(stream) != 0 ? std::uint32_t{EPOLLIN} : 0U) |
                         (stream.pending.empty() ? 0U : std::uint32_t{EPOLLOUT});
  if (wanted == stream.watching) return;
  if (stream.watching != 0) {
    (void)loop_.change(stream.fd.get(), wanted);
  } else {
    (void)loop_.watch(stream.fd.get(), wanted, [this, key](std::uint32_t events) {
      transport().locked([&]() -> Result<void> {
        auto at = streams_.find(key);
        if (at == streams_.end()) return {};
        flush(at->second);
        bool all_handed_on = at->second.guest_done && at->second.pending.empty();
        // Closed on this side: nobody reads any more, and what was written is passed on first, if
        // the guest has room.
        bool closed = (events & (EPOLLHUP | EPOLLERR)) != 0 &&
                      (!at->second.established || credit(at->second) == 0);
        if (all_handed_on || closed) drop(key, true);
        return send_waiting();
      });
    });
  }
  stream.watching = wanted;
}

void Vsock::tend() {
  transport().locked([&]() -> Result<void> {
    for (const Fd& old : doomed_) loop_.unwatch(old.get());
    doomed_.clear();
    return {};
  });
}

// By a vCPU's thread: the loop's own thread closes them.
void Vsock::reset() {
  control_.clear();
  for (auto& [key, stream] : streams_) doomed_.push_back(std::move(stream.fd));
  streams_.clear();
  wake_();
}

}  // namespace hobbes::vmm
