#include "hobbesd/loop.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace hobbes {

Result<std::unique_ptr<Loop>> Loop::make() {
  HOBBES_TRY(events, EventLoop::make());
  std::unique_ptr<Loop> loop(new Loop(std::move(events)));
  HOBBES_TRY(wake, EventFd::make("make the event loop"));
  loop->wake_ = std::move(wake);
  Loop* raw = loop.get();
  HOBBES_CHECK(loop->watch(loop->wake_.get(), [raw] { raw->drain(); }));
  return loop;
}

Result<void> Loop::watch(int fd, std::function<void()> ready) {
  return events_.watch(fd, EPOLLIN, [ready = std::move(ready)](std::uint32_t) { ready(); });
}

void Loop::unwatch(int fd) { events_.unwatch(fd); }

Result<void> Loop::on_tick(std::function<void()> tick) {
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_) return os_error("make a timer", errno);
  return watch(timer_.get(), [this, tick = std::move(tick)] {
    std::uint64_t expirations = 0;
    if (::read(timer_.get(), &expirations, sizeof expirations) <= 0) return;
    due_.reset();
    tick();
  });
}

void Loop::tick_within(std::chrono::milliseconds delay) {
  auto at = std::chrono::steady_clock::now() + delay;
  if (!timer_ || (due_ && *due_ <= at)) return;
  due_ = at;
  auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                std::max(delay, std::chrono::milliseconds(1)))
                .count();
  itimerspec spec{};
  spec.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
  (void)::timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

void Loop::post(std::function<void()> task) {
  {
    std::lock_guard guard(lock_);
    if (stopped_) return;
    posted_.push_back(std::move(task));
  }
  wake_.signal();
}

void Loop::drain() {
  wake_.drain();
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
