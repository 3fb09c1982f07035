#include "hobbesd/exit_tracker.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/manager_part.h"

namespace hobbes::test {
namespace {

class ExitTrackerTest : public ::testing::Test {
 protected:
  ExitTrackerTest() {
    auto made = Loop::make();
    EXPECT_TRUE(made);
    loop = std::move(*made);
    exits.emplace(
        *loop,
        [this](std::uint64_t enclave) {
          ended.push_back(enclave);
          exits->find_status(enclave);
        },
        [this](std::uint64_t enclave, int status) { statuses.emplace_back(enclave, status); });
    EXPECT_TRUE(loop->on_tick([this] {
      exits->tick();
      if (++ticks > 15) loop->stop();
      loop->tick_within(std::chrono::milliseconds(100));
    }));
    loop->tick_within(std::chrono::milliseconds(100));
  }
  // A child that ends, by a signal when that is negative, once go() is called: what has ended
  // cannot be watched.
  pid_t child(int status) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe(ends), 0);
    pid_t pid = ::fork();
    if (pid == 0) {
      ::close(ends[1]);
      char byte = 0;
      (void)!::read(ends[0], &byte, 1);
      if (status < 0) ::kill(::getpid(), -status);
      ::_exit(status);
    }
    ::close(ends[0]);
    waits_ = Fd(ends[1]);
    return pid;
  }
  void go() { waits_ = Fd(); }
  std::unique_ptr<Loop> loop;
  std::optional<ExitTracker> exits;
  std::vector<std::uint64_t> ended;
  std::vector<std::pair<std::uint64_t, int>> statuses;
  int ticks = 0;

 private:
  Fd waits_;
};

TEST_F(ExitTrackerTest, TheStatusOfAChildIsToldOnce) {
  const pid_t pid = child(7);
  auto process = ProcessId::of(pid);
  ASSERT_TRUE(process);
  exits->watch(42, "a", *process);
  EXPECT_TRUE(exits->is_of(pid));
  go();
  loop->run();
  EXPECT_EQ(ended, std::vector<std::uint64_t>{42});
  ASSERT_EQ(statuses.size(), 1U);
  EXPECT_EQ(statuses[0].first, 42U);
  EXPECT_EQ(WEXITSTATUS(statuses[0].second), 7);
  EXPECT_FALSE(exits->is_of(pid));
  EXPECT_FALSE(exits->unfinished());
}

TEST_F(ExitTrackerTest, ASignalIsTold) {
  auto process = ProcessId::of(child(-SIGKILL));
  ASSERT_TRUE(process);
  exits->watch(43, "a", *process);
  go();
  loop->run();
  ASSERT_EQ(statuses.size(), 1U);
  EXPECT_TRUE(WIFSIGNALED(statuses[0].second));
  EXPECT_EQ(WTERMSIG(statuses[0].second), SIGKILL);
}

TEST_F(ExitTrackerTest, AProcessThatIsGoneBeforeItIsWatchedCountsAsEnded) {
  const pid_t pid = child(0);
  auto process = ProcessId::of(pid);
  ASSERT_TRUE(process);
  go();
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  exits->watch(44, "a", *process);
  loop->run();
  EXPECT_EQ(ended, std::vector<std::uint64_t>{44});
  EXPECT_TRUE(statuses.empty()) << "only its parent has known it";
}

TEST_F(ExitTrackerTest, WhatIsForgottenIsToldNoMore) {
  auto process = ProcessId::of(child(1));
  ASSERT_TRUE(process);
  exits->watch(45, "a", *process);
  exits->forget(45);
  go();
  loop->run();
  EXPECT_TRUE(ended.empty());
  EXPECT_TRUE(statuses.empty());
  ::waitpid(process->pid, nullptr, 0);
}

}  // namespace
}  // namespace hobbes::test
