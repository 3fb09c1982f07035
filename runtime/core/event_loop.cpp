#include "core/event_loop.h"

#include <sys/epoll.h>

#include <cerrno>

namespace hobbes {

Result<EventLoop> EventLoop::make() {
  EventLoop out;
  out.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!out.epoll_) return os_error("make an event loop", errno);
  return out;
}

Result<void> EventLoop::control(int operation, int fd, std::uint32_t events,
                                std::uint32_t generation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = std::uint64_t{generation} << 32U | static_cast<std::uint32_t>(fd);
  if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0)
    return os_error("watch descriptor " + std::to_string(fd), errno);
  return {};
}

Result<void> EventLoop::watch(int fd, std::uint32_t events,
                              std::function<void(std::uint32_t)> ready) {
  HOBBES_CHECK(control(EPOLL_CTL_ADD, fd, events, ++generation_));
  watched_[fd] = {generation_,
                  std::make_shared<std::function<void(std::uint32_t)>>(std::move(ready))};
  return {};
}

Result<void> EventLoop::change(int fd, std::uint32_t events) {
  auto at = watched_.find(fd);
  return control(EPOLL_CTL_MOD, fd, events, at == watched_.end() ? 0 : at->second.generation);
}

void EventLoop::unwatch(int fd) {
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

void EventLoop::run_once(int timeout_ms) {
  epoll_event events[64];
  int count = ::epoll_wait(epoll_.get(), events, 64, timeout_ms);
  for (int i = 0; i < count; ++i) {
    // An earlier one of this round may have unwatched it, and another descriptor may have its
    // number now.
    auto at = watched_.find(static_cast<int>(events[i].data.u64 & 0xffffffffU));
    if (at == watched_.end() || at->second.generation != events[i].data.u64 >> 32U) continue;
    auto ready = at->second.ready;
    (*ready)(events[i].events);
  }
}

}  // namespace hobbes
