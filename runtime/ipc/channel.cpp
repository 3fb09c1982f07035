#include "ipc/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <thread>

#include "ipc/client.h"

namespace hobbes {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr microseconds spin_most{10};
constexpr milliseconds room_period{20};  // the peer may take room without a ring for a moment
constexpr milliseconds peer_period{20};  // of one who spins; a dead peer is told within 100 ms

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr milliseconds longest_patience = std::chrono::hours(24 * 365);  // what a clock can add

// What a wait may take. The clock is not read before the first wait.
class Patience {
 public:
  explicit Patience(milliseconds limit) : limit_(std::min(limit, longest_patience)) {}
  [[nodiscard]] bool none() const { return limit_.count() == 0; }
  void begin() {
    if (begun_) return;
    begun_ = true;
    begin_ = Clock::now();
  }
  [[nodiscard]] bool over(Clock::time_point now) const {
    return limit_.count() >= 0 && now - begin_ >= limit_;
  }
  // For poll(2).
  [[nodiscard]] int left() const {
    if (limit_.count() < 0) return -1;
    auto left = std::chrono::ceil<milliseconds>(begin_ + limit_ - Clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT32_MAX));
  }
  [[nodiscard]] Clock::time_point begun() const { return begin_; }

 private:
  milliseconds limit_;
  bool begun_ = false;
  Clock::time_point begin_;
};

constexpr std::size_t bytes_of(std::size_t ring) { return HOBBES_CHANNEL_HEADER + 2 * ring; }

}  // namespace

struct Channel::State {
  void* memory = nullptr;
  std::size_t bytes = 0;
  Fd hears, rings;
  bool is_stream = false;  // they are, in a virtual machine
  ChannelPeer peer;
  MessageWriter writer;
  MessageReader reader;
  std::atomic<Waiting> waiting{Waiting::spin_then_sleep};
  std::atomic<bool> ended{false};   // the pipe has told so
  std::atomic<bool> polled{false};  // the reader waits, if at all, by the descriptor

  // One thread sleeps at the pipe, and tells the other one, if both sides of this end wait.
  std::mutex door;
  std::condition_variable opened;
  bool attended = false;
  std::uint64_t turn = 0;

  ~State() {
    if (memory == nullptr) return;
    writer.close();
    ring();
    ::munmap(memory, bytes);
  }

