// Programs of enclaves run under the AppArmor profile of their bundle, as the real module enforces
// it.
#include <sys/mount.h>

#include "core/file.h"
#include "node_harness.h"
#include "podman.h"

namespace hobbes::test {
namespace {

class AppArmor : public ::testing::Test {
 protected:
  AppArmor() {
    // Where it is not mounted, engines take AppArmor to be off, which other tests in this node
    // count on.
    mounted = !Files::system().exists("/sys/kernel/security/apparmor") &&
              ::mount("securityfs", "/sys/kernel/security", "securityfs", 0, nullptr) == 0;
    EXPECT_TRUE(Files::system().exists("/sys/kernel/security/apparmor"));
    EXPECT_TRUE(
        replace_file(profile,
                     "profile hobbes-test flags=(attach_disconnected, mediate_deleted) {\n"
                     "  file,\n  capability,\n  signal,\n  unix,\n  mount,\n  umount,\n  ptrace,\n"
                     "  deny /**/secret r,\n}\n"));
    node.good({"apparmor_parser", "--replace", "--skip-cache", profile});
    EXPECT_TRUE(replace_file("/etc/secret", "told\n"));
  }
  ~AppArmor() override {
    (void)node.run({"apparmor_parser", "--remove", profile});
    (void)remove_tree("/etc/secret");
    if (mounted) (void)::umount("/sys/kernel/security");
  }
  [[nodiscard]] std::string bundle(const std::string& name, const std::string& label,
                                   bool no_new_privileges) const {
    return node.bundle(
        name, "cat /proc/self/attr/current; cat /etc/secret; exec sleep 1000",
        {{"hobbes", {{"cores", nullptr}}},
         {"process", {{"apparmorProfile", label}, {"noNewPrivileges", no_new_privileges}}}});
  }
  bool mounted = false;
  Node node;
  const std::string profile = node.folder() + "/profile";
};

TEST_F(AppArmor, AProgramRunsUnderTheProfileOfItsBundle) {
  for (bool no_new_privileges : {false, true}) {
    const std::string id = no_new_privileges ? "nnp" : "plain";
    ASSERT_EQ(node.create(id, bundle(id, "hobbes-test", no_new_privileges)).wait_status, 0);
    node.good({"hobbes-run", "start", id});
    const std::string out = node.folder() + "/" + id + "/out";
    EXPECT_TRUE(eventually([&] {
      return Files::system().read(out).value_or("") == "hobbes-test (enforce)\n";
    })) << Files::system().read(out).value_or("");
    Outcome again = node.run(
        {"hobbes-run", "exec", id, "sh", "-c", "cat /proc/self/attr/current; cat /etc/secret"});
    EXPECT_EQ(again.out, "hobbes-test (enforce)\n");
    EXPECT_NE(again.err.find("Permission denied"), std::string::npos) << again.err;
    node.good({"hobbes-run", "delete", "--force", id});
  }
  node.expect_clean();
}

TEST_F(AppArmor, AProfileThatIsNotLoadedIsRefusedByName) {
  Outcome outcome = node.create("none", bundle("none", "hobbes-nosuch", true));
  if (outcome.wait_status == 0) outcome = node.run({"hobbes-run", "start", "none"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("hobbes-nosuch"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("apparmor_parser"), std::string::npos) << outcome.err;
  (void)node.run({"hobbes-run", "delete", "--force", "none"});
}

TEST_F(AppArmor, UnconfinedIsNoProfile) {
  ASSERT_EQ(node.create("free", bundle("free", "unconfined", false)).wait_status, 0);
  node.good({"hobbes-run", "start", "free"});
  EXPECT_EQ(
      node.good({"hobbes-run", "exec", "free", "cat", "/proc/self/attr/current", "/etc/secret"}),
      "unconfined\ntold\n");
  EXPECT_EQ(node.good({"hobbes-run", "exec", "--apparmor", "hobbes-test", "free", "cat",
                       "/proc/self/attr/current"}),
            "hobbes-test (enforce)\n");
  node.good({"hobbes-run", "delete", "--force", "free"});
  node.expect_clean();
}

// podman asks for a profile of its own wherever AppArmor is on.
TEST_F(AppArmor, PodmanRunsAnImageUnderItsDefaultProfile) {
  Podman podman(node);
  const std::string image = " --network none --cgroups enabled box:1 ";
  std::string label = podman.good("run --rm" + image + "cat /proc/self/attr/current");
  EXPECT_EQ(label.rfind("containers-default", 0), 0U) << label;
  EXPECT_EQ(podman.good("run --rm --security-opt apparmor=hobbes-test" + image +
                        "cat /proc/self/attr/current"),
            "hobbes-test (enforce)\n");
}

}  // namespace
}  // namespace hobbes::test
