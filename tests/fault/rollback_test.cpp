// The class of failures half-way: whichever step of `create` cannot be done, what was made before
// it is taken away, at once and for every id.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class Rollback : public ::testing::Test {
 protected:
  Rollback() { node.wake_daemon(); }
  // Control groups of that id, of whichever root; removed, so that this machine is as it was.
  [[nodiscard]] std::string groups_of(const std::string& id) const {
    std::string find = "find /sys/fs/cgroup -depth -type d -name '*-" + id + "' 2>/dev/null";
    std::string found = node.run({"sh", "-c", find}).out;
    (void)node.run({"sh", "-c", find + " | xargs -r rmdir"});
    return found;
  }
  [[nodiscard]] std::string bundle() const {
    return node.bundle("b", "true", {{"hobbes", {{"cores", nullptr}}}});
  }
  Node node;
};

TEST_F(Rollback, OfAnEnclaveWhoseSocketHasNoRoomForItsPath) {
  std::string root = node.folder() + "/" + std::string(90, 'r');
  for (const char* id : {"rollback-one", "rollback-two"}) {
    Outcome outcome = node.run({"hobbes-run", "--root", root, "create", "--bundle", bundle(), id});
    if (outcome.wait_status == 0)
      node.good(
          {"hobbes-run", "--root", root, "delete", "--force", id});  // there is no need to fail
    EXPECT_EQ(groups_of(id), "") << outcome.err;
    EXPECT_FALSE(Files::system().exists(root + "/" + id));
    EXPECT_TRUE(node.enclave(id).empty());
  }
}

// Whatever step it is that gets no descriptor any more.
TEST_F(Rollback, OfAnEnclaveThatRunsOutOfDescriptors) {
  int failed = 0;
  for (int limit = 4; limit < 40; ++limit) {
    std::string id = "rollback-" + std::to_string(limit);
    Outcome outcome = node.run({"bash", "-c",
                                "exec </dev/null >/dev/null; ulimit -n " + std::to_string(limit) +
                                    "; exec " HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " +
                                    bundle() + " " + id});
    if (outcome.wait_status == 0) node.good({"hobbes-run", "delete", "--force", id});
    if (outcome.wait_status != 0) ++failed;
    EXPECT_EQ(groups_of(id), "") << "with a limit of " << limit << ": " << outcome.err;
    (void)node.run({"hobbes-run", "delete", "--force", id});
  }
  EXPECT_GT(failed, 2);
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