  void ring() {
    // A full pipe was rung.
    if (is_stream)
      (void)!::send(rings.get(), "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
      (void)!::write(rings.get(), "!", 1);
  }

  // Takes what was rung; notices the peer's end. A peer that rings without end leaves something to
  // the next time, and holds nobody up.
  void drain() {
    char said[4096];
    ssize_t n = 0;
    do {
      n = ::read(hears.get(), said, sizeof said);
    } while (n < 0 && errno == EINTR);
    if (n == 0) ended.store(true, std::memory_order_release);
  }
  // Of one who does not wait: another thread that does keeps its rings, and one that is about to
  // wait looks again.
  void drain_unattended() {
    std::lock_guard guard(door);
    if (attended) return;
    drain();
    ++turn;
    opened.notify_all();
  }
  std::uint64_t turn_now() {
    std::lock_guard guard(door);
    return turn;
  }
  void look_at_the_peer() {
    pollfd ready{hears.get(), POLLRDHUP, 0};
    if (::poll(&ready, 1, 0) > 0 && (ready.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0)
      ended.store(true, std::memory_order_release);
  }

  // Returns at once if another thread has taken rings since `seen`: they may have been for this
  // one.
  bool sleep(const Patience& patience, milliseconds longest, std::uint64_t seen) {
    const int left = longest.count() < 0 ? patience.left()
                     : patience.left() < 0
                         ? static_cast<int>(longest.count())
                         : std::min(patience.left(), static_cast<int>(longest.count()));
    std::unique_lock guard(door);
    auto came = [&] { return turn != seen; };
    if (came()) return true;
    if (attended) {
      if (left < 0)
        opened.wait(guard, came);
      else
        (void)opened.wait_for(guard, milliseconds(left), came);
      return true;
    }
    attended = true;
    guard.unlock();
    pollfd ready{hears.get(), POLLIN, 0};
    int found = ::poll(&ready, 1, left);
    const bool failed = found < 0 && errno != EINTR;
    if (found > 0) drain();
    guard.lock();
    attended = false;
    ++turn;
    opened.notify_all();
    return !failed;
  }

  // Until `done` answers something else than `again`. `announce` makes the peer ring; no sleep
  // lasts longer than `longest`.
  template <class Done, class Announce>
  Status wait(milliseconds limit, milliseconds longest, Done done, Announce announce) {
    Patience patience(limit);
    Clock::time_point looked;
    for (unsigned round = 0;; ++round) {
      const Waiting way = waiting.load(std::memory_order_relaxed);
      if (patience.none() || way == Waiting::sleep) break;
      patience.begin();
      if (round == 0) looked = patience.begun();
      for (unsigned look = 0; look < 64; ++look) {
        if (Status status = done(); status != Status::again) return status;
        if (round > 0 || look > 32) relax();
      }
      const auto now = Clock::now();
      if (patience.over(now)) break;
      if (way == Waiting::spin_then_sleep && now - patience.begun() > spin_most) break;
      if (now - looked > peer_period) {
        looked = now;
        look_at_the_peer();
      }
    }
    for (;;) {
      const std::uint64_t seen = turn_now();
      announce();
      if (Status status = done(); status != Status::again) return status;
      if (patience.none()) return Status::again;
      patience.begin();
      if (patience.over(Clock::now())) return Status::again;
      if (!sleep(patience, longest, seen)) return Status::failed;
    }
  }

  // Waits for room while the reader waits by poll(2): the rings stay in the pipe for the reader.
  template <class Done>
  Status wait_beside_poll(milliseconds limit, Done done) {
    Patience patience(limit);
    patience.begin();
    for (;;) {
      if (Status status = done(); status != Status::again) return status;
      if (patience.none() || patience.over(Clock::now())) return Status::again;
      std::this_thread::sleep_for(microseconds(500));
      look_at_the_peer();
    }
  }
};

Channel::Channel(std::unique_ptr<State> state) : state_(std::move(state)) {}
Channel::~Channel() = default;
Channel::Channel(Channel&&) noexcept = default;
Channel& Channel::operator=(Channel&&) noexcept = default;

Result<Channel> Channel::of(Message introduction, bool accepted) {
  const Json& body = introduction.body;
  if (introduction.fds.size() != 3)
    return Error{Code::corrupt, "open a channel", "its memory did not come with it",
                 "this process may have too many descriptors open"};
  ChannelPeer peer{text_at(body, "enclave"), static_cast<pid_t>(number_at(body, "pid")),
                   static_cast<uid_t>(number_at(body, "uid", -1)),
                   static_cast<gid_t>(number_at(body, "gid", -1))};
  if (body.contains("offset"))
    return in_window(introduction.fds[0], static_cast<std::uint64_t>(number_at(body, "offset")),
                     static_cast<std::uint64_t>(number_at(body, "size")),
                     std::move(introduction.fds[1]), std::move(introduction.fds[2]), accepted,
                     std::move(peer));
  return over(introduction.fds[0], std::move(introduction.fds[1]), std::move(introduction.fds[2]),
              accepted, std::move(peer));
}

Result<Channel> Channel::connect(const std::string& name, const ConnectOptions& options,
                                 milliseconds patience) {
  Json request = {{"name", name}, {"owner", options.owner}};
  if (!options.scope.empty()) request["scope"] = options.scope;
  const auto begin = Clock::now();
  for (milliseconds pause{1};; pause = std::min(pause * 2, milliseconds(50))) {
    auto answer = [&]() -> Result<Message> {
      HOBBES_TRY(client, Client::connect(false));
      return client.call("channel.connect", request);
    }();
    if (answer) return of(std::move(*answer), false);
    const bool later = answer.error().code == Code::not_found ||
                       answer.error().code == Code::busy ||
                       answer.error().code == Code::unavailable;
    if (!later || (patience.count() >= 0 && Clock::now() - begin >= patience))
      return std::move(answer).error();
    std::this_thread::sleep_for(pause);
  }
}

Result<Fd> Channel::make_memory(std::size_t size) {
  const std::string attempt = "make a channel's memory";
  if (size < HOBBES_CHANNEL_LEAST || size > HOBBES_CHANNEL_MOST || !std::has_single_bit(size))
    return Error{Code::invalid, attempt, std::to_string(size) + " bytes is no size of a ring",
                 "choose a power of two from 4 KiB to 64 MiB"};
  Fd memory(::memfd_create("hobbes:channel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory || ::ftruncate(memory.get(), static_cast<off_t>(bytes_of(size))) != 0)
    return os_error(attempt, errno);
  hobbes_channel_header header{};
  header.magic = HOBBES_CHANNEL_MAGIC;
  header.version = HOBBES_CHANNEL_VERSION;
  header.size = static_cast<std::uint32_t>(size);
  if (::pwrite(memory.get(), &header, sizeof header, 0) != sizeof header ||
      ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return os_error(attempt, errno);
  return memory;
}

Result<Channel> Channel::over(const Fd& memory, Fd hears, Fd rings, bool accepted,
                              ChannelPeer peer) {
  const std::string attempt = "open a channel";
  const Error corrupt{Code::corrupt, attempt, "its memory is not that of a channel", ""};
  struct stat info {};
  if (::fstat(memory.get(), &info) != 0) return os_error(attempt, errno);
  const auto bytes = static_cast<std::size_t>(info.st_size);
  constexpr int sealed = F_SEAL_SHRINK | F_SEAL_GROW;
  if (bytes < bytes_of(HOBBES_CHANNEL_LEAST) ||
      (::fcntl(memory.get(), F_GET_SEALS) & sealed) != sealed)
    return corrupt;
  return map(memory.get(), 0, bytes, std::move(hears), std::move(rings), accepted, std::move(peer));
}

Result<Channel> Channel::in_window(const Fd& physical, std::uint64_t offset, std::uint64_t size,
                                   Fd hears, Fd rings, bool accepted, ChannelPeer peer) {
  if (size < bytes_of(HOBBES_CHANNEL_LEAST) || size > bytes_of(HOBBES_CHANNEL_MOST))
    return Error{Code::corrupt, "open a channel", "its memory is not that of a channel", ""};
  return map(physical.get(), offset, size, std::move(hears), std::move(rings), accepted,
             std::move(peer));
}

Result<Channel> Channel::map(int memory, std::uint64_t offset, std::size_t bytes, Fd hears,
                             Fd rings, bool accepted, ChannelPeer peer) {
  const std::string attempt = "open a channel";
  const Error corrupt{Code::corrupt, attempt, "its memory is not that of a channel", ""};
  auto state = std::make_unique<State>();
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory,
                      static_cast<off_t>(offset));
  if (base == MAP_FAILED) return os_error(attempt, errno);
  state->bytes = bytes;
  auto* header = static_cast<hobbes_channel_header*>(base);
  const std::size_t size = (bytes - HOBBES_CHANNEL_HEADER) / 2;  // not what the peer could write
  if (header->magic != HOBBES_CHANNEL_MAGIC || header->version != HOBBES_CHANNEL_VERSION ||
      !std::has_single_bit(size) || bytes_of(size) != bytes) {
    ::munmap(base, bytes);
    return corrupt;
  }
  auto* data = static_cast<std::uint8_t*>(base) + HOBBES_CHANNEL_HEADER;
  const unsigned own = accepted ? 1 : 0;
  state->writer = MessageWriter({&header->ring[own], data + own * size, size});
  state->reader = MessageReader({&header->ring[1 - own], data + (1 - own) * size, size});
  state->memory = base;
  state->hears = std::move(hears);
  state->rings = std::move(rings);
  struct stat info {};
  state->is_stream = ::fstat(state->rings.get(), &info) == 0 && S_ISSOCK(info.st_mode);
  state->peer = std::move(peer);
  return Channel(std::move(state));
}

Channel::Status Channel::send(const void* bytes, std::size_t size, milliseconds patience,
                              const void* more, std::size_t more_size) {
  State& state = *state_;
  if (size > state.writer.largest() || more_size > state.writer.largest() - size)
    return Status::too_large;
  auto attempt = [&] {
    if (state.ended.load(std::memory_order_relaxed) || state.reader.closed()) return Status::closed;
    switch (state.writer.put(bytes, size, more, more_size)) {
      case MessageRing::Status::good:
        return Status::good;
      case MessageRing::Status::corrupt:
        return Status::corrupt;
      default:
        return Status::again;
    }
  };
  Status status = attempt();
  if (status == Status::again) {
    // Its rings are the reader's, too: one who does not wait leaves them there.
    if (patience.count() == 0 || !state.polled.load())
      status = state.wait(patience, room_period, attempt, [&] { state.writer.announce_sleep(); });
    else
      status = state.wait_beside_poll(patience, attempt);
  }
  if (status == Status::good && state.writer.reader_sleeps()) state.ring();
  return status;
}

Channel::Status Channel::receive(void* to, std::size_t room, std::size_t* size,
                                 milliseconds patience) {
  State& state = *state_;
  auto attempt = [&] {
    // What ends a channel is looked at first, so that no message before it is missed.
    const bool over = state.ended.load(std::memory_order_acquire) || state.reader.closed();
    switch (state.reader.peek(size)) {
      case MessageRing::Status::good:
        if (*size > room) return Status::too_large;
        state.reader.take(to, *size);
        return Status::good;
      case MessageRing::Status::corrupt:
        return Status::corrupt;
      default:
        return over ? Status::closed : Status::again;
    }
  };
  Status status = attempt();
  if (status == Status::again) {
    if (state.reader.writer_surely_sleeps()) state.ring();
    state.polled.store(patience.count() == 0);
    status = state.wait(patience, forever, attempt, [&] {
      state.reader.announce_sleep();
      if (patience.count() == 0) state.drain_unattended();
    });
    if (status == Status::good) state.reader.awake();
  }
  if (status == Status::good && state.reader.writer_sleeps()) state.ring();
  return status;
}

bool Channel::ready() const {
  std::size_t size = 0;
  return state_->reader.peek(&size) != MessageRing::Status::empty || state_->reader.closed() ||
         state_->ended.load(std::memory_order_acquire);
}

bool Channel::arm() {
  State& state = *state_;
  if (state.reader.writer_surely_sleeps()) state.ring();
  state.polled.store(true);
  state.reader.announce_sleep();
  state.drain_unattended();
  return ready();
}

int Channel::descriptor() const { return state_->hears.get(); }
std::size_t Channel::largest() const { return state_->writer.largest(); }
const ChannelPeer& Channel::peer() const { return state_->peer; }
void Channel::set_waiting(Waiting waiting) { state_->waiting.store(waiting); }

Error Channel::error_of(Status status, const std::string& attempt) {
  switch (status) {
    case Status::again:
      return {Code::timeout, attempt, "the time is over", "the peer may be slow or stopped"};
    case Status::closed:
      return {Code::unavailable, attempt, "the peer has closed the channel or has ended",
              "connect again"};
    case Status::corrupt:
      return {Code::corrupt, attempt, "the peer has written what no channel holds",
              "close it; do not trust that peer"};
    case Status::too_large:
      return {Code::invalid, attempt, "the message is larger than there is room for",
              "send a reference into a segment, or choose larger rings"};
    default:
      return os_error(attempt, errno);
  }
}

}  // namespace hobbes
