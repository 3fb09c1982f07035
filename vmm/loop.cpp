#include "vmm/loop.h"

#include <sys/epoll.h>

#include <cerrno>

namespace hobbes::vmm {

Result<EventLoop> EventLoop::make() {
  EventLoop out;
  out.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!out.epoll_) return os_error("make an event loop", errno);
  return out;
}

Result<void> EventLoop::watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> ready) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return os_error("watch descriptor " + std::to_string(fd), errno);
  ready_[fd] = std::make_shared<std::function<void(std::uint32_t)>>(std::move(ready));
  return {};
}

Result<void> EventLoop::change(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) return os_error("watch descriptor " + std::to_string(fd), errno);
  return {};
}

void EventLoop::unwatch(int fd) {
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  ready_.erase(fd);
}

void EventLoop::run_once(int timeout_ms) {
  epoll_event events[64];
  int count = ::epoll_wait(epoll_.get(), events, 64, timeout_ms);
  for (int i = 0; i < count; ++i) {
    auto at = ready_.find(events[i].data.fd);
    if (at == ready_.end()) continue;  // unwatched by an earlier one of this round
    auto ready = at->second;
    (*ready)(events[i].events);
  }
}

}  // namespace hobbes::vmm
