// What the machine's devices and its control socket wait on: one thread, one epoll.
#pragma once
#include <functional>
#include <map>
#include <memory>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes::vmm {

/// Not thread-safe: watched, run and unwatched on one thread.
class EventLoop {
 public:
  static Result<EventLoop> make();
  /// `ready` is called with the epoll events; it may watch and unwatch, also itself.
  Result<void> watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> ready);
  Result<void> change(int fd, std::uint32_t events);
  void unwatch(int fd);
  /// One round.
  void run_once(int timeout_ms);

 private:
  Fd epoll_;
  std::map<int, std::shared_ptr<std::function<void(std::uint32_t)>>> ready_;
};

}  // namespace hobbes::vmm
