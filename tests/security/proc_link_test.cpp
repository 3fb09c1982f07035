// The class of CVE-2019-16884, CVE-2019-19921, CVE-2023-27561 and CVE-2025-52881: an image or a
// shared volume that decides where /proc and /sys are, so that they are left open, or that the
// runtime's own writes to the kernel go elsewhere.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "attack.h"
#include "core/fd.h"
#include "ipc/message_socket.h"

namespace hobbes::test {
namespace {

// Where the kernel's parameters may be found, and which of them a program could change.
const std::string doors = tell_writable(
    "/proc/sys/kernel/core_pattern /moved/sys/kernel/core_pattern /vol/a/sys/kernel/core_pattern "
    "/vol/b/sys/kernel/core_pattern /proc/sysrq-trigger /moved/sysrq-trigger /vol/a/sysrq-trigger "
    "/vol/b/sysrq-trigger");

TEST(ProcLink, AnImageWhoseProcOrSysIsALinkIsRefused) {
  Node node;
  int number = 0;
  for (const char* place : {"proc", "sys"})
    for (const char* target : {"elsewhere", "/elsewhere", "tmp/../elsewhere", "/nowhere/below"}) {
      std::string name = "b" + std::to_string(++number);
      std::string bundle = node.busybox_bundle(name, "echo ran", no_lease_writable());
      ASSERT_TRUE(make_directories(bundle + "/rootfs/elsewhere"));
      std::string link = bundle + "/rootfs/" + place;
      ::rmdir(link.c_str());
      ASSERT_EQ(::symlink(target, link.c_str()), 0);
      Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
      EXPECT_NE(outcome.wait_status, 0) << "/" << place << " -> " << target << ": " << outcome.out;
      EXPECT_EQ(outcome.out, "") << "the program must not run";
      EXPECT_TRUE(holds(outcome.err, "/" + std::string(place))) << outcome.err;
      EXPECT_TRUE(holds(outcome.err, "link") || holds(outcome.err, "directory"))
          << "it says why: " << outcome.err;
    }
  node.expect_clean();
}

TEST(ProcLink, AProcOnASharedVolumeWhoseFoldersAreSwappedIsNeverLeftOpen) {
  Node node;
  std::string volume = node.folder() + "/volume";
  ASSERT_TRUE(make_directories(volume + "/a") && make_directories(volume + "/b"));
  std::string bundle = node.busybox_bundle("b", doors, no_lease_writable());
  ::rmdir((bundle + "/rootfs/proc").c_str());
  ASSERT_EQ(::symlink("vol/a", (bundle + "/rootfs/proc").c_str()), 0);
  edit(bundle, [&](Json& config) {
    config["mounts"].insert(config["mounts"].begin(), volume_at(volume, "/vol", "rw"));
  });
  Racer racer([&] { swap_names(volume + "/a", volume + "/b"); });
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a" + std::to_string(i)});
    EXPECT_EQ(outcome.out, "") << "after " << i + 1 << " starts";
  }
}

// The same without luck: a hook stands in for the neighbour who is quick enough.
TEST(ProcLink, AProcThatMovesBeforeItIsSealedIsSealedOrRefused) {
  Node node;
  std::string bundle = node.busybox_bundle("b", doors, no_lease_writable());
  std::string root = bundle + "/rootfs";
  std::string script = "mv " + root + "/proc " + root + "/moved && mkdir " + root + "/proc";
  edit(bundle, [&](Json& config) {
    config["hooks"]["createRuntime"] = {{{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}}};
  });
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_EQ(outcome.out, "") << outcome.err;
  node.expect_clean();
}

TEST(ProcLink, AParameterGoesToTheKernelAndNeverIntoAFileOfTheImage) {
  Node node;
  for (const char* kind : {"image", "volume", "link"}) {
    std::string name = kind;
    std::string bundle = node.busybox_bundle(name, "true", no_lease_writable());
    std::string folder = bundle + "/rootfs/proc/sys/net/ipv4";
    if (name == "volume") folder = node.folder() + "/planted";
    ASSERT_TRUE(make_directories(folder));
    std::string file = folder + "/ip_default_ttl", target = bundle + "/rootfs/etc/target";
    ASSERT_TRUE(replace_file(name == "link" ? target : file, "planted"));
    if (name == "link") {
      ASSERT_EQ(::symlink("/etc/target", file.c_str()), 0);
    }
    edit(bundle, [&](Json& config) {
      config["linux"]["sysctl"] = {{"net.ipv4.ip_default_ttl", "63"}};
      if (name == "volume") {
        config["mounts"].push_back(volume_at(folder, "/proc/sys/net/ipv4", "rw"));
      } else {
        config["mounts"] = Json::array();
      }
    });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    EXPECT_TRUE(outcome.wait_status == 0 || !outcome.err.empty())
        << "it may be set in the kernel all the same: " << name;
    EXPECT_EQ(Files::system().read(name == "link" ? target : file).value_or(""), "planted") << name;
  }
  node.expect_clean();
}

TEST(ProcLink, APipeOfTheImageInPlaceOfAParameterKeepsNobodyWaiting) {
  Node node;
  std::string bundle = node.busybox_bundle("b", "true", no_lease_writable());
  std::string folder = bundle + "/rootfs/proc/sys/net/ipv4";
  ASSERT_TRUE(make_directories(folder));
  ASSERT_EQ(::mkfifo((folder + "/ip_default_ttl").c_str(), 0666), 0);
  edit(bundle, [&](Json& config) {
    config["linux"]["sysctl"] = {{"net.ipv4.ip_default_ttl", "63"}};
    config["mounts"] = Json::array();
  });
  (void)node.run({"hobbes-run", "run", "--bundle", bundle, "a"},
                 15);  // which fails the test when it takes longer
}

TEST(ProcLink, AnOutOfMemoryScoreGoesToTheKernelAndNeverIntoAFileOfTheImage) {
  Node node;
  std::string bundle = node.busybox_bundle("b", "exec sleep 100", no_lease_writable());
  ASSERT_TRUE(make_directories(bundle + "/rootfs/proc/self"));
  std::string file = bundle + "/rootfs/proc/self/oom_score_adj";
  ASSERT_TRUE(replace_file(file, "planted"));
  edit(bundle, [&](Json& config) {
    config["process"]["oomScoreAdj"] = 321;
    config["mounts"] = Json::array();
  });
  Outcome created = node.create("a", bundle);
  EXPECT_EQ(Files::system().read(file).value_or(""), "planted");
  if (created.wait_status == 0) {  // then it was really set
    auto state = parse_json(node.good({"hobbes-run", "state", "a"}), "state");
    ASSERT_TRUE(state);
    std::string pid = std::to_string(number_at(*state, "pid"));
    EXPECT_EQ(Files::system().read("/proc/" + pid + "/oom_score_adj").value_or(""), "321\n");
  }
  node.run({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

// A listener at a console socket, which takes the terminals and closes them.
class Consoles {
 public:
  explicit Consoles(const std::string& path) : listening_(*listen_at(path, 0600, SOCK_STREAM)) {}
  void drain() const {
    pollfd one{listening_.get(), POLLIN, 0};
    while (::poll(&one, 1, 0) > 0)
      Fd taken(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  Fd listening_;
};

// The class of CVE-2025-52565: the terminal is mounted at /dev/console by its name, and the name
// leads to another file by then. The volume stands for /dev; its owner swaps what "pts/0" is.
TEST(ProcLink, ATerminalIsTheOneThatWasMadeWhateverItsNameSaysLater) {
  Node node;
  std::string volume = node.folder() + "/volume", pts = volume + "/pts";
  ASSERT_TRUE(make_directories(pts) && make_directories(volume + "/real"));
  ASSERT_EQ(::symlink("/dev/real/ptmx", (pts + "/ptmx").c_str()), 0);
  ASSERT_EQ(::symlink("/dev/real/0", (pts + "/0").c_str()), 0);
  // A number: should words go there by mistake, the kernel refuses them.
  ASSERT_EQ(::symlink("/proc/sys/vm/admin_reserve_kbytes", (volume + "/other").c_str()), 0);
  std::string bundle = node.busybox_bundle(
      "b", "(" + tell_writable("/dev/console") + ") > /tmp/new; busybox mv /tmp/new /tmp/found",
      no_lease_writable());
  edit(bundle, [&](Json& config) {
    keep_mounts(config, [](const std::string& at) { return at == "/proc"; });
    config["mounts"].push_back(volume_at(volume, "/dev", "rw"));
    config["mounts"].push_back({{"destination", "/dev/real"},
                                {"type", "devpts"},
                                {"source", "devpts"},
                                {"options", {"newinstance", "ptmxmode=0666", "mode=0620"}}});
    config["process"]["terminal"] = true;
  });
  Consoles consoles(node.folder() + "/console");
  std::string found = bundle + "/rootfs/tmp/found";
  Racer racer([&] { swap_names(pts + "/0", volume + "/other"); });
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    std::string id = "a" + std::to_string(i);
    ::unlink(found.c_str());
    Outcome created = node.run({"hobbes-run", "create", "--bundle", bundle, "--console-socket",
                                node.folder() + "/console", id});
    if (created.wait_status == 0) {
      node.good({"hobbes-run", "start", id});
      EXPECT_TRUE(eventually([&] { return Files::system().exists(found); })) << id;
      node.run({"hobbes-run", "delete", "--force", id});
    }
    consoles.drain();
    EXPECT_EQ(Files::system().read(found).value_or(""), "") << "after " << i + 1 << " starts";
  }
}

}  // namespace
}  // namespace hobbes::test
