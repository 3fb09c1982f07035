// The class of descriptor numbers that are believed: a rank is told that its launcher listens at
// descriptor 3, but between the launcher and the rank stands a wrapper, and 3 is whatever that has
// opened last. Letters must not go into the user's files.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class PhasePipe : public ::testing::Test {
 protected:
  // Runs one rank of `program` in a wrapper's words and returns what remora said.
  [[nodiscard]] Outcome wrapped(const std::string& words, const std::string& program = "universe",
                                const std::string& argument = {}) const {
    std::string folder = node.bundle(
        "one", "true",
        {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
         {"process", {{"capabilities", nullptr}}}});
    std::string wrapper = folder + "/wrapper";
    std::string rank = HOBBES_BUILD_DIR "/tests/programs/" + program + " " + argument;
    std::string text = words;
    for (std::size_t at = text.find("RANK"); at != std::string::npos; at = text.find("RANK"))
      text.replace(at, 4, rank);
    EXPECT_TRUE(replace_file(wrapper, text, 0755));
    std::string path = node.folder() + "/c.xml";
    EXPECT_TRUE(make_directories(share()));
    EXPECT_TRUE(replace_file(path,
                             "<composition name=\"wrapped\"><enclave name=\"one\" "
                             "bundle=\"one\"><app name=\"a\" path=\"" +
                                 wrapper + "\" ranks=\"1\"/></enclave></composition>"));
    return node.run(
        {"remora", "run", "--timeout", "30", "--init-timeout", "2", "--share", share(), path}, 60);
  }
  [[nodiscard]] std::string share() const { return node.folder() + "/share"; }
  Node node;
};

TEST_F(PhasePipe, AFileThatAWrapperOpensAtThatNumberIsItsOwn) {
  Outcome outcome =
      wrapped("#!/bin/sh\nexec 3> $REMORA_SHARE/data\necho first >&3\nRANK\necho last >&3\n");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_EQ(Files::system().read(share() + "/data").value_or(""), "first\nlast\n");
}

TEST_F(PhasePipe, APipeThatAWrapperOpensAtThatNumberIsItsOwn) {
  Outcome outcome =
      wrapped("#!/bin/bash\nexec 3> >(cat > $REMORA_SHARE/data)\nRANK\nexec 3>&-\nwait\n");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_EQ(Files::system().read(share() + "/data").value_or("?"), "");
}

// A wrapper that closes what it was not asked to pass on: the first file of the rank's own gets the
// number.
TEST_F(PhasePipe, AFileThatTheRankOpensAtThatNumberIsItsOwn) {
  Outcome outcome = wrapped(R"(#!/usr/bin/python3
import os, subprocess
text = open(os.path.join(os.environ['REMORA_SHARE'], 'data'), 'w+')
os.dup2(text.fileno(), 3)
os.set_inheritable(3, True)
raise SystemExit(subprocess.run('RANK'.split(), close_fds=False).returncode)
)");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_EQ(Files::system().read(share() + "/data").value_or("?"), "");
}

// How far a rank has come is known all the same: a rank that works for longer than it takes to get
// into MPI is not ended for its wrapper's sake.
TEST_F(PhasePipe, ARankBehindAWrapperThatClosedItIsNotTakenForAStranger) {
  Outcome outcome = wrapped("#!/bin/sh\nexec 3>&-\nRANK\n", "misbehave", "late");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
}

}  // namespace
}  // namespace hobbes::test
