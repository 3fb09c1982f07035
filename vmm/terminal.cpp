#include "vmm/terminal.h"

#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "enclave/drivers/palacios/plan.h"
#include "enclave/drivers/service.h"

namespace hobbes::vmm {

using std::chrono::milliseconds;

// A reader of the terminal that does not read is waited for this long, once. What it misses is in
// the console log.
constexpr milliseconds reader_patience(100);

void make_terminal_raw() {
  termios settings{};
  if (::tcgetattr(STDIN_FILENO, &settings) != 0) return;
  ::cfmakeraw(&settings);
  (void)::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

winsize window_size() {
  winsize window{};
  (void)::ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
  return window;
}

Json window_size_json() {
  winsize window = window_size();
  return {{"height", window.ws_row}, {"width", window.ws_col}};
}

void Terminal::print(std::string_view text) {
  std::scoped_lock guard(lock_);
  for (const char& c : text) {
    // One by one: a terminal with room for one may not have it for more, and nobody waits for it
    // here.
    if (shown_ == Shown::raw)
      reader_keeps_up_ =
          show_creator({&c, 1}, reader_keeps_up_ ? reader_patience : milliseconds(0));
    line_ += c;
    if (c != '\n' && line_.size() < 256) continue;
    append_to_console(vm_console, line_);
    if (shown_ == Shown::output) (void)show_creator(line_);
    line_.clear();
  }
}

Result<void> Terminal::connect(std::function<std::size_t(std::string_view)> type) {
  type_ = std::move(type);
  make_terminal_raw();
  HOBBES_TRY(room, EventFd::make("connect the guest's terminal"));
  room_ = std::move(room);
  HOBBES_CHECK(loop_.watch(room_.get(), EPOLLIN, [this](auto) {
    room_.drain();
    hand_on_keys();
  }));
  return loop_.watch(STDIN_FILENO, EPOLLIN, [this](auto) { take_keys(); });
}

void Terminal::take_keys() {
  char keys[4096];
  ssize_t n = ::read(STDIN_FILENO, keys, sizeof keys);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) return loop_.unwatch(STDIN_FILENO);  // nobody is there any more
  typed_.append(keys, static_cast<std::size_t>(n));
  hand_on_keys();
}

void Terminal::hand_on_keys() {
  typed_.erase(0, type_(typed_));
  (void)loop_.change(STDIN_FILENO, typed_.empty() ? std::uint32_t{EPOLLIN} : 0U);
}

}  // namespace hobbes::vmm
