// Real callers: podman (through conmon), containerd (through its shim) and the calls of
// containerd's client.
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "core/file.h"
#include "node_harness.h"
#include "podman.h"

namespace hobbes::test {
namespace {

TEST(Podman, RunsExecsPausesUpdatesAndRemoves) {
  Node node;
  Podman podman(node);
  const std::string net = " --network=none ";
  EXPECT_EQ(podman.good("run --rm" + net + "box:1 echo hello"), "hello\n");
  EXPECT_EQ(exit_code_of(podman.run("run --rm" + net + "box:1 sh -c 'exit 5'").wait_status), 5);
  podman.good("run -d --name a" + net + "box:1 sleep 1000");
  EXPECT_EQ(podman.good("exec a echo inside"), "inside\n");
  EXPECT_EQ(exit_code_of(podman.run("exec a sh -c 'exit 6'").wait_status), 6);
  podman.good("pause a");
  EXPECT_NE(podman.good("ps -a").find("Paused"), std::string::npos);
  podman.good("unpause a");
  EXPECT_NE(podman.good("inspect a").find("\"Status\": \"running\""), std::string::npos);
  podman.good("stats --no-stream a");
  EXPECT_NE(podman.good("top a").find("sleep 1000"), std::string::npos);
  podman.good("kill a");
  podman.good("rm -f a");
}

TEST(Podman, FailuresHaveTheStatusPodmanPromises) {
  Node node;
  Podman podman(node);
  EXPECT_EQ(exit_code_of(podman.run("run --rm --network=none box:1 /no/such/program").wait_status),
            127);
  EXPECT_EQ(exit_code_of(podman.run("run --rm --network=none box:1 /etc").wait_status), 126);
}

TEST(Podman, AnnotationsLeaseCores) {
  Node node;
  Podman podman(node);
  podman.good(
      "run -d --name a --network=none --annotation org.hobbes.cores.count=1 --annotation "
      "org.hobbes.memory.size=64MiB box:1 sleep 1000");
  Json all = *parse_json(node.good({"hobbes", "enclaves", "--json"}), "enclaves");
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(text_at(all[0], "cpus"), "0");
  EXPECT_EQ(number_at(all[0], "memory"), 64 << 20);
  podman.good("rm -f -t 0 a");
  EXPECT_TRUE(eventually([&] { return node.good({"hobbes", "enclaves", "--json"}) == "[]\n"; }));
}

TEST(Podman, ATerminalIsATerminal) {
  Node node;
  Podman podman(node);
  EXPECT_NE(
      podman
          .good("run --rm -t --network=none box:1 sh -c 'test -t 0 && test -t 1 && echo terminal'")
          .find("terminal"),
      std::string::npos);
}

// containerd with its own folders, and a root file system instead of an image, so that nothing is
// downloaded.
class Containerd : public ::testing::Test {
 protected:
  void SetUp() override {
    node.wake_daemon();
    node.good({"sh", "-c",
               "mkdir -p " + f + "/image/bin && cp /bin/busybox " + f +
                   "/image/bin/ && for t in sh echo sleep; do ln -sf busybox " + f +
                   "/image/bin/$t; done"});
    ASSERT_TRUE(replace_file(f + "/config.toml",
                             "version = 2\nroot = \"" + f + "/root\"\nstate = \"" + f +
                                 "/tasks\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", "
                                 "\"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"" +
                                 f + "/c.sock\"\n[ttrpc]\naddress = \"" + f + "/t.sock\"\n"));
    node.good({"sh", "-c",
               "containerd --config " + f + "/config.toml >" + f +
                   "/containerd.log 2>&1 & echo $! >" + f + "/containerd.pid"});
    ASSERT_TRUE(eventually([&] { return ctr("version").wait_status == 0; }));
  }
  void TearDown() override {
    (void)ctr("task rm --force three");  // of a test that failed
    node.good(
        {"sh", "-c",
         "pid=$(cat " + f +
             "/containerd.pid); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done"});
  }
  Outcome ctr(const std::string& words) const {
    return node.run({"sh", "-c", "ctr --address " + f + "/c.sock " + words});
  }
  std::string good(const std::string& words) const {
    Outcome outcome = ctr(words);
    EXPECT_EQ(outcome.wait_status, 0) << words << "\n" << outcome.out << outcome.err;
    return outcome.out;
  }
  Node node;
  std::string f = node.folder();
};

TEST_F(Containerd, RunsExecsPausesAndRemovesThroughItsShim) {
  std::string run = "run --runc-root " + f +
                    "/runtime --runc-binary " HOBBES_BUILD_DIR "/bin/hobbes-run ",
              image = " --rootfs " + f + "/image ";
  EXPECT_EQ(good(run + "--rm" + image + "one echo hello"), "hello\n");
  EXPECT_EQ(exit_code_of(ctr(run + "--rm" + image + "two sh -c 'exit 7'").wait_status), 7);
  good(run + "-d --annotation org.hobbes.cores.count=1 --annotation org.hobbes.memory.size=64MiB" +
       image + "three sleep 1000");
  Json all = *parse_json(node.good({"hobbes", "enclaves", "--json"}), "enclaves");
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(text_at(all[0], "cpus"), "0");
  EXPECT_EQ(good("task exec --exec-id e three echo inside"), "inside\n");
  good("task pause three");
  EXPECT_NE(good("task ls").find("PAUSED"), std::string::npos);
  good("task resume three");
  EXPECT_NE(good("task metrics three").find("pids.current"), std::string::npos);
  good("task kill -s KILL three");
  EXPECT_TRUE(eventually([&] { return good("task ls").find("STOPPED") != std::string::npos; }));
  (void)ctr("task rm three");  // its status is the task's
  good("containers rm three");
  EXPECT_EQ(node.good({"hobbes", "enclaves", "--json"}), "[]\n");
  node.expect_clean();
}

// The sequence of calls of containerd's runc client, globals included (FACTS of the callers:
// create, start, exec, ps, pause, resume, kill, delete).
TEST(ContainerdsClient, ItsSequenceOfCallsWorksWithItsOwnRoot) {
  Node node;
  std::string root = node.folder() + "/ns1", log = node.folder() + "/log.json",
              bundle = node.busybox_bundle("b", "exec sleep 1000", {{"hobbes", nullptr}});
  auto call = [&](std::vector<std::string> words) {
    std::vector<std::string> argv = {"hobbes-run", "--root",       root,  "--log",
                                     log,          "--log-format", "json"};
    argv.insert(argv.end(), words.begin(), words.end());
    return node.good(argv);
  };
  call({"create", "--bundle", bundle, "--pid-file", node.folder() + "/pid", "same-id"});
  node.good({"hobbes-run", "--root", node.folder() + "/ns2", "create", "--bundle", bundle,
             "same-id"});  // another namespace, the same id
  call({"start", "same-id"});
  ASSERT_TRUE(replace_file(
      node.folder() + "/process.json",
      R"({"args":["sh","-c","exit 0"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}})"));
  call({"exec", "--process", node.folder() + "/process.json", "--detach", "--pid-file",
        node.folder() + "/pid2", "same-id"});
  EXPECT_FALSE(parse_json(call({"ps", "--format", "json", "same-id"}), "ps")->empty());
  call({"pause", "same-id"});
  call({"resume", "same-id"});
  EXPECT_EQ(parse_json(call({"list", "--format=json"}), "list")->size(), 1U);
  call({"kill", "same-id", "9"});
  EXPECT_TRUE(eventually([&] {
    return text_at(*parse_json(call({"state", "same-id"}), "state"), "status") == "stopped";
  }));
  call({"delete", "same-id"});
  call({"delete", "--force", "same-id"});
  node.good({"hobbes-run", "--root", node.folder() + "/ns2", "delete", "--force", "same-id"});
}

TEST(Conmon, NoProcessStandsBetweenTheCallerAndTheEnclaveProcess) {
  Node node;
  std::string bundle = node.bundle("b", "sleep 0.3; exit 9");
  // A caller as conmon is: a subreaper that waits for the pid in the pid file.
  std::string script =
      "import ctypes,os,subprocess,sys\nctypes.CDLL(None).prctl(36,1,0,0,0)\nr='" HOBBES_BUILD_DIR
      "/bin/hobbes-run'\nsubprocess.check_call([r,'create','--bundle','" +
      bundle + "','--pid-file','" + node.folder() +
      "/pid','a'])\nsubprocess.check_call([r,'start','a'])\npid=int(open('" + node.folder() +
      "/pid').read())\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))\n";
  ASSERT_TRUE(replace_file(node.folder() + "/conmon.py", script));
  EXPECT_EQ(exit_code_of(node.run({"python3", node.folder() + "/conmon.py"}).wait_status), 9);
  EXPECT_TRUE(eventually([&] {
    return number_at(node.enclave("a"), "exitStatus", -1) == 9 ||
           text_at(node.enclave("a"), "state") == "stopped";
  }));
  node.good({"hobbes-run", "delete", "a"});
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
