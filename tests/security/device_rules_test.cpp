// Device rules decide in their order, what the image has under a device's name is no device, and
// devices are made where the bundle says, by nobody's leave.
#include <sys/sysmacros.h>

#include "attack.h"

namespace hobbes::test {
namespace {

constexpr unsigned control_major = 10,
                   control_minor = 237;  // loop-control: opening it does nothing

Json rule(bool allow, const char* access = "rwm") {
  return {{"allow", allow},
          {"type", "c"},
          {"major", control_major},
          {"minor", control_minor},
          {"access", access}};
}
Json deny_all() { return {{"allow", false}, {"access", "rwm"}}; }
Json allow_all() { return {{"allow", true}, {"access", "rwm"}}; }

TEST(DeviceRules, TheirOrderDecidesAlsoForDevicesThatTheBundleLists) {
  Node node;
  std::string script =
      "(: < /dev/listed) 2>/dev/null && echo -n r; (: <> /dev/listed) 2>/dev/null && echo -n w; (: "
      "> /dev/null) || echo no null; true";
  struct Case {
    const char* name;
    Json rules;
    const char* can;
  };
  for (const Case& c :
       std::vector<Case>{{"deny-all", {deny_all()}, ""},
                         {"none", Json::array(), ""},
                         {"deny-then-allow", {deny_all(), rule(true)}, "rw"},
                         {"allow-then-deny", {deny_all(), rule(true), rule(false)}, ""},
                         {"allow-then-deny-all", {rule(true), deny_all()}, ""},
                         {"all-but-one", {allow_all(), rule(false)}, ""},
                         {"reading-only", {deny_all(), rule(true, "r")}, "r"},
                         {"all-but-writing", {deny_all(), rule(true), rule(false, "w")}, "r"}}) {
    std::string bundle = node.busybox_bundle(c.name, script, no_lease());
    edit(bundle, [&](Json& config) {
      config["linux"]["devices"] = {{{"path", "/dev/listed"},
                                     {"type", "c"},
                                     {"major", control_major},
                                     {"minor", control_minor},
                                     {"fileMode", 0666}}};
      config["linux"]["resources"]["devices"] = c.rules;
    });
    EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, c.name}), c.can) << c.name;
  }
  node.expect_clean();
}

TEST(DeviceRules, AnExistingFileOfTheImageIsNotTakenForADevice) {
  Node node;
  int number = 0;
  for (const char* path : {"/dev/zero", "/dev/listed"})
    for (const char* kind : {"file", "link", "link-to-nothing", "other-device", "folder", "pipe"}) {
      std::string name = "b" + std::to_string(++number), as = kind;
      std::string bundle =
          node.busybox_bundle(name,
                              "[ -L " + std::string(path) +
                                  " ] && echo a link; busybox stat -L -c '%F %t:%T %a' " + path,
                              no_lease_writable());
      edit(bundle, [&](Json& config) {
        keep_mounts(config, [](const std::string& at) { return at == "/proc"; });
        config["linux"].erase("maskedPaths");
        config["linux"]["devices"] = {{{"path", "/dev/listed"},
                                       {"type", "c"},
                                       {"major", 1},
                                       {"minor", 5},
                                       {"fileMode", 0666}}};
      });
      std::string file = bundle + "/rootfs" + path;
      ASSERT_TRUE(make_directories(bundle + "/rootfs/dev"));
      ASSERT_TRUE(replace_file(bundle + "/rootfs/etc/target", "of the image"));
      if (as == "file") {
        ASSERT_TRUE(replace_file(file, "of the image"));
      } else if (as == "link") {
        ASSERT_EQ(::symlink("/etc/target", file.c_str()), 0);
      } else if (as == "link-to-nothing") {
        ASSERT_EQ(::symlink("/etc/new", file.c_str()), 0);
      } else if (as == "other-device") {
        ASSERT_EQ(::mknod(file.c_str(), S_IFCHR | 0666, makedev(1, 9)), 0);
      } else if (as == "pipe") {
        ASSERT_EQ(::mkfifo(file.c_str(), 0666), 0);
      } else {
        ASSERT_EQ(::mkdir(file.c_str(), 0755), 0);
      }
      Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name}, 30);
      bool refused = outcome.out.empty() && holds(outcome.err, path);
      EXPECT_TRUE(refused || outcome.out == "character special file 1:5 666\n")
          << path << " is a " << kind << ": " << outcome.out << outcome.err;
    }
  node.expect_clean();
}

