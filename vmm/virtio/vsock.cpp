#include "vmm/virtio/vsock.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace hobbes::vmm {
namespace {

enum QueueNumber : unsigned { to_guest = 0, from_guest = 1 };
constexpr std::uint32_t window = 256 * 1024;      // bytes the guest may send before the host side has taken them
constexpr std::size_t control_limit = 1024;       // packets; a guest that takes none gets no more
constexpr std::size_t stream_limit = 256;
constexpr std::uint64_t host_cid = 2;

}  // namespace

Result<Fd> Vsock::connect(std::uint32_t port) {
  std::string attempt = "reach port " + std::to_string(port) + " of the guest";
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return os_error(attempt, errno);
  Fd theirs(pair[0]), ours(pair[1]);
  (void)::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  Result<void> done;
  transport().locked([&]() -> Result<void> {
    if (!transport().running())
      done = Error{Code::unavailable, attempt, "the guest has no vsock driver yet", "wait until it has booted"};
    else if (streams_.size() >= stream_limit)
      done = Error{Code::exhausted, attempt, "too many streams are open", "close some"};
    if (!done) return {};
    std::uint32_t number = next_port_++;
    Stream& stream = streams_[number];
    stream.fd = std::move(ours);
    stream.guest_port = port;
    say(number, stream, VIRTIO_VSOCK_OP_REQUEST);
    return send_waiting();
  });
  HOBBES_CHECK(std::move(done));
  return theirs;
}

void Vsock::say(std::uint32_t port, const Stream& stream, std::uint16_t operation, std::uint32_t flags) {
  if (control_.size() >= control_limit) return;
  virtio_vsock_hdr header{};
  header.src_cid = host_cid;
  header.dst_cid = guest_cid;
  header.src_port = port;
  header.dst_port = stream.guest_port;
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = operation;
  header.flags = flags;
  header.buf_alloc = window;
  header.fwd_cnt = stream.received;
  control_.push_back(header);
}

Result<void> Vsock::notified(unsigned number) {
  if (number == from_guest) {
    for (;;) {
      HOBBES_TRY(chain, transport().queue(from_guest).pop(transport().memory()));
      if (!chain) break;
      receive(*chain);
      transport().finish(from_guest, chain->head, 0);
    }
  }
  return send_waiting();
}

// As much as the guest has room for: first what has no data, then streams that have some.
Result<void> Vsock::send_waiting() {
  if (!transport().running()) return {};
  Queue& queue = transport().queue(to_guest);
  while (!control_.empty()) {
    HOBBES_TRY(chain, queue.pop(transport().memory()));
    if (!chain) return {};
    std::uint64_t given = chain->give(0, std::as_bytes(std::span(&control_.front(), 1)));
    control_.pop_front();
    transport().finish(to_guest, chain->head, given);
  }
  std::vector<std::uint32_t> ports;
  for (const auto& [port, stream] : streams_) ports.push_back(port);
  for (std::uint32_t port : ports)
    for (auto at = streams_.find(port); at != streams_.end(); at = streams_.find(port)) {
      HOBBES_TRY(more, read_from_host(port, at->second));
      if (!more) break;
    }
  for (auto& [port, stream] : streams_) update_watch(port, stream);
  return {};
}

