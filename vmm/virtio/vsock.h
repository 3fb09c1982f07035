// Sockets between this node and the guest (virtio 1.2, 5.10), seen here as Unix stream sockets.
#pragma once
#include <linux/virtio_vsock.h>

#include <deque>
#include <map>
#include <vector>

#include "core/event_loop.h"
#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

inline constexpr std::uint64_t guest_cid = 3;

/// Its streams are served on the loop's thread.
class Vsock final : public VirtioDevice {
 public:
  /// `wake`: makes the loop call tend() soon, from any thread.
  Vsock(EventLoop& loop, std::function<void()> wake) : loop_(loop), wake_(std::move(wake)) {}
  /// Lets go of what a reset has left; on the loop's thread.
  void tend();
  /// A stream to a port of the guest. Whether somebody listens there is seen by its first bytes or
  /// its end.
  Result<Fd> connect(std::uint32_t port);
  /// `accepted` gets a stream for each program of the guest that connects to `port` from a port
  /// below 1024, which is a privilege inside, on the loop's thread with the lock held: it may watch
  /// it, not connect. Before the guest runs.
  void listen(std::uint32_t port, std::function<void(Fd)> accepted) {
    listeners_[port] = std::move(accepted);
  }

  [[nodiscard]] std::uint32_t type() const override { return 19; }
  [[nodiscard]] unsigned queues() const override { return 3; }
  [[nodiscard]] std::span<const std::byte> configuration() const override {
    return std::as_bytes(std::span(&cid_, 1));
  }
  Result<void> notified(unsigned queue) override;
  void reset() override;

 private:
  struct Stream {
    Fd fd;
    std::uint32_t host_port = 0, guest_port = 0;
    bool established = false;
    bool guest_done = false;         // it sends no more; what it sent is still handed on
    std::vector<std::byte> pending;  // for the host side, which is slow
    std::uint32_t received = 0;      // bytes handed to the host side
    std::uint32_t announced = 0;     // the `received` the guest knows of
    std::uint32_t sent = 0;
    std::uint32_t peer_room = 0, peer_taken = 0;
    std::uint32_t watching = 0;
  };
  using Key = std::pair<std::uint32_t, std::uint32_t>;  // host port, guest port
  using Streams = std::map<Key, Stream>;

  Result<void> send_waiting();
  void receive(const DescriptorChain& chain);
  void answer_request(const virtio_vsock_hdr& header);
  Result<bool> read_from_host(Stream& stream);
  void flush(Stream& stream);  // to the host side, as far as it takes it
  void drop(Key key, bool tell_guest);
  void say(const Stream& stream, std::uint16_t operation);
  void update_watch(Stream& stream);
  [[nodiscard]] static std::uint32_t credit(const Stream& stream) {
    return stream.peer_room - (stream.sent - stream.peer_taken);
  }

  Result<void> send_control();

  EventLoop& loop_;
  std::function<void()> wake_;
  std::uint64_t cid_ = guest_cid;
  Streams streams_;
  std::map<std::uint32_t, std::function<void(Fd)>> listeners_;
  std::vector<Fd> doomed_;  // of a driver that was reset, by a vCPU's thread: the loop's own thread
                            // lets go of them
  std::deque<virtio_vsock_hdr> control_;  // packets without data that wait for room in the guest
  std::uint32_t next_port_ = 0x10000;
};

}  // namespace hobbes::vmm
