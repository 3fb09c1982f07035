// One thread, many descriptors: hobbesd's event loop. All state of the manager is touched only from
// inside it.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/event_fd.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// How soon the tick comes: usually, and while something is to be finished.
inline constexpr std::chrono::milliseconds idle_tick{900}, unfinished_tick{100};

class Loop {
 public:
  static Result<std::unique_ptr<Loop>> make();

  /// Calls `ready` in the loop whenever `fd` is readable or closed, until unwatch. The descriptor
  /// stays the caller's.
  Result<void> watch(int fd, std::function<void()> ready);
  void unwatch(int fd);
  /// What is called, once, when the time of `tick_within` has come.
  Result<void> on_tick(std::function<void()> tick);
  /// Has the tick called no later than in `delay`; an earlier time stays.
  void tick_within(std::chrono::milliseconds delay);
  /// Runs `task` in the loop soon; once the loop has stopped it is destroyed instead. The only call
  /// allowed from other threads, besides stop().
  void post(std::function<void()> task);
  /// Runs until stop().
  void run();
  void stop();

 private:
  explicit Loop(EventLoop events) : events_(std::move(events)) {}
  void drain();

  EventLoop events_;
  EventFd wake_;
  Fd timer_;
  std::optional<std::chrono::steady_clock::time_point> due_;
  std::mutex lock_;
  std::vector<std::function<void()>> posted_;
  bool stopping_ = false, stopped_ = false;
};

}  // namespace hobbes
