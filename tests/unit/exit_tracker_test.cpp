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
        [this](std::uint64_t enclave, int status) {
          statuses[enclave] = status;
          loop->stop();
        });
    EXPECT_TRUE(loop->on_tick([this] {
      exits->tick();
      if (++ticks > 15) loop->stop();
      loop->tick_within(std::chrono::milliseconds(100));
    }));
    loop->tick_within(std::chrono::milliseconds(100));
  }
  static pid_t child(int status) {
    pid_t pid = ::fork();
    if (pid == 0) {
      if (status < 0) ::kill(::getpid(), -status);
      ::_exit(status);
    }
    return pid;
  }
  std::unique_ptr<Loop> loop;
  std::optional<ExitTracker> exits;
  std::vector<std::uint64_t> ended;
  std::map<std::uint64_t, int> statuses;
  int ticks = 0;
};

TEST_F(ExitTrackerTest, TheStatusOfAChildIsToldOnce) {
  const pid_t pid = child(7);
  auto process = ProcessId::of(pid);
  ASSERT_TRUE(process);
  exits->watch(42, *process);
  EXPECT_TRUE(exits->is_of(pid));
  loop->run();
  EXPECT_EQ(ended, std::vector<std::uint64_t>{42});
  ASSERT_EQ(statuses.count(42), 1U);
  EXPECT_EQ(WEXITSTATUS(statuses[42]), 7);
  EXPECT_FALSE(exits->is_of(pid));
  EXPECT_FALSE(exits->unfinished());
}

TEST_F(ExitTrackerTest, ASignalIsTold) {
  auto process = ProcessId::of(child(-SIGKILL));
  ASSERT_TRUE(process);
  exits->watch(43, *process);
  loop->run();
  ASSERT_EQ(statuses.count(43), 1U);
  EXPECT_TRUE(WIFSIGNALED(statuses[43]));
  EXPECT_EQ(WTERMSIG(statuses[43]), SIGKILL);
}

TEST_F(ExitTrackerTest, AProcessThatIsGoneBeforeItIsWatchedCountsAsEnded) {
  const pid_t pid = child(0);
  auto process = ProcessId::of(pid);
  ASSERT_TRUE(process);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  exits->watch(44, *process);
  loop->run();
  EXPECT_EQ(ended, std::vector<std::uint64_t>{44});
  EXPECT_TRUE(statuses.empty()) << "only its parent has known it";
}

TEST_F(ExitTrackerTest, WhatIsForgottenIsToldNoMore) {
  auto process = ProcessId::of(child(1));
  ASSERT_TRUE(process);
  exits->watch(45, *process);
  exits->forget(45);
  loop->run();
  EXPECT_TRUE(ended.empty());
  EXPECT_TRUE(statuses.empty());
  ::waitpid(process->pid, nullptr, 0);
}

}  // namespace
}  // namespace hobbes::test
