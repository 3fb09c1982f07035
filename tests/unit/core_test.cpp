#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "core/cpu_set.h"
#include "core/event_loop.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/process.h"
#include "core/size.h"
#include "ipc/descriptor.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

TEST(CpuSet, ListsAreReadAndWrittenInTheKernelsForm) {
  EXPECT_EQ(CpuSet::parse("0-3,8,10-11")->text(), "0-3,8,10-11");
  EXPECT_EQ(CpuSet::parse("")->count(), 0U);
  EXPECT_EQ(CpuSet::parse("3,1,2\n")->text(), "1-3");
  for (const char* bad : {"1,", "a", "3-1", "1024", "1-", "-1", "1--2", "1 2"})
    EXPECT_FALSE(CpuSet::parse(bad)) << bad;
}

TEST(Size, UnitsArePowersOf1024) {
  EXPECT_EQ(*parse_size("512MiB"), 512U << 20U);
  EXPECT_EQ(*parse_size("1 GiB"), 1U << 30U);
  EXPECT_EQ(*parse_size("2g"), 2ULL << 30U);
  EXPECT_EQ(*parse_size("4096"), 4096U);
  for (const char* bad : {"", "MiB", "1XB", "-1", "99999999999999999999", "99999999999T", "1MiBB"})
    EXPECT_FALSE(parse_size(bad)) << bad;
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(512U << 20U), "512 MiB");
}

TEST(Identity, IdsThatAreNoFileNamesAreRefused) {
  EXPECT_TRUE(check_id("a-b_c+d.e"));
  for (const std::string& bad :
       {std::string(), std::string(".."), std::string("a/b"), std::string("-x"), std::string("a b"),
        std::string(128, 'a'), std::string("a\0b", 3)})
    EXPECT_FALSE(check_id(bad)) << bad;
}

TEST(Process, AnIdentityEndsWithItsProcess) {
  pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  auto id = ProcessId::of(child);
  ASSERT_TRUE(id);
  EXPECT_TRUE(id->alive());
  EXPECT_FALSE((ProcessId{child, id->start_ticks + 1}).alive());
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_FALSE(id->alive()) << "a zombie is not alive";
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(id->open());
}

TEST(Process, RunReturnsOutputStatusAndTimeouts) {
  Command command;
  command.argv = {"sh", "-c", "cat; echo oops >&2; exit 3"};
  command.input = "hello";
  auto outcome = run(command);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->out, "hello");
  EXPECT_EQ(outcome->err, "oops\n");
  EXPECT_EQ(exit_code_of(outcome->wait_status), 3);
  command.argv = {"sleep", "60"};
  command.deadline = std::chrono::milliseconds(50);
  EXPECT_TRUE(run(command)->timed_out);
  command.argv = {"/no/such/program"};
  EXPECT_EQ(run(command).error().code, Code::not_found);
}

// Both are ready in one round; whichever is called first replaces the other by a descriptor of the
// same number that is not ready.
TEST(EventLoop, WhatHappenedToADescriptorDoesNotReachTheNextOfItsNumber) {
  auto loop = EventLoop::make();
  ASSERT_TRUE(loop);
  Fd both[2] = {Fd(::eventfd(1, EFD_CLOEXEC)), Fd(::eventfd(1, EFD_CLOEXEC))};
  int called = 0, mistaken = 0;
  auto replace = [&](Fd& other) {
    ++called;
    int number = other.get();
    loop->unwatch(number);
    other.reset();
    other.reset(::eventfd(0, EFD_CLOEXEC));
    ASSERT_EQ(other.get(), number) << "the kernel gives the lowest free one";
    ASSERT_TRUE(loop->watch(number, EPOLLIN, [&](std::uint32_t) { ++mistaken; }));
  };
  ASSERT_TRUE(loop->watch(both[0].get(), EPOLLIN, [&](std::uint32_t) { replace(both[1]); }));
  ASSERT_TRUE(loop->watch(both[1].get(), EPOLLIN, [&](std::uint32_t) { replace(both[0]); }));
  loop->run_once(0);
  EXPECT_EQ(called, 1);
  EXPECT_EQ(mistaken, 0);
}

