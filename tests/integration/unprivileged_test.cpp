// Users without any privilege: hobbesd lends them cores, memory and a control group, and everything
// else they do themselves.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/identity.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

constexpr uid_t user = 1234;

class Unprivileged : public ::testing::Test {
 protected:
  Unprivileged() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  ~Unprivileged() override {
    for (const std::string& id :
         Files::system().list(node.run_folder() + "/users/1234").value_or({}))
      as_user({"delete", "--force", id});
  }
  static std::vector<std::string> dropped(std::vector<std::string> argv) {
    argv.insert(argv.begin(),
                {"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--inh-caps=-all"});
    return argv;
  }
  Outcome as_user(std::vector<std::string> argv) const {
    argv.insert(argv.begin(), HOBBES_BUILD_DIR "/bin/hobbes-run");
    return node.run(dropped(std::move(argv)));
  }
  std::string user_does(std::vector<std::string> argv) const {
    Outcome outcome = as_user(argv);
    EXPECT_EQ(outcome.wait_status, 0) << argv[0] << ": " << outcome.err;
    return outcome.out;
  }
  // The user's pipes must not be held open by what `create` leaves running.
  void create(const std::string& bundle, const std::string& id) const {
    Outcome outcome = node.run(dropped(
        {"sh", "-c",
         HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " + bundle + " " + id + " </dev/null >" +
             bundle + "/out 2>" + bundle + "/err; s=$?; cat " + bundle + "/err >&2; exit $s"}));
    EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  }
  std::string readable(const std::string& bundle) const {
    node.good({"chown", "-R", "1234:1234", bundle});
    return bundle;
  }
  std::string groups() const {
    return node
        .run({"sh", "-c",
              "find /sys/fs/cgroup -type d -name 'user-" + hex(hash_of(node.run_folder()), 8) +
                  "-*'"})
        .out;
  }
  void expect_clean() const {
    EXPECT_TRUE(eventually([&] { return groups().empty(); }))
        << "control groups are left: " << groups();
    node.expect_clean();
  }
  Node node;
};

