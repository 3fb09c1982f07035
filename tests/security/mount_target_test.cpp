// Where a mount goes: into the root, whatever links the image has there, made if it is missing; and
// the mount that was made is the one that gets its options, even when folders are moved meanwhile.
#include <sys/mount.h>

#include "attack.h"

namespace hobbes::test {
namespace {

struct Target {
  const char *name, *link, *to, *destination;
};

// Links that lead nowhere, as distributions ship them; the part that is missing is made inside the
// root.
constexpr Target dangling[] = {
    {"resolv", "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf"},
    {"localtime", "etc/localtime", "/usr/share/zoneinfo/Europe/Berlin", "/etc/localtime"},
    {"middle-absolute", "var/run", "/run", "/var/run/app/socket"},
    {"middle-relative", "var/run", "../run/here", "/var/run/app/socket"},
    {"first", "opt", "usr/opt", "/opt/tool/config"},
    {"outwards", "etc/out", "../../../../../../../../../../tmp/hobbes-escaped/file", "/etc/out"},
    {"outwards-middle", "etc/out", "/../../../tmp/hobbes-escaped", "/etc/out/file"},
    {"through-another", "etc/one", "/etc/two/three", "/etc/one"},  // etc/two leads nowhere either
};

TEST(MountTarget, ALinkThatLeadsNowhereIsFollowedInsideTheRootAndMade) {
  Node node;
  for (const char* kind : {"file", "folder", "tmpfs"}) {
    std::string source = node.folder() + "/source";
    ASSERT_TRUE(make_directories(source));
    ASSERT_TRUE(replace_file(source + "/content", "from outside\n"));
    for (const Target& target : dangling) {
      std::string as = kind, name = as + "-" + target.name, destination = target.destination;
      std::string look = as == "file"     ? "cat " + destination
                         : as == "folder" ? "cat " + destination + "/content"
                                          : "grep -q \" $(busybox readlink -f " + destination +
                                                ") tmpfs\" /proc/mounts && echo from outside";
      std::string bundle = node.busybox_bundle(name, look, no_lease_writable());
      std::string root = bundle + "/rootfs/";
      ASSERT_EQ(::symlink("busybox", (root + "bin/grep").c_str()), 0);
      ASSERT_TRUE(make_directories(root + "var"));
      ASSERT_EQ(::symlink(target.to, (root + target.link).c_str()), 0);
      if (std::string(target.name) == "through-another") {
        ASSERT_EQ(::symlink("../srv/two", (root + "etc/two").c_str()), 0);
      }
      edit(bundle, [&](Json& config) {
        if (as == "tmpfs")
          config["mounts"].push_back(
              {{"destination", destination}, {"type", "tmpfs"}, {"source", "tmpfs"}});
        else
          config["mounts"].push_back(
              volume_at(as == "file" ? source + "/content" : source, destination, "ro"));
      });
      Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
      EXPECT_EQ(outcome.out, "from outside\n") << name << ": " << outcome.err;
      EXPECT_EQ(read_link(root + target.link).value_or(""), target.to)
          << name << ": the image's link stays";
      EXPECT_FALSE(Files::system().exists("/tmp/hobbes-escaped"))
          << name << " was made outside of the root";
    }
  }
  node.expect_clean();
}

TEST(MountTarget, AWorkingDirectoryThatIsMissingIsMadeInsideTheRoot) {
  Node node;
  int number = 0;
  for (bool readonly : {false, true})
    for (unsigned user : {0U, 1000U})
      for (const char* cwd : {"/one", "/one/two/three", "/tmp/one/two", "/linked/one/two"}) {
        std::string name = "b" + std::to_string(++number), wanted = cwd;
        std::string bundle =
            node.busybox_bundle(name, "pwd -P; busybox stat -c '%u:%g %a' .", no_lease());
        ASSERT_EQ(::symlink("/srv", (bundle + "/rootfs/linked").c_str()), 0);
        ASSERT_TRUE(make_directories(bundle + "/rootfs/srv"));
        edit(bundle, [&](Json& config) {
          config["root"]["readonly"] = readonly;
          config["process"]["cwd"] = cwd;
          config["process"]["user"] = {{"uid", user}, {"gid", user}};
        });
        if (wanted.rfind("/linked", 0) == 0) wanted = "/srv/one/two";
        Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
        EXPECT_EQ(outcome.out, wanted + "\n0:0 755\n")
            << cwd << (readonly ? " read-only" : "") << ": " << outcome.err;
      }
  node.expect_clean();
}

// The folder of hobbesd, too: it is mounted in the root and then made read-only by the same mount.
TEST(MountTarget, AnImageWhoseRunIsALinkSeesTheNodeReadOnly) {
  Node node;
  int number = 0;
  for (const char* to : {"srv", "/srv", "/missing/run", "../../srv"}) {
    std::string name = "b" + std::to_string(++number);
    std::string bundle =
        node.busybox_bundle(name, "ls /run/hobbes/nis && touch /run/hobbes/made 2>&1",
                            {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}});
    ASSERT_TRUE(make_directories(bundle + "/rootfs/srv"));
    ASSERT_EQ(::symlink(to, (bundle + "/rootfs/run").c_str()), 0);
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    EXPECT_TRUE(holds(outcome.out, "Read-only file system"))
        << "/run -> " << to << ": " << outcome.out << outcome.err;
  }
  node.expect_clean();
}

// The same link leads to another mount when it is followed outside of the root. That one must not
// be made read-only in place of hobbesd's folder, which its enclave could then write to.
TEST(MountTarget, AnImageCannotHaveAnotherMountMadeReadOnlyInPlaceOfTheNodes) {
  Node node;
  std::string other =
      node.folder() + "/lib/hobbes";  // a file system of its own, as /var/lib/hobbes may be
  ASSERT_TRUE(make_directories(other));
  ASSERT_EQ(::mount(other.c_str(), other.c_str(), nullptr, MS_BIND, nullptr), 0);
  std::string bundle = node.busybox_bundle("b", "touch /run/hobbes/made && echo made",
                                           {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}});
  std::string inside = node.folder() + "/lib";
  ASSERT_TRUE(make_directories(bundle + "/rootfs" + inside));
  ASSERT_EQ(::symlink(inside.c_str(), (bundle + "/rootfs/run").c_str()), 0);
  EXPECT_EQ(node.run({"hobbes-run", "run", "--bundle", bundle, "a"}).out, "");
  EXPECT_FALSE(Files::system().exists(node.run_folder() + "/made"))
      << "hobbesd's folder was written to";
  EXPECT_EQ(::umount2(other.c_str(), MNT_DETACH), 0);
}