TEST(DeviceRules, TheOwnerOfADeviceIsNeverGivenToAFileOfTheHost) {
  Node node;
  std::string volume = node.folder() + "/volume", victim = node.folder() + "/victim";
  ASSERT_TRUE(make_directories(volume));
  ASSERT_TRUE(replace_file(victim, "of the host", 0600));
  std::string bundle = node.busybox_bundle("b", "true", no_lease());
  edit(bundle, [&](Json& config) {
    config["mounts"].push_back(volume_at(volume, "/vol", "rw"));
    std::string path = "/vol";
    for (int i = 0; i < 64; ++i, path += "/.")  // one name, many chances
      config["linux"]["devices"].push_back({{"path", path + "/device"},
                                            {"type", "c"},
                                            {"major", 1},
                                            {"minor", 3},
                                            {"uid", 1234},
                                            {"gid", 1234}});
  });
  std::string device = volume + "/device", link = volume + "/link";
  // Removes the name, and puts a link to the host's file there as soon as it may have been made.
  Racer racer([&] {
    ::unlink(device.c_str());
    (void)::symlink(victim.c_str(), link.c_str());
    ::rename(link.c_str(), device.c_str());
  });
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    node.run({"hobbes-run", "run", "--bundle", bundle, "a" + std::to_string(i)});
    struct stat info {};
    ASSERT_EQ(::stat(victim.c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0U) << "after " << i + 1 << " starts";
  }
}

// Where devices cannot be made, the host's own is mounted: that one, and not whatever has its name.
TEST(DeviceRules, InAUserNamespaceADeviceIsTheHostsDeviceAndNoOtherFile) {
  Node node;
  ::chmod(node.folder().c_str(), 0755);
  std::string file = node.folder() + "/file";
  ASSERT_TRUE(replace_file(file, "of the host\n", 0644));
  int number = 0;
  for (const std::string& path : {file, std::string("/dev/urandom"), std::string("/dev/renamed")}) {
    std::string name = "b" + std::to_string(++number);
    std::string bundle =
        node.busybox_bundle(name, "busybox stat -c '%F %t:%T' " + path, no_lease_writable());
    edit(bundle, [&](Json& config) {
      config["linux"]["namespaces"].push_back({{"type", "user"}});
      config["linux"]["uidMappings"] = {{{"containerID", 0}, {"hostID", 100000}, {"size", 1000}}};
      config["linux"]["gidMappings"] = config["linux"]["uidMappings"];
      config["linux"]["devices"] = {{{"path", path}, {"type", "c"}, {"major", 1}, {"minor", 5}}};
    });
    node.good({"chown", "-R", "100000:100000", bundle + "/rootfs"});
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    bool refused = outcome.out.empty() && holds(outcome.err, path);
    EXPECT_TRUE(refused || outcome.out == "character special file 1:5\n")
        << path << ": " << outcome.out << outcome.err;
  }
  node.expect_clean();
}

TEST(DeviceRules, DevicesAreMadeWhereTheBundleSays) {
  Node node;
  int number = 0;
  for (const char* path : {"/nul", "/opt/deep/nul", "/dev/deep/nul"}) {
    std::string name = "b" + std::to_string(++number);
    std::string bundle = node.busybox_bundle(
        name, "busybox stat -c '%F %t:%T' " + std::string(path), no_lease_writable());
    edit(bundle, [&](Json& config) {
      config["linux"]["devices"] = {{{"path", path}, {"type", "c"}, {"major", 1}, {"minor", 3}}};
    });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    EXPECT_EQ(outcome.out, "character special file 1:3\n") << path << ": " << outcome.err;
  }
  node.expect_clean();
}

TEST(DeviceRules, AReadOnlyDevHasItsDevicesAllTheSame) {
  Node node;
  std::string bundle = node.busybox_bundle(
      "b",
      "for d in null zero full random urandom tty ptmx fd shm mqueue pts listed; do [ -e /dev/$d ] "
      "|| echo no $d; done; "
      "echo x > /dev/null && echo written; touch /dev/x 2>&1; touch /dev/shm/x && echo made",
      no_lease());
  edit(bundle, [](Json& config) {
    for (Json& mount : config["mounts"])
      if (text_at(mount, "destination") == "/dev") mount["options"].push_back("ro");
    config["linux"]["devices"] = {
        {{"path", "/dev/listed"}, {"type", "c"}, {"major", 1}, {"minor", 3}}};
  });
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_EQ(outcome.out, "written\ntouch: /dev/x: Read-only file system\nmade\n") << outcome.err;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
