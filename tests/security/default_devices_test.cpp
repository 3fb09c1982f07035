// What a bundle says nothing about is denied: without device rules an enclave uses the standard
// devices and no other, and a host-root enclave reaches none of the host's services by their
// sockets.
#include <sys/socket.h>
#include <sys/un.h>

#include "attack.h"
#include "core/fd.h"
#include "ipc/message_socket.h"

namespace hobbes::test {
namespace {

const std::string standard =
    "for d in null zero full random urandom; do (: < /dev/$d) || echo no $d; done; "
    "(: > /dev/null) || echo no writing to null; ";

// Makes each device and opens it, in a folder that allows devices.
const std::string make_and_open =
    "try() { busybox mknod /dev/x $1 $2 $3 && { (: < /dev/x) 2>/dev/null && echo opened $1 $2:$3; "
    "busybox rm /dev/x; }; }; "
    "try b 7 0; try b 7 1; try c 10 237; try c 10 232; try c 10 229; try c 10 200; try c 1 1; try "
    "c 4 0; ";

std::string bundle_of(const Node& node, const std::string& name) {
  std::string bundle = node.busybox_bundle(name, standard + make_and_open + "true", no_lease());
  edit(bundle, [](Json& config) {
    for (const char* set : {"bounding", "effective", "permitted"})
      config["process"]["capabilities"][set].push_back("CAP_MKNOD");
  });
  return bundle;
}

TEST(DefaultDevices, AnEnclaveWithoutRulesUsesTheStandardDevicesAndNoOther) {
  Node node;
  std::string bundle = bundle_of(node, "b");
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "absent"}), "");
  edit(bundle, [](Json& config) { config["linux"]["resources"] = Json::object(); });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "empty"}), "");
  edit(bundle, [](Json& config) { config["linux"]["resources"]["devices"] = Json::array(); });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "none"}), "");
  edit(bundle, [](Json& config) {
    config["linux"]["resources"]["devices"] = {
        {{"allow", true}, {"type", "c"}, {"major", 10}, {"minor", 237}, {"access", "rw"}}};
  });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "one"}), "opened c 10:237\n")
      << "a rule that allows one allows only that one";
  node.expect_clean();
}

TEST(DefaultDevices, AHostRootEnclaveUsesTheStandardDevicesAndNoOther) {
  Node node;
  std::string script =
      standard +
      "for d in loop-control loop0 loop1 kvm fuse vda sda mem kmsg tty1 ttyS0 net/tun; do "
      "[ -e /dev/$d ] && (: < /dev/$d) 2>/dev/null && echo opened $d; done; "
      "(: <> /dev/loop0) 2>/dev/null && echo opened loop0 for writing; true";
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", node.bundle("b", script), "a"}), "");
  node.expect_clean();
}

TEST(DefaultDevices, AProgramOfExecUsesNoOtherEither) {
  Node node;
  ASSERT_EQ(node.create("a", node.bundle("b", "exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "sh", "-c",
                       "(: < /dev/loop-control) 2>/dev/null && echo opened; true"}),
            "");
  node.good({"hobbes-run", "delete", "--force", "a"});
}

// A read-only mount keeps nobody from connecting.
TEST(DefaultDevices, AHostRootEnclaveReachesNoSocketOfTheHost) {
  Node node;
  std::string folder = "/run" + node.folder().substr(node.folder().rfind('/'));
  ASSERT_TRUE(make_directories(folder));
  for (const char* name : {"service.sock", "deep/service.sock"}) {
    std::string path = folder + "/" + name;
    ASSERT_TRUE(make_directories(path.substr(0, path.rfind('/'))));
    auto listening = listen_at(path, 0666, SOCK_STREAM);
    ASSERT_TRUE(listening);
    std::string script =
        "python3 -c 'import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "print(\"connected\")' " +
        path + " 2>/dev/null; true";
    EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", node.bundle("b", script), "a"}), "")
        << path;
  }
  EXPECT_TRUE(remove_tree(folder));
  // hobbesd's own socket is there, for those who may manage.
  std::string own = "export HOBBES_RUN_DIR=" + node.run_folder() +
                    "; exec " HOBBES_BUILD_DIR "/bin/hobbes node --json";
  EXPECT_TRUE(holds(node.good({"hobbes-run", "run", "--bundle", node.bundle("own", own), "own"}),
                    "daemon"));
}

TEST(DefaultDevices, TheManagersLogIsNotForOthers) {
  Node node;
  node.wake_daemon();
  struct stat info {};
  ASSERT_EQ(::stat((node.run_folder() + "/hobbesd.log").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0640U);
}

}  // namespace
}  // namespace hobbes::test
