// The caller's keys are not the enclave's: neither a new enclave nor a program of exec has his
// session.
#include "attack.h"

namespace hobbes::test {
namespace {

TEST(Keyring, TheCallersKeysStayOutOfTheEnclave) {
  Node node;
  std::string tool = HOBBES_BUILD_DIR "/tests/security/keyring",
              run = HOBBES_BUILD_DIR "/bin/hobbes-run";
  std::string bundle = node.busybox_bundle("b", "", no_lease());
  node.good({"cp", tool, bundle + "/rootfs/bin"});
  auto with_key = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {tool, "hobbes-test", "a key of the caller", run});
    return node.run(words);
  };
  edit(bundle, [](Json& config) { config["process"]["args"] = {"/bin/keyring", "hobbes-test"}; });
  EXPECT_FALSE(holds(with_key({"run", "--bundle", bundle, "a"}).out, "of the caller")) << "run";
  edit(bundle, [](Json& config) { config["process"]["args"] = {"sleep", "1000"}; });
  ASSERT_EQ(node.create("b", bundle).wait_status, 0);
  node.good({"hobbes-run", "start", "b"});
  EXPECT_FALSE(holds(with_key({"exec", "b", "/bin/keyring", "hobbes-test"}).out, "of the caller"))
      << "exec";
  node.good({"hobbes-run", "delete", "--force", "b"});
}

// A process that joins the enclave has the enclave's session, as the first one has.
TEST(Keyring, HooksInTheEnclaveDoNotHaveTheCallersKeysEither) {
  Node node;
  std::string tool = HOBBES_BUILD_DIR "/tests/security/keyring",
              run = HOBBES_BUILD_DIR "/bin/hobbes-run";
  std::string bundle = node.busybox_bundle("b", "true", no_lease());
  node.good({"cp", tool, bundle + "/rootfs/bin"});
  edit(bundle, [](Json& config) {
    config["hooks"]["startContainer"] = {
        {{"path", "/bin/sh"}, {"args", {"sh", "-c", "/bin/keyring hobbes-test >&2; exit 1"}}}};
  });
  Outcome outcome =
      node.run({tool, "hobbes-test", "a key of the caller", run, "run", "--bundle", bundle, "a"});
  EXPECT_FALSE(holds(outcome.err, "of the caller")) << outcome.err;
  node.run({"hobbes-run", "delete", "--force", "a"});
}

}  // namespace
}  // namespace hobbes::test
