// What a bundle does not ask for it does not get: no process.capabilities means no capabilities.
#include "attack.h"

namespace hobbes::test {
namespace {

const std::string ask = "grep -E '^Cap' /proc/self/status";
const std::string none =
    "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
    "CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n";

std::string bundle_of(const Node& node, const std::string& name, const std::string& script) {
  std::string bundle = node.busybox_bundle(name, script, no_lease());
  EXPECT_EQ(::symlink("busybox", (bundle + "/rootfs/bin/grep").c_str()), 0);
  edit(bundle, [](Json& config) { config["process"].erase("capabilities"); });
  return bundle;
}

TEST(DefaultCapabilities, ABundleThatNamesNoneHasNone) {
  Node node;
  std::string bundle = bundle_of(node, "b", ask);
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "root"}), none);
  edit(bundle, [](Json& config) { config["process"]["user"] = {{"uid", 1000}, {"gid", 1000}}; });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "user"}), none);
  edit(bundle, [](Json& config) { config["process"]["noNewPrivileges"] = false; });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "privileges"}), none);
  edit(bundle, [](Json& config) { config["process"]["capabilities"] = Json::object(); });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "empty"}), none);
  node.expect_clean();
}

TEST(DefaultCapabilities, AHostRootEnclaveThatNamesNoneHasNone) {
  Node node;
  std::string bundle = node.bundle("b", ask);
  edit(bundle, [](Json& config) { config["process"].erase("capabilities"); });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "a"}), none);
  node.expect_clean();
}

TEST(DefaultCapabilities, AUserNamespaceIsNoReasonToGiveThem) {
  Node node;
  std::string bundle = bundle_of(node, "b", ask);
  edit(bundle, [](Json& config) {
    config["linux"]["namespaces"].push_back({{"type", "user"}});
    config["linux"]["uidMappings"] = {{{"containerID", 0}, {"hostID", 100000}, {"size", 1000}}};
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"];
  });
  ::chmod(node.folder().c_str(), 0755);
  node.good({"chown", "-R", "100000:100000", bundle + "/rootfs"});
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "a"}), none);
}

TEST(DefaultCapabilities, AProgramOfExecHasNoMoreThanItsProcessObjectSays) {
  Node node;
  ASSERT_EQ(node.create("a", bundle_of(node, "b", "exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "sh", "-c", ask}), none);
  Json process = {{"cwd", "/"}, {"args", {"/bin/sh", "-c", ask}}, {"env", {"PATH=/bin"}}};
  ASSERT_TRUE(replace_file(node.folder() + "/process.json", to_text(process)));
  EXPECT_EQ(node.good({"hobbes-run", "exec", "--process", node.folder() + "/process.json", "a"}),
            none);
  // One that is asked for is one, and not one more.
  EXPECT_TRUE(holds(node.good({"hobbes-run", "exec", "--cap", "CAP_KILL", "a", "sh", "-c", ask}),
                    "CapBnd:\t0000000000000020\n"));
  node.good({"hobbes-run", "delete", "--force", "a"});
}

}  // namespace
}  // namespace hobbes::test
