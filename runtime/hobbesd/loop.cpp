#include "hobbesd/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace hobbes {

Result<std::unique_ptr<Loop>> Loop::make() {
  std::unique_ptr<Loop> loop(new Loop);
  loop->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  loop->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->epoll_ || !loop->wake_) return os_error("make the event loop", errno);
  Loop* raw = loop.get();
  HOBBES_CHECK(loop->watch(loop->wake_.get(), [raw] { raw->drain(); }));
  return loop;
}

Result<void> Loop::watch(int fd, std::function<void()> ready) {
  epoll_event event{};
  event.events = EPOLLIN;
  // Tagged: an event already fetched for a closed descriptor must not reach the next one of the same number.
  event.data.u64 = std::uint64_t{++generation_} << 32U | static_cast<std::uint32_t>(fd);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return os_error("watch a descriptor", errno);
  watched_[fd] = {generation_, std::move(ready)};
  return {};
}

void Loop::unwatch(int fd) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

Result<void> Loop::every(std::chrono::milliseconds period, std::function<void()> tick) {
  Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(period).count();
  itimerspec spec{};
  spec.it_interval = {ns / 1'000'000'000, ns % 1'000'000'000};
  spec.it_value = spec.it_interval;
  if (!timer || ::timerfd_settime(timer.get(), 0, &spec, nullptr) != 0) return os_error("make a timer", errno);
  int fd = timer.get();
  HOBBES_CHECK(watch(fd, [fd, tick = std::move(tick)] {
    std::uint64_t expirations = 0;
    if (::read(fd, &expirations, sizeof expirations) > 0) tick();
  }));
  timers_.push_back(std::move(timer));
  return {};
}

void Loop::post(std::function<void()> task) {
  {
    std::lock_guard guard(lock_);
    posted_.push_back(std::move(task));
  }
  std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Loop::drain() {
  std::uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof count);
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard guard(lock_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) task();
}

void Loop::stop() {
  post([this] { stopping_ = true; });
}

void Loop::run() {
  while (!stopping_) {
    epoll_event events[64];
    int n = ::epoll_wait(epoll_.get(), events, 64, -1);
    for (int i = 0; i < n && !stopping_; ++i) {
      // An earlier callback of this round may have unwatched it.
      auto at = watched_.find(static_cast<int>(events[i].data.u64 & 0xffffffffU));
      if (at == watched_.end() || at->second.first != events[i].data.u64 >> 32U) continue;
      auto ready = at->second.second;
      ready();
    }
  }
}

}  // namespace hobbes
