// The Python package, by a program in Python against the library of this build.
#include "node_harness.h"

namespace hobbes::test {
namespace {

void expect_good(const Node& node, std::vector<std::string> arguments) {
  arguments.insert(
      arguments.begin(),
      {"env", "PYTHONPATH=" HOBBES_SOURCE_DIR "/api/python", "PYTHONDONTWRITEBYTECODE=1",
       "HOBBES_LIBRARY=" HOBBES_BUILD_DIR "/lib/libhobbes.so",
       "PROGRAMS=" HOBBES_BUILD_DIR "/tests/programs",
       "PATH=" HOBBES_BUILD_DIR "/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/usr/bin/python3",
       HOBBES_SOURCE_DIR "/tests/integration/python_library.py"});
  Outcome outcome = node.run(arguments);
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
}

class Python : public ::testing::Test {
 protected:
  Python() { node.wake_daemon(); }
  Node node;
};

TEST_F(Python, SegmentsAreArraysWithoutACopy) { expect_good(node, {"segments"}); }
TEST_F(Python, SnapshotsAreArraysThatStayAsTheyAre) { expect_good(node, {"snapshots"}); }
TEST_F(Python, DoorbellsWakeIt) { expect_good(node, {"doorbells"}); }
TEST_F(Python, ProceduresOfServicesAreMethods) { expect_good(node, {"services"}); }
TEST_F(Python, EnclavesAreListedRunAndFollowed) {
  expect_good(node, {"enclaves", node.bundle("b", "echo printed; exit 7")});
}

}  // namespace
}  // namespace hobbes::test
