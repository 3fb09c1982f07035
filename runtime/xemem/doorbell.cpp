#include "xemem/doorbell.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/paths.h"
#include "ipc/client.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

// A listener that has ended is no reason for its ringer to get SIGPIPE, whatever the program has
// made of that signal.
class WithoutPipeSignal {
 public:
  WithoutPipeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
    sigset_t pending;
    if (sigismember(&before_, SIGPIPE) == 1 && ::sigpending(&pending) == 0)
      was_pending_ = sigismember(&pending, SIGPIPE) == 1;
  }
  ~WithoutPipeSignal() {
    timespec now{};
    if (raised_ && !was_pending_)
      while (::sigtimedwait(&set_, nullptr, &now) < 0 && errno == EINTR) {
      }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutPipeSignal(const WithoutPipeSignal&) = delete;
  WithoutPipeSignal& operator=(const WithoutPipeSignal&) = delete;
  void raised() { raised_ = true; }

 private:
  sigset_t set_{}, before_{};
  bool was_pending_ = false, raised_ = false;
};

}  // namespace

Result<int> Doorbell::listen(milliseconds deadline) {
  if (rung_) return rung_.get();
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(answer, client.call("segment.listen",
                                 {{"attachment", attachment_},
                                  {"handle", segment_},
                                  {"access", writable_ ? "rw" : "ro"}},
                                 {}, deadline));
  if (answer.fds.size() != 1)
    return Error{Code::corrupt, "listen to a segment's doorbell",
                 "no descriptor came with the answer", ""};
  rung_ = std::move(answer.fds[0]);
  return rung_.get();
}

Result<void> Doorbell::wait(int descriptor, milliseconds patience) {
  const std::string attempt = "wait for a segment's doorbell";
  auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    char said[4096];
    ssize_t n = ::read(descriptor, said, sizeof said);
    if (n > 0) return {};
    if (n == 0)
      return Error{Code::unavailable, attempt, "nobody will ring any more",
                   "get the segment again"};
    if (errno != EAGAIN && errno != EINTR) return os_error(attempt, errno);
    auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
    pollfd ready{descriptor, POLLIN, 0};
    int found = ::poll(
        &ready, 1,
        patience.count() < 0 ? -1 : static_cast<int>(std::max(left, milliseconds(0)).count()));
    if (found < 0 && errno != EINTR) return os_error(attempt, errno);
    if (found == 0)
      return Error{Code::timeout, attempt,
                   "it did not ring within " + std::to_string(patience.count()) + " ms", ""};
  }
}

Result<void> Doorbell::find_listeners(milliseconds deadline) {
  if (!mirror_ || mirror_->replaced()) {
    HOBBES_TRY(mirror, NisReader::open(mirror_path()));
    mirror_ = std::move(mirror);
  }
  hobbes_record segment{};
  if (mirror_->by_id(segment_, &segment) != NisReader::Status::good ||
      segment.type != HOBBES_SEGMENT)
    return Error{Code::not_found, "ring a segment's doorbell", "the segment was removed",
                 "see `hobbes segments`"};
  if (segment.body.segment.listeners_version == version_) return {};
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(answer, client.call("segment.listeners",
                                 {{"attachment", attachment_},
                                  {"handle", segment_},
                                  {"access", writable_ ? "rw" : "ro"}},
                                 {}, deadline));
  listeners_ = std::move(answer.fds);
  version_ = static_cast<std::uint64_t>(number_at(answer.body, "version"));
  return {};
}

Result<void> Doorbell::ring(milliseconds deadline) {
  auto known = find_listeners(deadline);
  if (!known && known.error().code == Code::not_found) return known;
  WithoutPipeSignal guard;
  for (const Fd& listener : listeners_)  // a full pipe was rung, a broken one has nobody behind it
    if (::write(listener.get(), "!", 1) < 0 && errno == EPIPE) guard.raised();
  return known;
}

}  // namespace hobbes
