// The class of programs that wait for what cannot come: when the caller's input is at its end, the
// program at the terminal is told, or the request is refused; a job without a person in front of it
// does not hang.
#include <algorithm>

#include "security/attacker.h"

namespace hobbes::test {
namespace {

class TerminalEof : public ::testing::Test {
 protected:
  TerminalEof() { node.wake_daemon(); }
  ~TerminalEof() override { (void)node.run({"hobbes-run", "delete", "--force", "a"}); }
  // Whether it ended within a while, as a success or as a refusal with a reason.
  void expect_end(const std::string& words, const std::string& expected) const {
    Outcome outcome = node.run(
        {"sh", "-c", "timeout -s KILL 10 " HOBBES_BUILD_DIR "/bin/hobbes-run " + words}, 30);
    std::string end =
        outcome.out.substr(outcome.out.size() - std::min<std::size_t>(outcome.out.size(), 200));
    EXPECT_NE(exit_code_of(outcome.wait_status), 137) << "it never ends: " << end;
    bool refused = outcome.wait_status != 0 && outcome.err.find("terminal") != std::string::npos;
    EXPECT_TRUE(refused || outcome.out.find(expected) != std::string::npos) << end << outcome.err;
    if (words.rfind("run ", 0) == 0) (void)node.run({"hobbes-run", "delete", "--force", "a"});
  }
  [[nodiscard]] std::string bundle(const std::string& script) const {
    return node.bundle("b", script,
                       {{"hobbes", {{"cores", nullptr}}}, {"process", {{"terminal", true}}}});
  }
  Node node;
};

// A program that reads gets the end of input; one that does not read is not disturbed.
TEST_F(TerminalEof, EndsAProgramThatReadsToTheEndAndNoOther) {
  expect_end("run --bundle " + bundle("sleep 1; echo worked") + " a < /dev/null", "worked");
  expect_end("run --bundle " + bundle("cat; echo over") + " a < /dev/null", "over");
}

TEST_F(TerminalEof, ComesAfterWhatWasTyped) {
  std::string input = node.folder() + "/input";
  ASSERT_TRUE(replace_file(input, "first\nsecond without an end"));
  expect_end("run --bundle " +
                 bundle("while read line || [ -n \"$line\" ]; do echo got $line; done; echo over") +
                 " a < " + input,
             "got second without an end");
  expect_end("run --bundle " + bundle("sort; echo over") + " a < " + input, "over");
}

TEST_F(TerminalEof, ComesAfterMoreThanATerminalHolds) {
  std::string input = node.folder() + "/input";
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "line " + std::to_string(i) + "\n";
  ASSERT_TRUE(replace_file(input, text));
  expect_end("run --bundle " + bundle("stty -echo; echo lines $(wc -l)") + " a < " + input,
             "lines 3000");
}

TEST_F(TerminalEof, EndsAProgramOfExec) {
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("s", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}), "a"});
  expect_end("exec --tty a sh -c 'cat; echo over' < /dev/null", "over");
}

TEST_F(TerminalEof, OfAClosedInputIsTheSame) {
  expect_end("run --bundle " + bundle("cat; echo over") + " a <&-", "over");
}

}  // namespace
}  // namespace hobbes::test
