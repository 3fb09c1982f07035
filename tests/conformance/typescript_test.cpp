// A TypeScript client that is generated from the REST document drives a real hobbesd.
#include <sys/wait.h>

#include "node_harness.h"

namespace hobbes::test {
namespace {

TEST(TypeScript, AGeneratedClientMakesUsesAndDeletesAnEnclave) {
  Node node;
  node.wake_daemon();
  const std::string source = HOBBES_SOURCE_DIR, bundle = node.bundle("b", "exec sleep 1000");
  Outcome outcome =
      node.run({source + "/tests/conformance/typescript/run", source + "/api/openapi.yaml",
                node.run_folder() + "/api.sock", bundle},
               280);
  if (WIFEXITED(outcome.wait_status) && WEXITSTATUS(outcome.wait_status) == 77)
    GTEST_SKIP() << outcome.err;
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
