// The class of CVE-2024-21626: a descriptor that the caller did not close is a way out of the root,
// for a user who may name a path: as working directory, as program, or as a hook of the image.
#include <sys/stat.h>

#include "attack.h"

namespace hobbes::test {
namespace {

class LeakedDescriptor : public ::testing::Test {
 protected:
  LeakedDescriptor() {
    EXPECT_TRUE(make_directories(folder));
    EXPECT_TRUE(replace_file(folder + "/word", "a secret of the host\n"));
    node.good({"cp", "/bin/busybox", folder + "/cat"});
  }
  // A caller whose descriptor 9 is a folder of the host.
  Outcome leaking(const std::string& arguments, int seconds = 30) const {
    return node.run(
        {"sh", "-c",
         "exec 9<" + folder + "; exec " HOBBES_BUILD_DIR "/bin/hobbes-run " + arguments},
        seconds);
  }
  void begin(const std::string& bundle) const {
    ASSERT_EQ(node.create("a", bundle).wait_status, 0);
    node.good({"hobbes-run", "start", "a"});
  }
  static void expect_refused(const Outcome& outcome, const std::string& what) {
    EXPECT_NE(outcome.wait_status, 0) << what;
    EXPECT_FALSE(holds(outcome.out + outcome.err, "a secret of the host")) << what;
  }
  Node node;
  std::string folder = node.folder() + "/host";
};

TEST_F(LeakedDescriptor, IsNoWorkingDirectoryOfANewEnclave) {
  std::string bundle = node.busybox_bundle("b", "cat word", no_lease());
  for (const char* cwd : {"/proc/self/fd/9", "/proc/self/fd/9/.", "/proc/thread-self/fd/9",
                          "/proc/1/fd/9", "/work"}) {
    edit(bundle, [&](Json& config) { config["process"]["cwd"] = cwd; });
    if (std::string(cwd) == "/work") {
      ASSERT_EQ(::symlink("/proc/self/fd/9", (bundle + "/rootfs/work").c_str()), 0);
    }
    expect_refused(leaking("run --bundle " + bundle + " a"), cwd);
  }
  node.expect_clean();
}

TEST_F(LeakedDescriptor, IsNoWorkingDirectoryOfAnExec) {
  std::string bundle = node.busybox_bundle("b", "exec sleep 1000", no_lease());
  ASSERT_EQ(::symlink("/proc/self/fd/9", (bundle + "/rootfs/work").c_str()), 0);
  begin(bundle);
  for (const char* cwd : {"/proc/self/fd/9", "/proc/self/fd/9/../host", "/work"})
    expect_refused(leaking("exec --cwd " + std::string(cwd) + " a cat word"), cwd);
  // Not even one that is handed on: the program may use it, the runtime may not.
  expect_refused(
      node.run({"sh", "-c",
                "exec 3<" + folder +
                    "; exec " HOBBES_BUILD_DIR
                    "/bin/hobbes-run exec --preserve-fds 1 --cwd /proc/self/fd/3 a cat word"}),
      "a descriptor that is handed on");
  node.good({"hobbes-run", "delete", "--force", "a"});
}

TEST_F(LeakedDescriptor, IsNoWayToAProgram) {
  std::string bundle = node.busybox_bundle("b", "", no_lease());
  edit(bundle, [&](Json& config) {
    config["process"]["args"] = {"/proc/self/fd/9/cat", "/proc/self/comm"};
  });
  Outcome outcome = leaking("run --bundle " + bundle + " a");
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_EQ(outcome.out, "") << "it ran a program of the host";
  node.run({"hobbes-run", "delete", "--force", "a"});
  begin(node.busybox_bundle("c", "exec sleep 1000", no_lease()));
  outcome = leaking("exec a /proc/self/fd/9/cat /proc/self/comm");
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_EQ(outcome.out, "") << "it ran a program of the host";
  node.good({"hobbes-run", "delete", "--force", "a"});
}

TEST_F(LeakedDescriptor, IsNotInheritedByHooksThatRunInTheEnclave) {
  for (const char* stage : {"createContainer", "startContainer"}) {
    std::string bundle = node.busybox_bundle(stage, "true", no_lease());
    edit(bundle, [&](Json& config) {
      config["hooks"][stage] = {
          {{"path", "/bin/sh"}, {"args", {"sh", "-c", "cat /proc/self/fd/9/word >&2; exit 1"}}}};
    });
    Outcome outcome = leaking("run --bundle " + bundle + " " + stage);
    EXPECT_FALSE(holds(outcome.err, "a secret of the host")) << stage;
    EXPECT_NE(outcome.wait_status, 0) << "the hook ran, and failed";
    node.run({"hobbes-run", "delete", "--force", stage});
  }
}

// A created enclave waits for long; all that time what its process holds can be looked at by others
// in it.
TEST_F(LeakedDescriptor, IsNotHeldByAnEnclaveThatWaitsToBeStarted) {
  std::string bundle = node.busybox_bundle("b", "exec sleep 1000", no_lease());
  Outcome created = leaking("create --bundle " + bundle + " a </dev/null >/dev/null 2>&1");
  ASSERT_EQ(created.wait_status, 0);
  auto state = parse_json(node.good({"hobbes-run", "state", "a"}), "state");
  ASSERT_TRUE(state);
  std::string pid = std::to_string(number_at(*state, "pid"));
  for (const std::string& fd : Files::system().list("/proc/" + pid + "/fd").value_or({}))
    EXPECT_NE(read_link("/proc/" + pid + "/fd/" + fd).value_or(""), folder) << "descriptor " << fd;
  node.good({"hobbes-run", "delete", "--force", "a"});
}

}  // namespace
}  // namespace hobbes::test
