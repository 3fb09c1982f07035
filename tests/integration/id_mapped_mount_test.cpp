// Bind mounts whose files appear with other owners (runtime-spec config.md, "mounts": uidMappings,
// gidMappings, idmap, ridmap).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "enclave/drivers/linux/id_mapping.h"
#include "enclave/drivers/linux/mount.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

class IdMappedMount : public ::testing::Test {
 protected:
  IdMappedMount() {
    for (const char* folder : {"/source", "/source/below"})
      EXPECT_TRUE(make_directories(node.folder() + folder));
    EXPECT_TRUE(replace_file(node.folder() + "/source/file", "x"));
    EXPECT_EQ(::chown((node.folder() + "/source/file").c_str(), 5, 6), 0);
  }
  // Some file systems cannot: the kernel is asked without an enclave.
  void SetUp() override {
    auto users = make_user_namespace({{0, 1000, 100}}, {{0, 1000, 100}});
    auto mount = Mount::clone(AT_FDCWD, node.folder() + "/source", false);
    ASSERT_TRUE(users && mount);
    if (auto mapped = mount->map_ids(*users, false, "a folder of the test"); !mapped)
      GTEST_SKIP() << mapped.error().text();
  }
  // What `stat` says of the owner of /mapped/file.
  [[nodiscard]] Outcome owner(const std::string& id, Json mount,
                              const Json& patch = Json::object()) const {
    mount.update(
        {{"destination", "/mapped"}, {"type", "bind"}, {"source", node.folder() + "/source"}});
    Json config = patch;
    config["mounts"] =
        Json::array({{{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}}, mount});
    std::string bundle = node.busybox_bundle(id, "busybox stat -c %u:%g /mapped/file", config);
    return node.run({"hobbes-run", "run", "--bundle", bundle, id});
  }
  static Json maps(unsigned inside, unsigned outside) {
    return Json::array({{{"containerID", inside}, {"hostID", outside}, {"size", 100}}});
  }
  Node node;
};

TEST_F(IdMappedMount, ShowsItsFilesWithTheOwnersOfItsMappings) {
  Outcome outcome = owner(
      "m", {{"options", {"bind"}}, {"uidMappings", maps(0, 1000)}, {"gidMappings", maps(0, 2000)}});
  EXPECT_EQ(outcome.out, "1005:2006\n") << outcome.err;
  struct stat info {};
  ASSERT_EQ(::stat((node.folder() + "/source/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 5U) << "the file itself is as it was";
}

TEST_F(IdMappedMount, TakesTheUserNamespacesMappingsWhereItHasNone) {
  Json users = {
      {"linux",
       {{"namespaces",
         {{{"type", "mount"}}, {{"type", "user"}}, {{"type", "pid"}}, {{"type", "uts"}}}},
        {"uidMappings", Json::array({{{"containerID", 0}, {"hostID", 0}, {"size", 1}},
                                     {{"containerID", 1}, {"hostID", 100001}, {"size", 99}}})},
        {"gidMappings", Json::array({{{"containerID", 0}, {"hostID", 0}, {"size", 1}},
                                     {{"containerID", 1}, {"hostID", 100001}, {"size", 99}}})}}}};
  Outcome mapped = owner("m", {{"options", {"bind", "idmap"}}}, users);
  EXPECT_EQ(mapped.out, "5:6\n") << mapped.err;
  Outcome plain = owner("p", {{"options", {"bind"}}}, users);
  EXPECT_EQ(plain.out, "65534:65534\n") << "without it they belong to nobody: " << plain.err;
}

TEST_F(IdMappedMount, IsRefusedWhereItCannotBe) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"no mappings and no user namespace", {{"options", {"bind", "idmap"}}}},
      {"one kind of ids", {{"options", {"bind"}}, {"uidMappings", maps(0, 1000)}}},
      {"words of crun's own", {{"options", {"bind", "idmap=uids=0-1-10;gids=0-1-10"}}}},
  };
  int number = 0;
  for (const auto& [what, mount] : wrong) {
    Outcome outcome = owner("w" + std::to_string(++number), mount);
    EXPECT_NE(outcome.wait_status, 0) << what;
    EXPECT_NE(outcome.err.find("/mounts/1/"), std::string::npos) << what << ": " << outcome.err;
  }
}

}  // namespace
}  // namespace hobbes::test
