// The class of writes without a reader: the state on a hook's standard input may be larger than a
// pipe holds, and the hook need not read it. Kubernetes allows 256 KiB of annotations, all of which
// are in the state.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

// A hook of that stage in a bundle whose annotations have `bytes` bytes.
std::string bundle_with(const Node& node, std::size_t bytes, const std::string& stage,
                        const std::string& script, int timeout = 20) {
  Json hook = {{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}, {"timeout", timeout}};
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"][stage] = Json::array({hook});
  for (std::size_t i = 0; i < bytes / 1000; ++i)
    patch["annotations"]["org.example." + std::to_string(i)] = std::string(1000, 'x');
  return node.bundle("b", "echo ran", patch);
}

class HookPipe : public ::testing::TestWithParam<std::size_t> {};

TEST_P(HookPipe, AHookReadsAllOfAStateOfAnySize) {
  Node node;
  for (const char* stage : {"prestart", "createRuntime", "createContainer", "startContainer",
                            "poststart", "poststop"}) {
    std::string seen = node.folder() + "/seen";
    // Hooks inside the enclave have a /tmp of their own, so these count what they read.
    bool inside = std::string(stage) == "createContainer" || std::string(stage) == "startContainer";
    std::string bundle =
        bundle_with(node, GetParam(), stage,
                    inside ? "test $(wc -c) -gt " + std::to_string(GetParam()) : "cat > " + seen);
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"}, 15);
    EXPECT_EQ(outcome.wait_status, 0) << stage << ": " << outcome.err;
    EXPECT_EQ(outcome.out, "ran\n") << stage;
    if (HasFailure()) break;
    if (inside) continue;
    auto state = parse_json(Files::system().read(seen).value_or(""), "state");
    ASSERT_TRUE(state) << stage << ": " << state.error().text();
    EXPECT_EQ((*state)["annotations"].size(), GetParam() / 1000);
  }
  (void)node.run({"hobbes-run", "delete", "--force", "a"}, 15);
}

TEST_P(HookPipe, AHookNeedNotRead) {
  Node node;
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle",
                              bundle_with(node, GetParam(), "createRuntime", "exit 0"), "a"},
                             15);
  EXPECT_EQ(outcome.out, "ran\n") << outcome.err;
  (void)node.run({"hobbes-run", "delete", "--force", "a"}, 15);
}

TEST_P(HookPipe, AHooksTimeRunsWhileItDoesNotRead) {
  Node node;
  std::string bundle = bundle_with(node, GetParam(), "createRuntime", "exec sleep 1000", 1);
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"}, 15);
  EXPECT_NE(outcome.err.find("ran longer than 1 s"), std::string::npos) << outcome.err;
  (void)node.run({"hobbes-run", "delete", "--force", "a"}, 15);
  node.expect_clean();
}

INSTANTIATE_TEST_SUITE_P(Bytes, HookPipe, ::testing::Values(65000, 70000, 256 << 10),
                         [](const auto& test) { return "Of" + std::to_string(test.param); });

// The one that reads one byte and closes its end must not end the runtime by SIGPIPE either.
TEST(HookPipeOf, AHookMayStopReading) {
  Node node;
  std::string bundle = bundle_with(node, 256 << 10, "createRuntime",
                                   "head -c 1 >/dev/null; exec 0</dev/null; sleep 0.2");
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"}, 15);
  EXPECT_EQ(outcome.out, "ran\n") << outcome.err;
  (void)node.run({"hobbes-run", "delete", "--force", "a"}, 15);
}

// An enclave that cannot be made is removed by each command that can remove one.
TEST(HookPipeOf, WhatAHookHoldsUpCanBeEndedAndDeleted) {
  Node node;
  std::string note = node.folder() + "/hook";
  std::string bundle = bundle_with(node, 256 << 10, "createRuntime",
                                   "echo $$ > " + note + "; exec sleep 1000", 1000);
  Background run(node, "run", {HOBBES_BUILD_DIR "/bin/hobbes-run", "run", "--bundle", bundle, "a"});
  ASSERT_TRUE(eventually([&] { return !node.enclave("a").empty(); }));
  EXPECT_TRUE(eventually(
      [&] { return Files::system().read(note).value_or("").find('\n') != std::string::npos; }, 5))
      << "the hook has not even begun";
  run.signal(SIGTERM);
  EXPECT_TRUE(run.ended(10)) << "it is deaf to SIGTERM";
  run.end();
  if (pid_t hook = std::atoi(Files::system().read(note).value_or("0").c_str()); hook > 1)
    ::kill(hook, SIGKILL);
  node.good({"hobbes-run", "delete", "--force", "a"}, 20);
  node.expect_clean();
}

// The same words go to whatever is run with input.
TEST(HookPipeOf, RunGivesAProgramAllOfItsInput) {
  Command command;
  command.argv = {"wc", "-c"};
  command.input = std::string(300 << 10, 'x');
  command.deadline = std::chrono::seconds(5);
  // In a child, since it may never come back.
  pid_t child = ::fork();
  if (child == 0) {
    auto outcome = hobbes::run(command);
    ::_exit(outcome && outcome->out == std::to_string(300 << 10) + "\n" ? 0 : 1);
  }
  int status = -1;
  bool ended = eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }, 10);
  EXPECT_TRUE(ended) << "it wrote before anybody could read";
  EXPECT_EQ(status, 0);
  if (ended) return;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace hobbes::test
