// Enclaves whose root is nobody on the host: what the host's root may mount for them, and maps at
// their edges.
#include <sys/mount.h>

#include "attack.h"

namespace hobbes::test {
namespace {

class UserNamespace : public ::testing::Test {
 protected:
  UserNamespace() { ::chmod(node.folder().c_str(), 0755); }
  std::string bundle_of(const std::string& script, Json ids,
                        const Json& user = {{"uid", 0}, {"gid", 0}}) const {
    std::string bundle = node.busybox_bundle("b", script, no_lease_writable());
    edit(bundle, [&](Json& config) {
      config["process"]["user"] = user;
      config["linux"]["namespaces"].push_back({{"type", "user"}});
      config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = Json::array({ids});
    });
    std::string owner = std::to_string(number_at(ids, "hostID"));
    node.good({"chown", "-R", owner + ":" + owner, bundle + "/rootfs"});
    return bundle;
  }
  Node node;
  Json usual = {{"containerID", 0}, {"hostID", 100000}, {"size", 65536}};
};

TEST_F(UserNamespace, AVolumeBelowAFolderThatOnlyTheHostsRootMayEnterIsMounted) {
  std::string locked = node.folder() + "/locked";
  ASSERT_TRUE(make_directories(locked + "/open"));
  ASSERT_TRUE(replace_file(locked + "/open/word", "inside\n", 0644));
  ASSERT_EQ(::chmod((locked + "/open").c_str(), 0755), 0);
  ASSERT_EQ(::chmod(locked.c_str(), 0700), 0);
  for (const char* what : {"/open", "/open/word"}) {
    std::string bundle =
        bundle_of(*std::string(what).rbegin() == 'd' ? "cat /data" : "cat /data/word", usual);
    edit(bundle, [&](Json& config) {
      config["mounts"].push_back(volume_at(locked + what, "/data", "ro"));
    });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
    EXPECT_EQ(outcome.out, "inside\n") << what << ": " << outcome.err;
    node.run({"rm", "-rf", bundle});
  }
  node.expect_clean();
}

TEST_F(UserNamespace, AVolumeWithMountsBelowItIsMountedWithoutThem) {
  std::string tree = node.folder() + "/tree";
  ASSERT_TRUE(make_directories(tree + "/below"));
  ASSERT_TRUE(replace_file(tree + "/outer", ""));
  ASSERT_EQ(::mount("tmpfs", (tree + "/below").c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_TRUE(replace_file(tree + "/below/inner", ""));
  std::string bundle = bundle_of("ls /data; ls /data/below", usual);
  edit(bundle, [&](Json& config) { config["mounts"].push_back(volume_at(tree, "/data", "ro")); });
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_EQ(outcome.out, "below\nouter\n") << outcome.err;
  EXPECT_EQ(::umount2((tree + "/below").c_str(), MNT_DETACH), 0);
  node.expect_clean();
}

TEST_F(UserNamespace, AMapMayCoverAllIds) {
  std::string bundle = bundle_of("id -u; cat /proc/self/uid_map",
                                 {{"containerID", 0}, {"hostID", 0}, {"size", 4294967295U}});
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_TRUE(holds(outcome.out, "0\n") && holds(outcome.out, "4294967295\n"))
      << outcome.out << outcome.err;
  // One more wraps around.
  edit(bundle, [](Json& config) { config["linux"]["uidMappings"][0]["size"] = 4294967296U; });
  EXPECT_NE(node.run({"hobbes-run", "run", "--bundle", bundle, "a"}).wait_status, 0);
  edit(bundle, [](Json& config) {
    config["linux"]["uidMappings"][0]["size"] = 10;
    config["linux"]["uidMappings"][0]["hostID"] = 4294967290U;
  });
  EXPECT_NE(node.run({"hobbes-run", "run", "--bundle", bundle, "a"}).wait_status, 0);
  node.expect_clean();
}

TEST_F(UserNamespace, AMapNeedNotCoverRoot) {
  std::string bundle = bundle_of("id -u; touch /tmp/made && echo made; exec sleep 1000",
                                 {{"containerID", 1000}, {"hostID", 100000}, {"size", 10}},
                                 {{"uid", 1000}, {"gid", 1000}});
  Outcome created = node.create("a", bundle);
  EXPECT_EQ(created.wait_status, 0) << created.err;
  if (created.wait_status == 0) {
    node.good({"hobbes-run", "start", "a"});
    EXPECT_TRUE(eventually(
        [&] { return Files::system().read(bundle + "/out").value_or("") == "1000\nmade\n"; }));
    struct stat info {};
    EXPECT_EQ(::stat((bundle + "/rootfs/tmp/made").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 100000U);
    EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "id", "-u"}), "1000\n");
    node.good({"hobbes-run", "delete", "--force", "a"});
  }
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
