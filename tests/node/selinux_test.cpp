// Programs and files of enclaves bear the SELinux contexts of their bundle, on a kernel that has
// SELinux on.
#include <sys/mount.h>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

const std::string node_context = "user_u:base_r:base_t",
                  program_context = "user_u:base_r:enclave_t",
                  mount_context = "user_u:object_r:volume_t";

class SeLinux : public ::testing::Test {
 protected:
  // The policy stays loaded until the node is shut down.
  static void SetUpTestSuite() {
    ASSERT_TRUE(Files::system().exists("/sys/fs/selinux/enforce") ||
                ::mount("selinuxfs", "/sys/fs/selinux", "selinuxfs", 0, nullptr) == 0);
    Command load;
    load.argv = {"sh", "-c",
                 "checkpolicy -c $(cat /sys/fs/selinux/policyvers) -U allow -o "
                 "/tmp/policy " HOBBES_SOURCE_DIR
                 "/tests/node/selinux_policy.conf && cat /tmp/policy > /sys/fs/selinux/load"};
    auto outcome = hobbes::run(load);
    ASSERT_TRUE(outcome && outcome->good()) << outcome->err;
  }
  [[nodiscard]] Outcome run(const std::string& id, const std::string& script,
                            const Json& patch) const {
    return node.run({"hobbes-run", "run", "--bundle", node.busybox_bundle(id, script, patch), id});
  }
  Node node;
};

TEST_F(SeLinux, AProgramHasTheContextOfItsBundle) {
  const std::string script = "cat /proc/self/attr/current";
  Outcome outcome = run("p", script, {{"process", {{"selinuxLabel", program_context}}}});
  EXPECT_EQ(outcome.out.c_str(), program_context) << outcome.err;
  EXPECT_EQ(run("q", script, Json::object()).out.c_str(), node_context)
      << "without a label it keeps the runtime's";
  node.expect_clean();
}

TEST_F(SeLinux, ExecHasTheContextThatIsAskedForOrThatOfTheBundle) {
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.busybox_bundle("e", "exec sleep 1000",
                                 {{"process", {{"selinuxLabel", program_context}}}}),
             "e"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "e", "cat", "/proc/self/attr/current"}).c_str(),
            program_context);
  EXPECT_EQ(node.good({"hobbes-run", "exec", "--process-label", node_context, "e", "cat",
                       "/proc/self/attr/current"})
                .c_str(),
            node_context);
  Outcome wrong =
      node.run({"hobbes-run", "exec", "--process-label", "user_u:base_r:nosuch_t", "e", "true"});
  EXPECT_NE(wrong.wait_status, 0);
  EXPECT_NE(wrong.err.find("nosuch_t"), std::string::npos) << wrong.err;
  node.good({"hobbes-run", "delete", "--force", "e"});
  node.expect_clean();
}

TEST_F(SeLinux, FileSystemsOfTheEnclavesOwnHaveTheMountLabel) {
  Json mounts = Json::array({{{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}},
                             {{"destination", "/tmp"},
                              {"type", "tmpfs"},
                              {"source", "tmpfs"},
                              {"options", {"nosuid", "mode=1777"}}}});
  Outcome outcome = run("m", "touch /tmp/file; busybox grep ' /tmp ' /proc/self/mounts",
                        {{"mounts", mounts}, {"linux", {{"mountLabel", mount_context}}}});
  EXPECT_NE(outcome.out.find("context=" + mount_context), std::string::npos)
      << outcome.out << outcome.err;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
