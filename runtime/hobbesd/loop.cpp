#include "hobbesd/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace hobbes {

Result<std::unique_ptr<Loop>> Loop::make() {
  HOBBES_TRY(events, EventLoop::make());
  std::unique_ptr<Loop> loop(new Loop(std::move(events)));
  loop->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->wake_) return os_error("make the event loop", errno);
  Loop* raw = loop.get();
  HOBBES_CHECK(loop->watch(loop->wake_.get(), [raw] { raw->drain(); }));
  return loop;
}

Result<void> Loop::watch(int fd, std::function<void()> ready) {
  return events_.watch(fd, EPOLLIN, [ready = std::move(ready)](std::uint32_t) { ready(); });
}

void Loop::unwatch(int fd) { events_.unwatch(fd); }

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
    if (stopped_) return;
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
  while (!stopping_) events_.run_once(-1);
  std::vector<std::function<void()>> never_run;
  std::lock_guard guard(lock_);
  stopped_ = true;
  never_run.swap(posted_);
}

}  // namespace hobbes
