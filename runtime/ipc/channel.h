// A channel: messages both ways between two processes, through memory that only they share. hobbesd
// introduces the two to each other and is then of no more use: a channel works on while it is dead.
// docs/FABRIC.md; the memory's format is abi/channel.h.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "ipc/message_ring.h"
#include "ipc/message_socket.h"

namespace hobbes {

/// The process at the other end, as hobbesd vouches for it.
struct ChannelPeer {
  std::string enclave;  ///< the id of the enclave it is in, "" outside of any
  pid_t pid = 0;
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
};

/// How a thread waits. To spin costs a processor and answers soonest.
enum class Waiting { sleep, spin_then_sleep, spin };

struct ConnectOptions {
  std::string scope;  ///< "" looks in the enclave, the composition and the node, in that order
  std::int64_t owner = -1;  ///< a user; -1: the caller's own, the enclave's, root's, else anybody's
};

/// One end. One thread may send while one other receives.
class Channel {
 public:
  enum class Status : std::uint8_t {
    good,
    again,      ///< not now: the patience is over
    closed,     ///< the peer has closed it or has ended, and no message is left
    corrupt,    ///< the peer has written what cannot be; the channel is of no more use
    too_large,  ///< the message can never fit, or the buffer is smaller than the message
    failed,     ///< a system call; errno tells
  };
  using milliseconds = std::chrono::milliseconds;
  static constexpr milliseconds forever{-1};

  /// Connects to a listener, waiting up to `patience` for the name to appear and for room in its
  /// queue. Errors: Code::not_found, Code::denied, Code::busy (its queue stays full),
  /// Code::unavailable (no hobbesd).
  static Result<Channel> connect(const std::string& name, const ConnectOptions& options,
                                 milliseconds patience);
  /// What connecting does, of an answer of hobbesd's.
  static Result<Channel> of(Message introduction, bool accepted);

  /// Memory for a channel whose rings hold `size` bytes each (a power of two,
  /// HOBBES_CHANNEL_LEAST..MOST), of a size that nobody can change. Errors: Code::invalid,
  /// Code::os.
  static Result<Fd> make_memory(std::size_t size);
  /// One end of such memory. `hears`: the reading end of a pipe whose writers are all the peer's,
  /// non-blocking, so that its end is the peer's; `rings`: the pipe that the peer hears, open for
  /// reading and writing, so that no write to it meets nobody. `accepted`: which side this is.
  /// Errors: Code::corrupt for memory that is no channel's.
  static Result<Channel> over(const Fd& memory, Fd hears, Fd rings, bool accepted,
                              ChannelPeer peer);
  /// The same in a virtual machine, whose monitor shows the memory at [offset, offset+size) of
  /// physical memory; `hears` and `rings` are one stream.
  static Result<Channel> in_window(const Fd& physical, std::uint64_t offset, std::uint64_t size,
                                   Fd hears, Fd rings, bool accepted, ChannelPeer peer);
  ~Channel();  ///< tells the peer
  Channel(Channel&&) noexcept;
  Channel& operator=(Channel&&) noexcept;

  /// One message in one or two parts. A negative patience waits for ever, 0 never. What was sent
  /// may never be read, as with a socket: the peer can end.
  Status send(const void* bytes, std::size_t size, milliseconds patience,
              const void* more = nullptr, std::size_t more_size = 0);
  /// The next message, into `to`, which has room for `room` bytes; *size: how large it is, also
  /// with too_large, which leaves it there.
  Status receive(void* to, std::size_t room, std::size_t* size, milliseconds patience);
  /// Whether a message, or the end, can be had without waiting. Never a system call.
  [[nodiscard]] bool ready() const;
  /// Has the peer ring from now on, as a receive() that answers `again` does. True: it is ready().
  bool arm();

  /// For poll(2): readable, or hung up, once a receive() that answered `again` is worth repeating.
  /// The channel's own; do not read or close it.
  [[nodiscard]] int descriptor() const;
  [[nodiscard]] std::size_t largest() const;
  [[nodiscard]] const ChannelPeer& peer() const;
  void set_waiting(Waiting waiting);

  /// What a status other than `good` means, for `attempt`.
  static Error error_of(Status status, const std::string& attempt);

 private:
  struct State;
  explicit Channel(std::unique_ptr<State> state);
  static Result<Channel> map(int memory, std::uint64_t offset, std::size_t bytes, Fd hears,
                             Fd rings, bool accepted, ChannelPeer peer);
  std::unique_ptr<State> state_;
};

}  // namespace hobbes
