// The class of mounts that are left below an enclave's root: with --no-pivot the root is moved, and
// the node's own /proc, which nothing masks, must not be there for a user namespace of the enclave
// to find.
#include "attack.h"

namespace hobbes::test {
namespace {

// Prints "open" when a user namespace of the enclave may mount a /proc of its own, without masks.
std::string bundle_that_mounts_proc(const Node& node, const std::string& name, bool masks) {
  std::string bundle = node.busybox_bundle(
      name, "busybox unshare -Urpfm busybox mount -t proc proc /proc && echo open; true",
      no_lease_writable());
  edit(bundle, [&](Json& config) {
    config["process"]["user"] = {
        {"uid", 1000},
        {"gid", 1000}};  // Linux maps user 0 for those only who may give files capabilities
    config["linux"]["seccomp"] = {{"defaultAction", "SCMP_ACT_ALLOW"}};
    if (masks) {
      config["linux"]["maskedPaths"] = {"/proc/kcore"};
      config["linux"]["readonlyPaths"] = {"/proc/sys"};
    } else {
      config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = Json::array();
    }
  });
  return bundle;
}

TEST(MovedRoot, TheNodesOwnProcIsNotLeftBelowIt) {
  Node node;
  std::string bundle = bundle_that_mounts_proc(node, "b", true);
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "pivoted"}), "");
  EXPECT_EQ(node.good({"hobbes-run", "run", "--no-pivot", "--bundle", bundle, "moved"}), "");
  node.expect_clean();
}

TEST(MovedRoot, AProcThatTheBundleLeavesOpenIsOpenToItsNamespacesToo) {
  Node node;
  std::string bundle = bundle_that_mounts_proc(node, "b", false);
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "pivoted"}), "open\n");
  EXPECT_EQ(node.good({"hobbes-run", "run", "--no-pivot", "--bundle", bundle, "moved"}), "open\n");
}

}  // namespace
}  // namespace hobbes::test