// One packet of data, if the host side has written, the guest has room for it and a buffer waits. True when it may have more.
Result<bool> Vsock::read_from_host(std::uint32_t port, Stream& stream) {
  if (!stream.established || credit(stream) == 0) return false;
  char probe = 0;
  ssize_t waiting = ::recv(stream.fd.get(), &probe, 1, MSG_PEEK | MSG_DONTWAIT);
  if (waiting < 0) return false;
  if (waiting == 0) {
    drop(port, true);
    return false;
  }
  Queue& queue = transport().queue(to_guest);
  HOBBES_TRY(chain, queue.pop(transport().memory()));
  if (!chain) return false;
  std::uint64_t room = chain->writable_size();
  std::byte data[16 * 1024];
  if (room <= sizeof(virtio_vsock_hdr)) return Error{Code::corrupt, "send to the guest", "a receive buffer is too small", ""};
  std::size_t limit = std::min<std::size_t>({sizeof data, room - sizeof(virtio_vsock_hdr), credit(stream)});
  ssize_t n = ::recv(stream.fd.get(), data, limit, MSG_DONTWAIT);
  if (n <= 0) {
    queue.unpop();
    return false;
  }
  virtio_vsock_hdr header{};
  header.src_cid = host_cid;
  header.dst_cid = guest_cid;
  header.src_port = port;
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

void Vsock::receive(const Chain& chain) {
  virtio_vsock_hdr header{};
  if (!chain.take(0, std::as_writable_bytes(std::span(&header, 1)))) return;
  if (header.dst_cid != host_cid || header.src_cid != guest_cid || header.type != VIRTIO_VSOCK_TYPE_STREAM) return;
  auto at = streams_.find(header.dst_port);
  if (at == streams_.end() || at->second.guest_port != header.src_port) {
    if (header.op == VIRTIO_VSOCK_OP_RST) return;
    Stream nobody;
    nobody.guest_port = header.src_port;
    say(header.dst_port, nobody, VIRTIO_VSOCK_OP_RST);
    return;
  }
  Stream& stream = at->second;
  stream.peer_room = header.buf_alloc;
  stream.peer_taken = header.fwd_cnt;
  // The guest may claim to have taken what was never sent: then it has no room.
  if (stream.sent - stream.peer_taken > stream.peer_room) stream.peer_room = stream.sent - stream.peer_taken;
  switch (header.op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
      stream.established = true;
      break;
    case VIRTIO_VSOCK_OP_RST:
      drop(header.dst_port, false);
      break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
      if ((header.flags & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) stream.guest_done = true;
      flush(stream);
      if (stream.guest_done && stream.pending.empty()) drop(header.dst_port, true);
      break;
    case VIRTIO_VSOCK_OP_RW: {
      std::vector<std::byte> data(std::min<std::uint64_t>(header.len, chain.readable_size() - sizeof header));
      if (!stream.established || stream.pending.size() + data.size() > window) {  // beyond what it was granted
        drop(header.dst_port, true);
        break;
      }
      (void)chain.take(sizeof header, data);
      stream.pending.insert(stream.pending.end(), data.begin(), data.end());
      flush(stream);
      if (stream.received - stream.announced > window / 2) {
        stream.announced = stream.received;
        say(header.dst_port, stream, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
      }
      break;
    }
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
      stream.announced = stream.received;
      say(header.dst_port, stream, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
      break;
    default:
      break;
  }
}

void Vsock::flush(Stream& stream) {
  while (!stream.pending.empty()) {
    ssize_t n = ::send(stream.fd.get(), stream.pending.data(), stream.pending.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) {
      if (n < 0 && errno == EAGAIN) return;
      n = static_cast<ssize_t>(stream.pending.size());  // nobody will read it
    }
    stream.pending.erase(stream.pending.begin(), stream.pending.begin() + n);
    stream.received += static_cast<std::uint32_t>(n);
  }
}

void Vsock::drop(std::uint32_t port, bool tell_guest) {
  auto at = streams_.find(port);
  if (at == streams_.end()) return;
  if (tell_guest) say(port, at->second, VIRTIO_VSOCK_OP_RST);
  if (at->second.watching != 0) loop_.unwatch(at->second.fd.get());
  streams_.erase(at);
}

void Vsock::update_watch(std::uint32_t port, Stream& stream) {
  std::uint32_t wanted = (stream.established && credit(stream) != 0 ? std::uint32_t{EPOLLIN} : 0U) |
                         (stream.pending.empty() ? 0U : std::uint32_t{EPOLLOUT});
  if (wanted == stream.watching) return;
  if (stream.watching == 0) {
    (void)loop_.watch(stream.fd.get(), wanted | EPOLLET, [this, port](std::uint32_t) {
      transport().locked([&]() -> Result<void> {
        for (const Fd& old : doomed_) loop_.unwatch(old.get());
        doomed_.clear();
        auto at = streams_.find(port);
        if (at == streams_.end()) return {};
        flush(at->second);
        if (at->second.guest_done && at->second.pending.empty()) drop(port, true);
        return send_waiting();
      });
    });
  } else if (wanted == 0) {
    loop_.unwatch(stream.fd.get());
  } else {
    (void)loop_.change(stream.fd.get(), wanted | EPOLLET);
  }
  stream.watching = wanted;
}

void Vsock::reset() {
  control_.clear();
  for (auto& [port, stream] : streams_) {
    (void)::shutdown(stream.fd.get(), SHUT_RDWR);  // wakes the loop
    if (stream.watching != 0) doomed_.push_back(std::move(stream.fd));
  }
  streams_.clear();
}

}  // namespace hobbes::vmm
