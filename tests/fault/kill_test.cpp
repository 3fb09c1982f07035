// Kills programs at every system call they make (strace's injection) and looks whether the node
// recovers.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

// How many system calls a command makes, all threads and children of its own included.
int calls_of(const Node& node, const std::string& command) {
  std::string log = node.folder() + "/strace";
  (void)node.run({"sh", "-c", "strace -o " + log + " " + command});
  std::string text = Files::system().read(log, 64 << 20).value_or("");
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// Only the command's own process is traced, so that the kill falls on it and not on the enclave it
// makes.
void kill_at(const Node& node, const std::string& command, int call) {
  (void)node.run({"sh", "-c",
                  "strace -o /dev/null -e inject=all:signal=SIGKILL:when=" + std::to_string(call) +
                      " " + command + " >/dev/null 2>&1"},
                 20);
}

const std::string hobbes_run = HOBBES_BUILD_DIR "/bin/hobbes-run ";

TEST(Kill, CreateKilledAtAnySystemCallLeavesNothing) {
  Node node;
  node.wake_daemon();
  std::string command =
      hobbes_run + "create --bundle " + node.bundle("b", "exec sleep 1000") + " a";
  int calls = calls_of(node, command);
  node.good({"hobbes-run", "delete", "--force", "a"});
  ASSERT_GT(calls, 50);
  for (int call = 1; call <= calls; call += 1 + call / 60) {
    kill_at(node, command, call);
    // Either it was complete, or hobbesd undoes it; in both cases a forced delete and a new create
    // work.
    (void)eventually(
        [&] {
          return node.run({"hobbes-run", "list", "--quiet"}).out.empty() ||
                 node.run({"hobbes-run", "list"}).out.find("created") != std::string::npos;
        },
        3);
    node.good({"hobbes-run", "delete", "--force", "a"});
  }
  node.expect_clean();
  node.good({"hobbes-run", "run", "--bundle", node.bundle("b2", "true"), "a"});
}

// The side of a service that is left is told, and nothing of the killed side stays.
TEST(Kill, AClientOrAServiceKilledAtAnySystemCallLeavesNothing) {
  Node node;
  node.wake_daemon();
  const std::string peer = HOBBES_BUILD_DIR "/tests/programs/fabric-peer ";
  auto names = [&] {
    return parse_json(node.good({"hobbes", "names", "--json"}), "names")->size();
  };
  auto descriptors = [&] {
    return Files::system().list("/proc/" + std::to_string(node.daemon()) + "/fd")->size();
  };
  node.good({"sh", "-c", peer + "serve steady >/dev/null 2>&1 </dev/null &"});
  const int client_calls = calls_of(node, peer + "call steady 3");
  ASSERT_GT(client_calls, 40);
  const std::size_t before = descriptors();
  for (int call = 1; call <= client_calls; call += 1 + call / 30)
    kill_at(node, peer + "call steady 3", call);
  EXPECT_EQ(node.good({"sh", "-c", peer + "call steady 3"}), "3 answers\n");
  EXPECT_TRUE(eventually([&] { return descriptors() <= before; })) << descriptors();
  ASSERT_EQ(names(), 1U);

  const std::string log = node.folder() + "/server";
  node.good(
      {"sh", "-c", "strace -o " + log + " " + peer + "serve mortal >/dev/null 2>&1 </dev/null &"});
  ASSERT_TRUE(eventually([&] { return names() == 2; }));
  node.good({"sh", "-c", peer + "stop mortal"});
  ASSERT_TRUE(eventually([&] { return names() == 1; }));
  const std::string traced = Files::system().read(log, 64 << 20).value_or("");
  const auto server_calls = static_cast<int>(std::count(traced.begin(), traced.end(), '\n'));
  ASSERT_GT(server_calls, 40);
  for (int call = 1; call <= server_calls; call += 1 + call / 20) {
    node.good({"sh", "-c",
               "{ strace -o /dev/null -e inject=all:signal=SIGKILL:when=" + std::to_string(call) +
                   " " + peer + "serve mortal; touch " + node.folder() +
                   "/ended; } >/dev/null 2>&1 "
                   "</dev/null &"});
    auto ended = [&] { return Files::system().exists(node.folder() + "/ended"); };
    ASSERT_TRUE(eventually([&] { return names() == 2 || ended(); }));
    if (names() == 2) (void)node.run({"timeout", "15", "sh", "-c", peer + "stop mortal"}, 20);
    EXPECT_TRUE(eventually([&] { return ended() && names() == 1; })) << "killed at " << call;
    (void)::unlink((node.folder() + "/ended").c_str());
  }
  EXPECT_TRUE(eventually([&] { return descriptors() <= before; })) << descriptors();
  node.good({"sh", "-c", peer + "stop steady"});
}

TEST(Kill, StartAndDeleteKilledAtAnySystemCallCanBeRepeated) {
  Node node;
  std::string bundle = node.bundle("b", "exec sleep 1000");
  for (const std::string verb : {"start", "delete --force"}) {
    auto prepare = [&] { node.good({"hobbes-run", "create", "--bundle", bundle, "a"}); };
    prepare();
    int calls = calls_of(node, hobbes_run + verb + " a");
    node.good({"hobbes-run", "delete", "--force", "a"});
    for (int call = 1; call <= calls; call += 1 + call / 40) {
      prepare();
      kill_at(node, hobbes_run + verb + " a", call);
      node.good({"hobbes-run", "delete", "--force", "a"});
    }
    node.expect_clean();
  }
}

TEST(Kill, TheEnclaveProcessKilledDuringCreateIsAFailedCreate) {
  Node node;
  node.wake_daemon();
  // A hook that kills the enclave process: between its birth and its readiness.
  Json hooks = {{"createRuntime",
                 {{{"path", "/bin/sh"},
                   {"args", {"sh", "-c", "kill -9 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')"}}}}}};
  Outcome outcome = node.run(
      {"hobbes-run", "create", "--bundle", node.bundle("b", "true", {{"hooks", hooks}}), "a"});
  EXPECT_EQ(exit_code_of(outcome.wait_status), 1);
  EXPECT_NE(outcome.err.find("ended before it was"), std::string::npos) << outcome.err;
  node.expect_clean();
}

TEST(Kill, HobbesdKilledAtAnyMomentOfACreateLosesNothing) {
  Node node;
  std::string bundle = node.bundle("b", "exec sleep 1000");
  for (int round = 0; round < 25; ++round) {
    node.wake_daemon();
    std::string script = hobbes_run + "create --bundle " + bundle +
                         " a >/dev/null 2>&1 & sleep 0.00" + std::to_string(round % 10) +
                         "; kill -9 " + std::to_string(node.daemon()) + "; wait";
    (void)node.run({"bash", "-c", script});
    node.wake_daemon();
    node.good({"hobbes-run", "delete", "--force", "a"});
    node.expect_clean();
  }
}

TEST(Kill, HobbesdKilledInItsOwnStartIsNoObstacleToTheNext) {
  Node node;
  std::string daemon = HOBBES_BUILD_DIR "/bin/hobbesd";
  for (int call : {50, 200, 400, 800, 1200, 1600, 2000, 2400, 2800}) {
    (void)node.run({"sh", "-c",
                    "timeout 5 strace -f -o /dev/null -e inject=all:signal=SIGKILL:when=" +
                        std::to_string(call) + " " + daemon + " >/dev/null 2>&1"},
                   20);
    node.kill_daemon();
  }
  node.wake_daemon();
  node.good({"hobbes-run", "run", "--bundle", node.bundle("b", "true"), "a"});
  node.expect_clean();
}

// Errors instead of deaths: each of the calls that take something fails once.
TEST(Errors, CreateUndoesEverythingWhenASystemCallFails) {
  Node node;
  node.wake_daemon();
  std::string command = hobbes_run + "run --bundle " + node.bundle("b", "true") + " a";
  for (const std::string call : {"mkdir", "write", "mount", "clone3", "openat", "socketpair",
                                 "rename", "sendmsg", "recvmsg", "pivot_root", "bind"})
    for (int when : {1, 2, 3, 5, 8, 13, 21}) {
      Outcome outcome = node.run({"sh", "-c",
                                  "strace -f -o /dev/null -e inject=" + call + ":error=EIO:when=" +
                                      std::to_string(when) + " " + command + " 2>&1"},
                                 20);
      EXPECT_TRUE(outcome.wait_status == 0 || outcome.out.find("cannot ") != std::string::npos)
          << call << " " << when << ": " << outcome.out;
      node.good({"hobbes-run", "delete", "--force", "a"});
    }
  node.expect_clean();
}

TEST(Errors, AStateDirectoryThatIsLockedOrFullIsNamed) {
  Node node;
  node.wake_daemon();
  Outcome second = node.run(
      {"sh", "-c",
       "HOBBES_RUN_DIR=" + node.folder() + "/run2 " HOBBES_BUILD_DIR "/bin/hobbesd --foreground"});
  EXPECT_NE(second.err.find("another process holds it"), std::string::npos) << second.err;
  Outcome same = node.run({HOBBES_BUILD_DIR "/bin/hobbesd", "--foreground"});
  EXPECT_NE(same.err.find("another process listens there"), std::string::npos) << same.err;
  // A full file system: a tiny one, mounted for this test.
  std::string small = node.folder() + "/small";
  node.good({"sh", "-c", "mkdir -p " + small + " && mount -t tmpfs -o size=16k tmpfs " + small});
  Outcome full = node.run({"sh", "-c",
                           "HOBBES_RUN_DIR=" + node.folder() + "/run3 HOBBES_STATE_DIR=" + small +
                               " timeout 3 " HOBBES_BUILD_DIR "/bin/hobbesd --foreground"});
  node.good({"umount", small});
  EXPECT_NE(full.err.find("No space left"), std::string::npos) << full.err;
}

}  // namespace
}  // namespace hobbes::test
