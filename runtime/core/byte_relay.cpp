#include "core/byte_relay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>

namespace hobbes {
namespace {

constexpr std::chrono::seconds ending_limit(10);

// One direction: what was read and not yet written.
struct Direction {
  int from, to;
  std::array<char, 65536> bytes{};
  std::size_t begin = 0, end = 0;
  bool ended = false;  ///< nothing more comes

  [[nodiscard]] bool empty() const { return begin == end; }
  void read_some() {
    ssize_t got = ::recv(from, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    ended = got <= 0;
    begin = 0;
    end = got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  /// False when nobody will take it.
  bool write_some() {
    ssize_t put = ::send(to, bytes.data() + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) begin += static_cast<std::size_t>(put);
    return put >= 0 || errno == EAGAIN || errno == EINTR;
  }
};

}  // namespace

void relay_bytes(const Fd& one, const Fd& other) {
  std::array<Direction, 2> ways{Direction{one.get(), other.get()},
                                Direction{other.get(), one.get()}};
  std::optional<std::chrono::steady_clock::time_point> end;
  for (;;) {
    const bool ending = ways[0].ended || ways[1].ended;
    if (ending && ways[0].empty() && ways[1].empty()) return;
    std::array<pollfd, 2> watched{};
    for (std::size_t i = 0; i < 2; ++i) {
      // A side is read when what it sent before has gone, and written when there is something.
      if (ways[i].empty() && !ending) watched[i].events |= POLLIN;
      if (!ways[1 - i].empty()) watched[i].events |= POLLOUT;
      // A side that has hung up would be told again and again.
      watched[i].fd = watched[i].events != 0 ? ways[i].from : -1;
    }
    int limit_ms = -1;
    if (ending) {
      const auto now = std::chrono::steady_clock::now();
      if (!end) end = now + ending_limit;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end - now);
      if (left.count() <= 0) return;
      limit_ms = static_cast<int>(left.count());
    }
    const int ready = ::poll(watched.data(), watched.size(), limit_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return;
    for (std::size_t i = 0; i < 2; ++i) {
      constexpr short gone = POLLHUP | POLLERR | POLLNVAL;
      if ((watched[i].revents & (POLLIN | gone)) != 0 && ways[i].empty() && !ways[i].ended)
        ways[i].read_some();
      if ((watched[i].revents & (POLLOUT | gone)) != 0 && !ways[1 - i].empty() &&
          !ways[1 - i].write_some())
        return;
    }
  }
}

}  // namespace hobbes
