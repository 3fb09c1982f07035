// One thread, many descriptors: what hobbesd, a virtual machine's monitor and a launcher wait on.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// An epoll. Not thread-safe: watched, run and unwatched on one thread.
class EventLoop {
 public:
  static Result<EventLoop> make();
  /// `ready` is called with the epoll events until unwatch; it may watch and unwatch, also itself.
  /// The descriptor stays the caller's, who unwatches it before it is closed. What happened to a
  /// descriptor never reaches a later one of the same number.
  Result<void> watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> ready);
  /// Of a watched descriptor.
  Result<void> change(int fd, std::uint32_t events);
  void unwatch(int fd);
  /// One round: waits up to `timeout_ms`, -1 for ever, and calls whom it concerns.
  void run_once(int timeout_ms);

 private:
  struct Watched {
    std::uint32_t generation;
    std::shared_ptr<std::function<void(std::uint32_t)>> ready;
  };
  Result<void> control(int operation, int fd, std::uint32_t events, std::uint32_t generation);

  Fd epoll_;
  std::map<int, Watched> watched_;
  std::uint32_t generation_ = 0;
};

}  // namespace hobbes
