// Bundles from container images (OCI image-spec 1.0) that skopeo and umoci have made.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class Image : public ::testing::Test {
 protected:
  // An image with busybox that greets.
  void SetUp() override {
    std::string layout = node.folder() + "/layout", work = node.folder() + "/work";
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"umoci", "init", "--layout", layout},
          {"umoci", "new", "--image", layout + ":one"},
          {"umoci", "unpack", "--image", layout + ":one", work},
          {"mkdir", "-p", work + "/rootfs/bin"},
          {"cp", "/bin/busybox", work + "/rootfs/bin/busybox"},
          {"umoci", "repack", "--image", layout + ":one", work},
          {"umoci", "config", "--image", layout + ":one", "--config.cmd", "/bin/busybox",
           "--config.cmd", "echo", "--config.cmd", "hello from an image", "--config.env",
           "GREETED=yes"}})
      node.good(words);
    image = "oci:" + layout + ":one";
  }
  Node node;
  std::string image;
};

TEST_F(Image, BecomesABundleThatRuns) {
  std::string folder = node.folder() + "/bundle";
  Outcome outcome =
      node.run({"hobbes-run", "bundle", "--cores", "1", "--memory", "64MiB", image, folder});
  ASSERT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("unpacking"), std::string::npos)
      << "what takes long says what it does: " << outcome.err;
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", folder, "a"}), "hello from an image\n");
  EXPECT_EQ(node.good({"ls", folder}), "config.json\nrootfs\n");
  Json config = parse_json(Files::system().read(folder + "/config.json").value_or(""), "config")
                    .value_or(Json());
  EXPECT_EQ(number_at(config["hobbes"]["cores"], "count"), 1);
}

TEST_F(Image, ThatIsNotThereLeavesNothing) {
  std::string folder = node.folder() + "/bundle";
  Outcome outcome = node.run({"hobbes-run", "bundle", image + "-nosuch", folder});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("skopeo says"), std::string::npos) << outcome.err;
  for (const std::string& name :
       Files::system().list(node.folder()).value_or(std::vector<std::string>()))
    EXPECT_NE(name.rfind("bundle", 0), 0U) << name << " is left";
}

TEST_F(Image, NeverReplacesWhatIsThere) {
  std::string folder = node.folder() + "/bundle";
  ASSERT_TRUE(make_directories(folder));
  ASSERT_TRUE(replace_file(folder + "/mine", "mine"));
  EXPECT_NE(node.run({"hobbes-run", "bundle", image, folder}).wait_status, 0);
  EXPECT_EQ(Files::system().read(folder + "/mine").value_or(""), "mine");
}

TEST_F(Image, NeedsProgramsThatAreNamed) {
  Outcome outcome = node.run({"env", "PATH=/nowhere", HOBBES_BUILD_DIR "/bin/hobbes-run", "bundle",
                              image, node.folder() + "/bundle"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("skopeo is not installed"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace hobbes::test
