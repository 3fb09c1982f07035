// hobbesd's folder is shown to enclaves so that they find the mirror and the control socket. What
// else is in it belongs to other enclaves.
#include "attack.h"

namespace hobbes::test {
namespace {

class NodeFolder : public ::testing::Test {
 protected:
  NodeFolder() {
    // Another enclave, whose configuration has a secret, and which waits to be started.
    std::string other = node.busybox_bundle("other", "echo started > /tmp/started; exec sleep 1000",
                                            no_lease_writable());
    edit(other,
         [](Json& config) { config["process"]["env"].push_back("SECRET=of-another-enclave"); });
    EXPECT_EQ(node.create("other", other).wait_status, 0);
  }
  ~NodeFolder() override { node.run({"hobbes-run", "delete", "--force", "other"}); }
  // An enclave of root without any grant, with an image or with the host's tree.
  std::string bundle_of(bool host_root, const std::string& script) const {
    Json patch = {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}, {"manage", "none"}}}};
    return host_root ? node.bundle("host-root", script, patch)
                     : node.busybox_bundle("image", script, patch);
  }
  Node node;
};

TEST_F(NodeFolder, AnEnclaveReadsNothingOfOthers) {
  for (bool host_root : {false, true}) {
    std::string place = host_root ? node.run_folder() : "/run/hobbes";
    std::string script = "cat " + place + "/enclaves/other/* " + place + "/logs/* 2>/dev/null | " +
                         (host_root ? "" : "busybox ") + "grep -c SECRE[T]; true";
    EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle_of(host_root, script), "a"}),
              "0\n")
        << (host_root ? "host-root" : "image");
  }
}

TEST_F(NodeFolder, AnEnclaveCannotStartAnother) {
  std::string path = node.run_folder() + "/enclaves/other/", sockets = "find " + path + " -type s";
  std::string socket = node.good({"sh", "-c", sockets + " | head -n 1 | tr -d '\\n'"});
  ASSERT_FALSE(socket.empty());
  std::string text =
      "import "
      "socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\ns.connect(sys.argv[1])"
      "\ns.settimeout(5)\n"
      "print('connected')\ns.recv(1000)";
  std::string bundle = bundle_of(true, "");
  edit(bundle, [&](Json& config) { config["process"]["args"] = {"python3", "-c", text, socket}; });
  EXPECT_EQ(node.run({"hobbes-run", "run", "--bundle", bundle, "a"}).out, "");
  EXPECT_TRUE(holds(node.good({"hobbes-run", "state", "other"}), "\"created\""));
  EXPECT_FALSE(Files::system().exists(node.folder() + "/other/rootfs/tmp/started"));
}

}  // namespace
}  // namespace hobbes::test
