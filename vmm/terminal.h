// The enclave's terminal, or its output, for a guest that speaks to people by its console.
#pragma once
#include <sys/ioctl.h>

#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "core/event_fd.h"
#include "core/event_loop.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes::vmm {

/// The terminal is the guest's to interpret; ours hands on bytes.
void make_terminal_raw();
winsize window_size();
/// The same as the agent is told it.
Json window_size_json();

/// What a guest prints goes into the console log by lines, and to people as `Shown` says. print()
/// may be called on any thread, the rest on the loop's.
class Terminal {
 public:
  enum class Shown {
    log,     ///< nowhere else: programs inside have streams of their own
    output,  ///< to the enclave's output, by lines
    raw,     ///< byte by byte to the enclave's terminal, whose keys are the guest's
  };
  Terminal(EventLoop& loop, Shown shown) : loop_(loop), shown_(shown) {}
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void print(std::string_view text);
  /// Hands keys to `type`, which returns how many it took, as fast as room_made() asks for more.
  Result<void> connect(std::function<std::size_t(std::string_view)> type);
  /// Safe on any thread.
  void room_made() const { room_.signal(); }

 private:
  void take_keys();
  void hand_on_keys();

  EventLoop& loop_;
  Shown shown_;
  std::mutex lock_;
  std::string line_;
  bool reader_keeps_up_ = true;
  EventFd room_;
  std::function<std::size_t(std::string_view)> type_;
  std::string typed_;  // what the guest has no room for yet
};

}  // namespace hobbes::vmm