TEST(File, ReplaceIsAtomicAndRemoveTreeDoesNotFollowLinks) {
  char name[] = "/tmp/hobbes-test.XXXXXX";
  std::string folder = ::mkdtemp(name);
  ASSERT_TRUE(replace_file(folder + "/f", "one"));
  ASSERT_TRUE(replace_file(folder + "/f", "two"));
  EXPECT_EQ(*Files::system().read(folder + "/f"), "two");
  ASSERT_TRUE(make_directories(folder + "/keep"));
  ASSERT_TRUE(make_directories(folder + "/tree/deep"));
  ASSERT_EQ(::symlink((folder + "/keep").c_str(), (folder + "/tree/deep/link").c_str()), 0);
  ASSERT_TRUE(remove_tree(folder + "/tree"));
  EXPECT_TRUE(Files::system().exists(folder + "/keep"));
  EXPECT_FALSE(Files::system().exists(folder + "/tree"));
  EXPECT_EQ(Files::system().list(folder)->size(), 2U) << "no temporary file is left";
  ASSERT_TRUE(remove_tree(folder));
}

TEST(Process, AProgramThatReadsNoInputCostsItsCallerNothing) {
  for (int i = 0; i < 50; ++i) {
    Command command;
    command.argv = {"true"};
    command.input = std::string(60'000, 'x');
    auto outcome = run(command);
    ASSERT_TRUE(outcome);
    EXPECT_TRUE(outcome->good());
  }
}

TEST(Descriptor, IsReceivedWithinALimitOrNotAtAll) {
  std::string path = "/tmp/descriptor-" + std::to_string(::getpid());
  auto listening = listen_at(path, 0600, SOCK_STREAM);
  ASSERT_TRUE(listening);
  const std::chrono::milliseconds limit(50);
  auto nobody = receive_descriptor(*listening, limit, "a file");
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, Code::timeout);
  auto silent = connect_receiver(path, "a receiver", "");
  ASSERT_TRUE(silent);
  auto nothing = receive_descriptor(*listening, limit, "a file");
  ASSERT_FALSE(nothing) << "it connects and says nothing";
  EXPECT_EQ(nothing.error().code, Code::timeout);
  auto talker = connect_receiver(path, "a receiver", "");
  ASSERT_TRUE(talker);
  ASSERT_EQ(::write(talker->get(), "words", 5), 5);
  auto words = receive_descriptor(*listening, limit, "a file");
  ASSERT_FALSE(words) << "words are no descriptor";
  EXPECT_EQ(words.error().code, Code::corrupt);
  auto sender = connect_receiver(path, "a receiver", "");
  ASSERT_TRUE(sender);
  Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(send_descriptor(*sender, "null", null, "a file"));
  auto received = receive_descriptor(*listening, limit, "a file");
  ASSERT_TRUE(received) << received.error().text();
  EXPECT_EQ(received->text, "null");
  struct stat sent {
  }, got{};
  ASSERT_EQ(::fstat(null.get(), &sent), 0);
  ASSERT_EQ(::fstat(received->fd.get(), &got), 0);
  EXPECT_EQ(sent.st_rdev, got.st_rdev);
  ::unlink(path.c_str());
}

// Deeper than this process may have descriptors or stack for.
TEST(RemoveTree, SeveralProcessesMayRemoveOne) {
  char name[] = "/dev/shm/hobbes-test.XXXXXX";
  const std::string top = ::mkdtemp(name);
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 12; ++i)
      for (int j = 0; j < 6; ++j) {
        const std::string folder = top + "/tree/" + std::to_string(i) + "/" + std::to_string(j);
        ASSERT_TRUE(make_directories(folder + "/deep"));
        ASSERT_TRUE(replace_file(folder + "/file", "x"));
      }
    std::vector<std::string> refused(4);
    std::vector<std::thread> threads;
    for (std::string& why : refused)
      threads.emplace_back([&why, &top] {
        if (auto removed = remove_tree(top + "/tree"); !removed) why = removed.error().text();
      });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& why : refused) ASSERT_EQ(why, "") << "round " << round;
    ASSERT_NE(::access((top + "/tree").c_str(), F_OK), 0);
  }
  ASSERT_TRUE(remove_tree(top));
}

TEST(RemoveTree, HoweverDeepProgramsHaveNestedIt) {
  char path[] = "/tmp/deep.XXXXXX";
  const std::string top = ::mkdtemp(path);
  Fd at(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int depth = 0; depth < 5000; ++depth) {
    ASSERT_EQ(::mkdirat(at.get(), "d", 0700), 0);
    Fd file(::openat(at.get(), "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    at.reset(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at);
  }
  at.reset();
  auto removed = remove_tree(top);
  EXPECT_TRUE(removed) << removed.error().text().substr(0, 200);
  EXPECT_FALSE(Files::system().exists(top));
}

}  // namespace
}  // namespace hobbes
