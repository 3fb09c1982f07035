#include "enclave/drivers/palacios/agent_connection.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "core/file.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;

Error gone() {
  return {Code::unavailable, "talk to the guest's agent", "it has closed the stream",
          "see the enclave's console"};
}

Result<void> read_exactly(int fd, char* to, std::size_t size, Clock::time_point end) {
  while (size > 0) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd readable{fd, POLLIN, 0};
    int n = left > 0 ? ::poll(&readable, 1, static_cast<int>(std::min<std::int64_t>(left, 1 << 30)))
                     : 0;
    if (n == 0)
      return Error{Code::timeout, "talk to the guest's agent", "it does not answer",
                   "see the enclave's console"};
    if (n < 0) continue;
    ssize_t got = ::read(fd, to, size);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return gone();
    to += got;
    size -= static_cast<std::size_t>(got);
  }
  return {};
}

}  // namespace

std::string framed(std::uint32_t type, std::string_view content) {
  hobbes_frame head{static_cast<std::uint32_t>(content.size()), type};
  return std::string(reinterpret_cast<const char*>(&head), sizeof head).append(content);
}

Result<void> AgentConnection::send(std::uint32_t type, std::string_view content) const {
  if (content.size() > HOBBES_FRAME_LIMIT)
    return Error{Code::invalid, "talk to the guest's agent", "the message is too long", ""};
  if (auto sent = write_all(stream_.get(), framed(type, content), "the guest's agent"); !sent)
    return gone();
  return {};
}

Result<AgentFrame> AgentConnection::receive(std::chrono::milliseconds deadline) const {
  auto end = Clock::now() + deadline;
  hobbes_frame head{};
  HOBBES_CHECK(read_exactly(stream_.get(), reinterpret_cast<char*>(&head), sizeof head, end));
  if (head.length > HOBBES_FRAME_LIMIT)
    return Error{Code::corrupt, "talk to the guest's agent",
                 "it sends a frame of " + std::to_string(head.length) + " bytes", ""};
  AgentFrame out{head.type, std::string(head.length, '\0')};
  HOBBES_CHECK(read_exactly(stream_.get(), out.content.data(), head.length, end));
  return out;
}

Result<Json> AgentConnection::ask(const Json& request, std::chrono::milliseconds deadline) const {
  HOBBES_CHECK(send(request));
  HOBBES_TRY(frame, receive(deadline));
  HOBBES_TRY(answer, parse_json(frame.content, "the agent's answer"));
  if (frame.type != HOBBES_FRAME_JSON || !answer.is_object())
    return Error{Code::corrupt, "talk to the guest's agent", "its answer is none", ""};
  if (auto error = answer.find("error"); error != answer.end()) return error_from(*error);
  return answer;
}

// Never waits for room towards the guest: the program may be waiting for its output to be taken
// before it takes more input.
Result<int> relay_stdio(const AgentConnection& program, const Streams& streams) {
  bool reading = streams.in >= 0;
  std::string waiting;  // framed input
  int insisted = 0;
  for (;;) {
    bool room = waiting.empty();
    pollfd watched[3] = {{program.fd(), static_cast<short>(room ? POLLIN : POLLIN | POLLOUT), 0},
                         {reading && room ? streams.in : -1, POLLIN, 0},
                         {streams.signals, POLLIN, 0}};
    if (::poll(watched, 3, -1) < 0) {
      if (errno == EINTR) continue;
      return os_error("wait for a program in the guest", errno);
    }
    if (watched[1].revents != 0) {
      char data[32 * 1024];
      ssize_t n = ::read(streams.in, data, sizeof data);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      reading = n > 0;
      waiting =
          framed(HOBBES_FRAME_STDIN, {data, static_cast<std::size_t>(std::max<ssize_t>(n, 0))});
    }
    signalfd_siginfo info{};
    if (watched[2].revents != 0 && ::read(streams.signals, &info, sizeof info) == sizeof info) {
      // The program may not be hearing, behind input that it does not take.
      if ((info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) && ++insisted == 3)
        return static_cast<int>(info.ssi_signo);
      waiting += framed(HOBBES_FRAME_JSON, to_text({{"op", "signal"}, {"number", info.ssi_signo}}));
    }
    if (!waiting.empty()) {
      ssize_t n = ::send(program.fd(), waiting.data(), waiting.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) waiting.erase(0, static_cast<std::size_t>(n));
      if (n < 0 && errno != EAGAIN &&
          errno != EINTR) {  // the program has ended; what it said is still to be read
        waiting.clear();
        reading = false;
      }
    }
    if ((watched[0].revents & ~POLLOUT) == 0) continue;
    // However long the rest of it takes: a guest may be paused between two bytes.
    HOBBES_TRY(frame, program.receive(std::chrono::hours(24 * 365)));
    if (frame.type == HOBBES_FRAME_STDOUT || frame.type == HOBBES_FRAME_STDERR) {
      // A reader that went away is the program's loss, not the end of it.
      (void)write_all(frame.type == HOBBES_FRAME_STDOUT ? streams.out : streams.err, frame.content,
                      "output");
      continue;
    }
    if (frame.type != HOBBES_FRAME_JSON) continue;
    HOBBES_TRY(word, parse_json(frame.content, "the agent's word"));
    if (word.contains("exited"))
      return static_cast<int>(static_cast<unsigned>(number_at(word, "exited") & 0xff) << 8U);
    if (word.contains("signalled")) return static_cast<int>(number_at(word, "signalled") & 0x7f);
  }
}

}  // namespace hobbes
