// MPI-4 programs that use sessions instead of MPI_Init, as apps of a composition.
#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

const std::string of_sessions = HOBBES_BUILD_DIR "/tests/programs/sessions";

TEST(Sessions, FindTheAppsAsProcessSetsAndMakeCommunicatorsOfThemAndOfTheUniverse) {
  Node node;
  std::string out =
      node.good({"remora", "run", "-np", "2", of_sessions, ":", "-np", "1", of_sessions});
  for (const char* line :
       {"[sessions:0] set hobbes://sessions\n", "[sessions-2:0] set hobbes://sessions-2\n",
        "[sessions:0] app: rank 0 of 2\n", "[sessions:1] app: rank 1 of 2\n",
        "[sessions-2:0] app: rank 0 of 1\n", "[sessions:1] universe: rank 1 of 3\n",
        "[sessions-2:0] universe: rank 2 of 3\n"})
    EXPECT_NE(out.find(line), std::string::npos) << line << out;
}

TEST(Sessions, AreNotWaitedForInVainByProgramsThatCallMpiInit) {
  Node node;
  Outcome outcome = node.run({"remora", "run", "-np", "1", of_sessions, ":", "-np", "1",
                              HOBBES_BUILD_DIR "/tests/programs/plain-c"});
  EXPECT_FALSE(outcome.good());
  EXPECT_NE(outcome.err.find("app \"plain-c\""), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("uses MPI sessions only"), std::string::npos) << outcome.err;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