// Two volumes in folders of a third, one of them read-only; the third's owner swaps the folders.
TEST(MountTarget, TheMountThatWasMadeGetsTheOptionsThoughFoldersAreSwapped) {
  Node node;
  std::string shared = node.folder() + "/shared", open = node.folder() + "/open",
              closed = node.folder() + "/closed";
  for (const std::string& path : {shared + "/a/data", shared + "/b/data", open, closed})
    ASSERT_TRUE(make_directories(path));
  std::string bundle = node.busybox_bundle(
      "b", "busybox grep ' " + closed + " ' /proc/self/mountinfo | busybox cut -d' ' -f6",
      no_lease());
  edit(bundle, [&](Json& config) {
    config["mounts"].push_back(volume_at(shared, "/shared", "rw"));
    config["mounts"].push_back(volume_at(open, "/shared/a/data", "rw"));
    config["mounts"].push_back(volume_at(closed, "/shared/b/data", "ro"));
  });
  Racer racer([&] { swap_names(shared + "/a", shared + "/b"); });
  int started = 0;
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a" + std::to_string(i)});
    if (outcome.wait_status != 0) continue;
    ++started;
    EXPECT_EQ(outcome.out.substr(0, 2), "ro")
        << "after " << i + 1 << " starts the read-only volume is " << outcome.out;
  }
  EXPECT_GT(started, 0);
}

// tmpcopyup copies what the image has there; what somebody puts in its place meanwhile is not the
// image's.
TEST(MountTarget, WhatIsCopiedIntoANewFileSystemComesFromTheRoot) {
  Node node;
  std::string shared = node.folder() + "/shared", host = node.folder() + "/host";
  ASSERT_TRUE(make_directories(host));
  ASSERT_TRUE(replace_file(host + "/word", "a secret of the host\n"));
  ASSERT_TRUE(make_directories(shared + "/data/folder"));
  ASSERT_EQ(::symlink(host.c_str(), (shared + "/other").c_str()), 0);
  std::string bundle = node.busybox_bundle(
      "b", "cat /shared/data/folder/word /shared/data/other/word 2>/dev/null; true", no_lease());
  edit(bundle, [&](Json& config) {
    config["mounts"].push_back(volume_at(shared, "/shared", "rw"));
    config["mounts"].push_back({{"destination", "/shared/data"},
                                {"type", "tmpfs"},
                                {"source", "tmpfs"},
                                {"options", {"tmpcopyup"}}});
  });
  Racer racer([&] { swap_names(shared + "/data/folder", shared + "/other"); });
  for (int i = 0; i < 300 && !HasFailure(); ++i)
    EXPECT_EQ(node.run({"hobbes-run", "run", "--bundle", bundle, "a" + std::to_string(i)}).out, "")
        << "after " << i + 1 << " starts";
}

}  // namespace
}  // namespace hobbes::test
