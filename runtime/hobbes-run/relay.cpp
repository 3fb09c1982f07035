#include "hobbes-run/relay.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/file.h"
#include "ipc/descriptor.h"
#include "ipc/message_socket.h"

namespace hobbes {

Result<Relay> Relay::open() {
  Relay relay;
  char name[] = "/tmp/hobbes-console.XXXXXX";
  if (::mkdtemp(name) == nullptr) return os_error("make a console socket", errno);
  relay.folder_ = name;
  HOBBES_TRY(listening, listen_at(relay.socket_path(), 0600, SOCK_STREAM));
  relay.listening_ = std::move(listening);
  return relay;
}

Relay::Relay(Relay&& other) noexcept
    : folder_(std::exchange(other.folder_, "")),
      listening_(std::move(other.listening_)),
      master_(std::move(other.master_)),
      typed_(std::move(other.typed_)),
      out_(std::move(other.out_)),
      failure_(std::move(other.failure_)),
      saved_(other.saved_),
      raw_(std::exchange(other.raw_, false)),
      input_open_(other.input_open_) {}

Relay::~Relay() {
  if (raw_) ::tcsetattr(0, TCSANOW, &saved_);
  if (!folder_.empty()) (void)remove_tree(folder_);
}

Result<void> Relay::receive() {
  constexpr std::chrono::seconds limit(
      10);  // the enclave's process has sent it before create and exec return
  HOBBES_TRY(received, receive_descriptor(listening_, limit, "the enclave's terminal"));
  master_ = std::move(received.fd);
  (void)::fcntl(master_.get(), F_SETFL, ::fcntl(master_.get(), F_GETFL) | O_NONBLOCK);
  if (::isatty(0) == 1 && ::tcgetattr(0, &saved_) == 0) {
    termios raw = saved_;
    ::cfmakeraw(&raw);
    raw_ = ::tcsetattr(0, TCSANOW, &raw) == 0;
    resize();
  }
  return {};
}

void Relay::watch(pollfd& ours, pollfd& theirs, pollfd& printed) const {
  ours.fd = input_open_ && typed_.empty() ? 0 : -1;
  theirs.events = static_cast<short>((out_.full() ? 0 : POLLIN) | (typed_.empty() ? 0 : POLLOUT));
  theirs.fd = theirs.events != 0 ? master_.get() : -1;  // a hang-up would be told again and again
  printed.fd = out_.pending() ? out_.fd() : -1;
  printed.events = POLLOUT;
}

void Relay::move(const pollfd& ours, const pollfd& theirs) {
  char chunk[4096];
  if ((ours.revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0) {
    ssize_t n = ::read(0, chunk, sizeof chunk);
    if (n > 0) {
      typed_.assign(chunk, static_cast<std::size_t>(n));
      last_typed_ = chunk[n - 1];
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      input_open_ = false;
    }
  }
  if (!input_open_ && typed_.empty()) type_end();
  hand_on_keys();
  flush();
  // A hang-up says that every slave is closed. What they wrote may still be there: only an error of
  // read(2) is the end.
  if ((theirs.revents & (POLLIN | POLLHUP)) != 0 && !out_.full()) {
    ssize_t n = ::read(master_.get(), chunk, sizeof chunk);
    if (n > 0) out_.append({chunk, static_cast<std::size_t>(n)});
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) master_.reset();
    flush();
  }
}

// Input ends as a person ends it, by the terminal's end-of-file character: once for the line that
// is begun and once for the end. A program that reads again is told again, so it is typed whenever
// nothing typed is left to be read.
void Relay::type_end() {
  termios settings{};
  if (!master_ || ::tcgetattr(master_.get(), &settings) != 0 ||
      (settings.c_lflag & static_cast<tcflag_t>(ICANON)) == 0)
    return;
  Fd slave(::ioctl(master_.get(), TIOCGPTPEER, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  pollfd unread{slave.get(), POLLIN, 0};
  if (!slave || ::poll(&unread, 1, 0) != 0) return;
  typed_.assign(last_typed_ == '\n' ? 1 : 2, static_cast<char>(settings.c_cc[VEOF]));
  last_typed_ = '\n';
}

void Relay::flush() {
  auto written = out_.flush_some();
  if (!written && !failure_) failure_ = std::move(written).error();
}

void Relay::hand_on_keys() {
  if (typed_.empty()) return;
  ssize_t n = ::write(master_.get(), typed_.data(), typed_.size());
  if (n > 0) typed_.erase(0, static_cast<std::size_t>(n));
  if (n < 0 && errno != EAGAIN && errno != EINTR) typed_.clear();  // every slave is closed
}

void Relay::resize() const {
  winsize size{};
  if (::ioctl(0, TIOCGWINSZ, &size) == 0) (void)::ioctl(master_.get(), TIOCSWINSZ, &size);
}

bool Relay::drain() {
  for (;;) {
    pollfd theirs{master_.get(), POLLIN, 0};
    if (!master_ || out_.full() || ::poll(&theirs, 1, 0) <= 0 || (theirs.revents & POLLIN) == 0)
      break;
    move({-1, 0, 0}, theirs);
  }
  flush();
  return !out_.pending() && !(master_ && readable());
}

bool Relay::readable() const {
  pollfd theirs{master_.get(), POLLIN, 0};
  return ::poll(&theirs, 1, 0) > 0 && (theirs.revents & POLLIN) != 0;
}

}  // namespace hobbes
