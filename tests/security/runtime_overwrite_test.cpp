// The class of CVE-2019-5736 and CVE-2016-9962: a process that enters an enclave is seen from
// inside, and so are the file of its program and whatever else it holds.
//
// The attacks are real, so they are made against copies of the programs, in a folder that each test
// makes.
#include "attack.h"

namespace hobbes::test {
namespace {

class RuntimeOverwrite : public ::testing::Test {
 protected:
  RuntimeOverwrite() {
    EXPECT_TRUE(make_directories(copies));
    for (const char* name : {"hobbes-run", "remora"})
      node.good({"cp", HOBBES_BUILD_DIR "/bin/" + std::string(name), copies});
    for (const char* name : {"hobbesd", "../lib", "../libexec"})  // found beside the program
      EXPECT_EQ(::symlink((HOBBES_BUILD_DIR "/bin/" + std::string(name)).c_str(),
                          (copies + "/" + name).c_str()),
                0);
    // An enclave of root, whose first process is the attacker.
    bundle = node.busybox_bundle("attacker", "", no_lease_writable());
    node.good({"cp", HOBBES_BUILD_DIR "/tests/security/overwriter", bundle + "/rootfs/bin"});
    edit(bundle, [](Json& config) {
      config["process"]["args"] = {"/bin/overwriter", "/tmp", "/bin/busybox"};
    });
  }
  // The enclave, in which "true" is what the attacker made of it.
  void begin(const std::string& what_true_is = "") {
    std::string program = bundle + "/rootfs/bin/true";
    if (!what_true_is.empty()) {
      ::unlink(program.c_str());
      if (what_true_is[0] == '#') {
        ASSERT_TRUE(replace_file(program, what_true_is + "\n", 0755));
      } else {
        ASSERT_EQ(::symlink(what_true_is.c_str(), program.c_str()), 0);
      }
    }
    ASSERT_EQ(node.create("attacker", bundle).wait_status, 0);
    node.good({"hobbes-run", "start", "attacker"});
    ASSERT_TRUE(eventually([&] { return Files::system().exists(bundle + "/rootfs/tmp/ready"); }));
  }
  // Nobody executes the copies any more: the attacker may now try what he holds.
  void expect_unharmed(const std::string& name) {
    ASSERT_TRUE(replace_file(bundle + "/rootfs/tmp/stop", ""));
    std::string report = bundle + "/rootfs/tmp/report";
    EXPECT_TRUE(eventually([&] { return Files::system().exists(report); }, 30));
    EXPECT_EQ(node.run({"cmp", HOBBES_BUILD_DIR "/bin/" + name, copies + "/" + name}).wait_status,
              0)
        << name << " of the host was written to: " << Files::system().read(report).value_or("");
    node.good({"hobbes-run", "delete", "--force", "attacker"});
  }
  Node node;
  std::string copies = node.folder() + "/programs/bin", bundle;
};

TEST_F(RuntimeOverwrite, AProgramThatIsALinkToWhoExecutesItDoesNotGiveTheRuntimeAway) {
  begin("/proc/self/exe");
  for (int i = 0; i < 30; ++i) node.run({copies + "/hobbes-run", "exec", "attacker", "/bin/true"});
  expect_unharmed("hobbes-run");
}

TEST_F(RuntimeOverwrite, AScriptWhoseInterpreterIsWhoExecutesItDoesNotGiveTheRuntimeAway) {
  begin("#!/proc/self/exe");
  for (int i = 0; i < 30; ++i) node.run({copies + "/hobbes-run", "exec", "attacker", "/bin/true"});
  expect_unharmed("hobbes-run");
}

TEST_F(RuntimeOverwrite, AnOrdinaryExecDoesNotGiveTheRuntimeAwayBetweenItsLastCalls) {
  begin();
  for (int i = 0; i < 50; ++i) node.good({copies + "/hobbes-run", "exec", "attacker", "/bin/true"});
  expect_unharmed("hobbes-run");
}

TEST_F(RuntimeOverwrite, AnEnclaveMadeInTheAttackersPidNamespaceDoesNotGiveTheRuntimeAway) {
  begin();
  auto state = parse_json(node.good({"hobbes-run", "state", "attacker"}), "state");
  ASSERT_TRUE(state);
  std::string pid = std::to_string(number_at(*state, "pid"));
  std::string other = node.busybox_bundle("other", "", no_lease());
  edit(other, [&](Json& config) {
    set_namespace(config, "pid", "/proc/" + pid + "/ns/pid");
    config["process"]["args"] = {"/proc/self/exe", "--version"};
  });
  for (int i = 0; i < 10; ++i)
    node.run({copies + "/hobbes-run", "run", "--bundle", other, "other"});
  expect_unharmed("hobbes-run");
}

TEST_F(RuntimeOverwrite, ACompositionInAnEnclaveThatRunsDoesNotGiveTheLauncherAway) {
  begin("/proc/self/exe");
  std::string document = node.folder() + "/c.xml";
  ASSERT_TRUE(
      replace_file(document,
                   "<composition name=\"c\"><enclave name=\"e\" use=\"attacker\"><app name=\"x\" "
                   "path=\"/bin/true\" mpi=\"no\"/></enclave></composition>"));
  for (int i = 0; i < 10; ++i) node.run({copies + "/remora", "run", document});
  expect_unharmed("remora");
}

// Its tree is the host's and read-only, but a process's file is found through its own mount.
TEST_F(RuntimeOverwrite, AnEnclaveOfTheHostsReadOnlyTreeDoesNotGetTheRuntimeEither) {
  std::string meeting = bundle + "/rootfs/tmp";
  bundle = node.bundle("host-root", "", {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}});
  edit(bundle, [&](Json& config) {
    config["process"]["args"] = {HOBBES_BUILD_DIR "/tests/security/overwriter", "/tmp/meeting"};
    config["mounts"].push_back(volume_at(meeting, "/tmp/meeting", "rw"));
  });
  ASSERT_TRUE(make_directories(bundle + "/rootfs"));
  ASSERT_EQ(::symlink(meeting.c_str(), (bundle + "/rootfs/tmp").c_str()), 0);
  begin();
  for (int i = 0; i < 30; ++i)
    node.run({copies + "/hobbes-run", "exec", "attacker", "/proc/self/exe", "--version"});
  expect_unharmed("hobbes-run");
}

// What it holds, and the right to change it, would be the attacker's.
TEST_F(RuntimeOverwrite, AProcessThatEntersAUserNamespaceCannotBeTracedFromInside) {
  for (unsigned first : {0U, 100000U}) {
    std::string name = "traced" + std::to_string(first);
    bundle = node.busybox_bundle(name, "", no_lease_writable());
    node.good({"cp", HOBBES_BUILD_DIR "/tests/security/seizer", bundle + "/rootfs/bin"});
    edit(bundle, [&](Json& config) {
      config["process"]["args"] = {"/bin/seizer", "/tmp", "/bin/busybox"};
      for (const char* set : {"bounding", "effective", "permitted"})
        config["process"]["capabilities"][set] = {"CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SETUID",
                                                  "CAP_DAC_OVERRIDE"};
      set_namespace(config, "user", "");
      config["linux"]["namespaces"].push_back({{"type", "user"}});
      config["linux"]["uidMappings"] = {{{"containerID", 0}, {"hostID", first}, {"size", 1000}}};
      config["linux"]["gidMappings"] = config["linux"]["uidMappings"];
    });
    ::chmod(node.folder().c_str(), 0755);
    node.good({"chown", "-R", std::to_string(first), bundle + "/rootfs"});
    begin();
    for (int i = 0; i < 60; ++i) node.run({"hobbes-run", "exec", "attacker", "/bin/true"});
    ASSERT_TRUE(replace_file(bundle + "/rootfs/tmp/stop", ""));
    std::string report = bundle + "/rootfs/tmp/report";
    EXPECT_TRUE(eventually([&] { return Files::system().exists(report); }));
    EXPECT_EQ(Files::system().read(report).value_or(""), "done\n") << "first id " << first;
    node.good({"hobbes-run", "delete", "--force", "attacker"});
  }
}

}  // namespace
}  // namespace hobbes::test