TEST_F(Unprivileged, AUserMakesUsesAndRemovesAnEnclave) {
  std::string bundle = readable(
      node.bundle("b", "exec sleep 100",
                  {{"hobbes", {{"cores", {{"count", 1}}}, {"memory", {{"size", "256MiB"}}}}},
                   {"linux", {{"resources", {{"pids", {{"limit", 20}}}}}}}}));
  create(bundle, "a");
  EXPECT_NE(user_does({"list"}).find("created"), std::string::npos);
  user_does({"start", "a"});
  Json state;
  ASSERT_TRUE(eventually([&] {
    state = parse_json(user_does({"state", "a"}), "state").value_or(Json());
    return text_at(state, "status") == "running";
  }));
  // He is root inside and himself outside, on the cores he was lent and within their memory.
  EXPECT_EQ(user_does({"exec", "a", "id", "-u"}), "0\n");
  EXPECT_EQ(user_does({"exec", "a", "nproc"}), "1\n");
  struct stat info {};
  ASSERT_EQ(::stat(("/proc/" + std::to_string(number_at(state, "pid"))).c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, user);
  std::string first = groups().substr(0, groups().find('\n'));
  ASSERT_FALSE(first.empty());
  Json stats = parse_json(user_does({"events", "--stats", "a"}), "stats").value_or(Json());
  EXPECT_EQ(number_at(stats["data"], "memory.limit"), 256 << 20);
  EXPECT_NE(as_user({"exec", "a", "sh", "-c", "for i in $(seq 40); do sleep 5 & done; wait"})
                .err.find("ork"),
            std::string::npos)
      << "his own limit holds";
  // Root does not act on the words of others: the folder may name hooks.
  EXPECT_NE(node.run({"hobbes-run", "--root", node.run_folder() + "/users/1234", "delete",
                      "--force", "a"})
                .err.find("act as that user"),
            std::string::npos);
  EXPECT_EQ(user_does({"update", "--memory-size", "128MiB", "a"}), "");
  stats = parse_json(user_does({"events", "--stats", "a"}), "stats").value_or(Json());
  EXPECT_EQ(number_at(stats["data"], "memory.limit"), 128 << 20) << "the group follows the lease";
  EXPECT_NE(as_user({"update", "--pids-limit", "1000", "a"}).err.find("delegated by hobbesd"),
            std::string::npos);
  user_does({"pause", "a"});
  EXPECT_NE(user_does({"state", "a"}).find("paused"), std::string::npos);
  user_does({"resume", "a"});
  EXPECT_NE(user_does({"ps", "a"}).find("sleep 100"), std::string::npos);
  user_does({"kill", "a", "KILL"});
  ASSERT_TRUE(eventually([&] {
    return user_does({"state", "a"}).find("stopped") != std::string::npos;
  }));
  user_does({"delete", "a"});
  expect_clean();
}

TEST_F(Unprivileged, AnImageOfHisOwnWorksAndHeCanStayHimself) {
  std::string bundle =
      readable(node.busybox_bundle("b", "id -u; id -g; touch /made && echo made",
                                   {{"root", {{"path", "rootfs"}, {"readonly", false}}},
                                    {"process", {{"user", {{"uid", 4242}, {"gid", 4343}}}}}}));
  EXPECT_EQ(user_does({"run", "--bundle", bundle, "a"}), "4242\n4343\nmade\n");
  struct stat info {};
  ASSERT_EQ(::stat((bundle + "/rootfs/made").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, user) << "what he makes is his own";
  expect_clean();
}

TEST_F(Unprivileged, TheDelegatedGroupGoesWithItsLeaseWhicheverProcessDies) {
  std::string bundle =
      readable(node.bundle("b", "exec sleep 100", {{"hobbes", {{"cores", {{"count", 1}}}}}}));
  create(bundle, "a");
  user_does({"start", "a"});
  node.kill_daemon();
  user_does({"delete", "--force", "a"});  // hobbesd is away and cannot take its group back yet
  EXPECT_FALSE(groups().empty());
  node.wake_daemon();
  expect_clean();
  create(bundle, "b");
  user_does({"start", "b"});
  node.kill_daemon();
  node.wake_daemon();
  EXPECT_EQ(user_does({"exec", "b", "nproc"}), "1\n") << "an adopted enclave's group is still lent";
  user_does({"delete", "--force", "b"});
  expect_clean();
}

TEST_F(Unprivileged, OnlyHisOwnProcessesAreMovedIntoHisGroup) {
  std::string bundle =
      readable(node.bundle("b", "exec sleep 100", {{"hobbes", {{"cores", {{"count", 1}}}}}}));
  create(bundle, "a");
  std::string handle = text_at(node.enclave("a"), "handle");
  std::string script =
      "import socket,json,os,sys\n"
      "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect('" +
      node.run_folder() +
      "/control.sock')\n"
      "def start(pid): return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[19])\n"
      "def ask(**k):\n"
      "  s.send(json.dumps(dict(k, op='enclave.enter')).encode()); return "
      "json.loads(s.recv(200000))\n"
      "h=int(sys.argv[1],16); me=os.getpid()\n"
      "a=ask(handle=h, pid=1, startTicks=start(1)); assert not a['ok'] and 'not of user' in "
      "json.dumps(a), a\n"
      "a=ask(handle=h, pid=me, startTicks=start(me)+1); assert not a['ok'], a\n"
      "a=ask(handle=h); assert not a['ok'], a\n"
      "a=ask(handle=h+1, pid=me, startTicks=start(me)); assert not a['ok'], a\n"
      "a=ask(handle=h, pid=me, startTicks=start(me)); assert a['ok'], a\n"
      "print('answered')\n";
  ASSERT_TRUE(replace_file(node.folder() + "/hostile.py", script));
  EXPECT_EQ(node.good(dropped({"/usr/bin/python3", node.folder() + "/hostile.py", handle})),
            "answered\n");
  user_does({"delete", "--force", "a"});
  expect_clean();
}

TEST_F(Unprivileged, RestMakesHisEnclavesAsHim) {
  readable(node.bundle("b", "exec sleep 100", {{"hobbes", {{"cores", {{"count", 1}}}}}}));
  std::string curl = "curl -s --unix-socket " + node.run_folder() +
                     "/api.sock -H 'Content-Type: application/json' ";
  node.good(dropped({"sh", "-c",
                     curl + "-d '{\"id\":\"r\",\"bundle\":\"" + node.folder() +
                         "/b\",\"start\":true}' http://x/v1/enclaves"}));
  EXPECT_TRUE(eventually([&] { return user_does({"list"}).find("running") != std::string::npos; }))
      << user_does({"list"});
  node.good(dropped({"sh", "-c", curl + "-X DELETE 'http://x/v1/enclaves/r?force=true'"}));
  EXPECT_TRUE(eventually([&] { return user_does({"list", "-q"}).empty(); }));
  expect_clean();
}

TEST_F(Unprivileged, ACompositionRunsWithoutPrivilege) {
  if (!Node::joins_mpi()) GTEST_SKIP() << "this build has no component for its Open MPI";
  for (const char* name : {"one", "two"})
    readable(node.bundle(
        name, "true",
        {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
         {"process", {{"capabilities", nullptr}}}}));
  std::string program = HOBBES_BUILD_DIR "/tests/programs/pingpong";
  std::string path = node.folder() + "/c.xml";
  ASSERT_TRUE(replace_file(path,
                           "<composition name=\"mine\" mpiComm=\"u\"><enclave name=\"one\" "
                           "bundle=\"one\"><app name=\"a\" path=\"" +
                               program +
                               "\" ranks=\"1\" argv=\"1 200\"/></enclave><enclave name=\"two\" "
                               "bundle=\"two\"><app name=\"b\" path=\"" +
                               program +
                               "\" ranks=\"1\" argv=\"1 200\"/></enclave></composition>"));
  Outcome outcome = node.run(dropped({HOBBES_BUILD_DIR "/bin/remora", "run", path}), 90);
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
  expect_clean();
}

}  // namespace
}  // namespace hobbes::test
