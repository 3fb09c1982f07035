// The class of numbers that are assumed to be there: descriptors are moved to 512 and above, which
// a limit on open files may not allow, and what then fails is told as something else.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

// The limit is the caller's; hobbesd runs already, with the limit it was given.
class DescriptorLimit : public ::testing::TestWithParam<int> {
 protected:
  DescriptorLimit() { node.wake_daemon(); }
  [[nodiscard]] Outcome limited(const std::string& words, int limit = 0) const {
    std::string number = std::to_string(limit != 0 ? limit : GetParam());
    return node.run(
        {"bash", "-c",
         "ulimit -n " + number + "; cd " HOBBES_BUILD_DIR "/bin; exec 2>&1 </dev/null; " + words},
        60);
  }
  Node node;
};

TEST_P(DescriptorLimit, EnclavesRunAndTheirProgramsHaveTheLimit) {
  std::string bundle = node.bundle("b", "ulimit -n", {{"hobbes", {{"cores", nullptr}}}});
  Outcome outcome = limited("./hobbes-run run --bundle " + bundle + " a");
  EXPECT_EQ(outcome.out, std::to_string(GetParam()) + "\n");
  node.expect_clean();
}

TEST_P(DescriptorLimit, ProgramsAreExecutedInThem) {
  std::string bundle = node.bundle("b", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}});
  node.good({"hobbes-run", "run", "--detach", "--bundle", bundle, "a"});
  EXPECT_EQ(limited("./hobbes-run exec a sh -c 'echo ran'").out, "ran\n");
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST_P(DescriptorLimit, TerminalsWork) {
  std::string bundle =
      node.bundle("b", "tty -s && echo terminal",
                  {{"hobbes", {{"cores", nullptr}}}, {"process", {{"terminal", true}}}});
  std::string out =
      limited("script -qec './hobbes-run run --bundle " + bundle + " a' /dev/null").out;
  EXPECT_NE(out.find("terminal"), std::string::npos) << out;
  (void)node.run({"hobbes-run", "delete", "--force", "a"});
}

TEST_P(DescriptorLimit, DescriptorsArePassedOn) {
  std::string bundle = node.bundle("b", "cat <&3; cat <&4", {{"hobbes", {{"cores", nullptr}}}});
  EXPECT_EQ(limited("./hobbes-run run --preserve-fds 2 --bundle " + bundle +
                    " a 3< <(echo three) 4< <(echo four)")
                .out,
            "three\nfour\n");
  node.expect_clean();
}

TEST_P(DescriptorLimit, CompositionsRun) {
  if (!Node::joins_mpi()) GTEST_SKIP() << "this build has no component for its Open MPI";
  node.bundle(
      "one", "true",
      {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
       {"process", {{"capabilities", nullptr}}}});
  std::string path = node.folder() + "/c.xml";
  ASSERT_TRUE(replace_file(path,
                           "<composition name=\"limited\"><enclave name=\"one\" "
                           "bundle=\"one\"><app name=\"a\" path=\"" HOBBES_BUILD_DIR
                           "/tests/programs/universe\" ranks=\"2\"/></enclave></composition>"));
  Outcome outcome = limited("./remora run --timeout 30 " + path);
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out;
  node.expect_clean();
}

INSTANTIATE_TEST_SUITE_P(Open, DescriptorLimit, ::testing::Values(64, 256, 513),
                         [](const auto& test) { return std::to_string(test.param); });

// Where there really are too few, that is what is said, and nothing is left.
TEST(DescriptorLimitOf, NextToNothingIsNamedAsWhatItIs) {
  Node node;
  node.wake_daemon();
  std::string bundle = node.bundle("b", "echo ran", {{"hobbes", {{"cores", nullptr}}}});
  for (int limit = 8; limit < 24; ++limit) {
    Outcome outcome = node.run({"bash", "-c",
                                "exec 2>&1 </dev/null; ulimit -n " + std::to_string(limit) +
                                    "; exec " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " +
                                    bundle + " a" + std::to_string(limit)});
    if (outcome.out == "ran\n") break;
    EXPECT_EQ(outcome.out.find("out-of-memory"), std::string::npos) << limit << ": " << outcome.out;
    EXPECT_NE(outcome.out.find("oo many open files"), std::string::npos)
        << limit << ": " << outcome.out;
  }
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
