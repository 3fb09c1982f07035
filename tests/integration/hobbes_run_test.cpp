// What people and engines do with hobbes-run, against the real kernel.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/identity.h"
#include "node_harness.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

Json state_of(const Node& node, const std::string& id) {
  return parse_json(node.run({"hobbes-run", "state", id}).out, "state").value_or(Json::object());
}

TEST(HobbesRun, RunReturnsTheProgramsOutputAndStatus) {
  Node node;
  Outcome outcome = node.run(
      {"hobbes-run", "run", "--bundle", node.bundle("b", "echo out; echo err >&2; exit 7"), "a"});
  EXPECT_EQ(exit_code_of(outcome.wait_status), 7);
  EXPECT_EQ(outcome.out, "out\n");
  EXPECT_EQ(outcome.err, "err\n");
  node.expect_clean();
}

TEST(HobbesRun, CreateStartStateKillDeleteFollowTheRuntimeSpec) {
  Node node;
  std::string bundle = node.bundle("b", "exec sleep 1000", {{"annotations", {{"a.b", "c"}}}});
  node.good(
      {"hobbes-run", "create", "--bundle", bundle, "--pid-file", node.folder() + "/pid", "a"});
  Json state = state_of(node, "a");
  EXPECT_EQ(text_at(state, "status"), "created");
  EXPECT_EQ(text_at(state, "bundle"), bundle);
  EXPECT_EQ(state["annotations"]["a.b"], "c");
  EXPECT_EQ(*Files::system().read(node.folder() + "/pid"), to_text(state["pid"]));
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "created");
  EXPECT_NE(node.run({"hobbes-run", "create", "--bundle", bundle, "a"}).wait_status, 0)
      << "the id is taken";
  node.good({"hobbes-run", "start", "a"});
  EXPECT_EQ(text_at(state_of(node, "a"), "status"), "running");
  EXPECT_NE(node.run({"hobbes-run", "start", "a"}).wait_status, 0);
  EXPECT_NE(node.run({"hobbes-run", "delete", "a"}).wait_status, 0) << "it runs";
  node.good({"hobbes-run", "kill", "a", "KILL"});
  EXPECT_TRUE(eventually([&] { return text_at(state_of(node, "a"), "status") == "stopped"; }));
  EXPECT_NE(node.run({"hobbes-run", "kill", "a", "TERM"}).err.find("not running"),
            std::string::npos);
  node.good({"hobbes-run", "delete", "a"});
  Outcome gone = node.run({"hobbes-run", "state", "a"});
  EXPECT_NE(gone.err.find("does not exist"), std::string::npos);
  EXPECT_NE(node.run({"hobbes-run", "delete", "a"}).wait_status, 0);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST(HobbesRun, ARootFileSystemIsAllAnEnclaveSees) {
  Node node;
  std::string bundle = node.busybox_bundle(
      "b",
      "id -u; hostname; ls /; echo init $(cat /proc/1/comm); touch /x 2>&1; ls /dev; "
      "read -r word < /proc/kcore; echo \"kcore [$word]\"; true");
  std::string out = node.good({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_NE(out.find("enclave\n"), std::string::npos) << out;
  EXPECT_NE(out.find("Read-only file system"), std::string::npos) << out;
  EXPECT_EQ(out.find("home"), std::string::npos) << "the host's folders must not show\n" << out;
  EXPECT_NE(out.find("init sh\n"), std::string::npos) << "the program is process 1 of its own\n"
                                                      << out;
  EXPECT_NE(out.find("kcore []\n"), std::string::npos) << "a masked file is empty\n" << out;
  for (const char* device : {"null", "zero", "full", "urandom", "ptmx", "stdin"})
    EXPECT_NE(out.find(device), std::string::npos) << device;
  node.expect_clean();
}

TEST(HobbesRun, NamespacesLimitsAndCapabilitiesAreThoseOfTheBundle) {
  Node node;
  Json patch = {
      {"process",
       {{"rlimits", {{{"type", "RLIMIT_NOFILE"}, {"soft", 77}, {"hard", 99}}}},
        {"user", {{"uid", 1234}, {"gid", 4321}, {"additionalGids", {7}}, {"umask", 63}}}}},
      {"hostname", "elsewhere"},
      {"linux", {{"resources", {{"pids", {{"limit", 33}}}, {"memory", {{"limit", 64 << 20}}}}}}}};
  std::string bundle =
      node.bundle("b",
                  "ulimit -n; ulimit -Hn; id -u; id -g; id -G; umask; hostname; grep -E "
                  "'CapEff|NoNewPrivs|Seccomp:' "
                  "/proc/self/status; if [ -d /sys/fs/cgroup/pids ]; then "
                  "cat /sys/fs/cgroup/pids$(grep pids /proc/self/cgroup | cut -d: -f3)/pids.max "
                  "/sys/fs/cgroup/memory$(grep memory /proc/self/cgroup | cut -d: "
                  "-f3)/memory.limit_in_bytes; else "
                  "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat pids.max memory.max; fi",
                  patch);
  std::string out = node.good({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_NE(out.find("77\n99\n1234\n4321\n4321 7\n0077\nelsewhere\n"), std::string::npos) << out;
  EXPECT_NE(out.find("CapEff:\t0000000000000000"), std::string::npos) << "a user keeps none\n"
                                                                      << out;
  EXPECT_NE(out.find("NoNewPrivs:\t1"), std::string::npos) << out;
  EXPECT_NE(out.find("Seccomp:\t2"), std::string::npos)
      << "host-root mode has Hobbes' own profile\n"
      << out;
  EXPECT_NE(out.find("33\n67108864\n"), std::string::npos) << out;
}

TEST(HobbesRun, ASeccompProfileOfTheBundleIsEnforced) {
  Node node;
  Json patch = {{"linux",
                 {{"seccomp",
                   {{"defaultAction", "SCMP_ACT_ALLOW"},
                    {"syscalls",
                     {{{"names", {"mkdir", "mkdirat", "no_such_call"}},
                       {"action", "SCMP_ACT_ERRNO"},
                       {"errnoRet", 28}}}}}}}}};
  std::string out = node.run({"hobbes-run", "run", "--bundle",
                              node.bundle("b", "mkdir /tmp/x 2>&1; true", patch), "a"})
                        .out;
  EXPECT_NE(out.find("No space left"), std::string::npos) << out;
}

TEST(HobbesRun, HobbesOwnSeccompProfileRefusesNewNamespacesToRootAndNothingElseOfTheirCall) {
  Node node;
  std::string ask = R"(python3 -c 'import ctypes
call = ctypes.CDLL(None).unshare
flags = (0x200, 0x20000, 0x40000000, 0x10000000, 0x02000000, 0x80, 0x20200)
print([call(flag) for flag in flags])')";
  Json capabilities = {{"bounding", {"CAP_SYS_ADMIN"}},
                       {"effective", {"CAP_SYS_ADMIN"}},
                       {"permitted", {"CAP_SYS_ADMIN"}}};
  std::string bundle = node.bundle("b", ask, {{"process", {{"capabilities", capabilities}}}});
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "a"}),
            "[0, -1, -1, -1, -1, -1, -1]\n");
}

TEST(HobbesRun, AUserNamespaceMapsIds) {
  Node node;
  Json patch = {{"linux",
                 {{"uidMappings", {{{"containerID", 0}, {"hostID", 100000}, {"size", 1000}}}},
                  {"gidMappings", {{{"containerID", 0}, {"hostID", 100000}, {"size", 1000}}}}}}};
  std::string bundle = node.busybox_bundle("b", "id -u; cat /proc/self/uid_map", patch);
  Json config = *parse_json(*Files::system().read(bundle + "/config.json"), "c");
  config["linux"]["namespaces"].push_back({{"type", "user"}});
  ASSERT_TRUE(replace_file(bundle + "/config.json", to_text(config)));
  ::chmod(node.folder().c_str(), 0755);
  node.good({"chown", "-R", "100000:100000", bundle + "/rootfs"});
  std::string out = node.good({"hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_NE(out.find("0\n"), std::string::npos);
  EXPECT_NE(out.find("100000"), std::string::npos) << out;
}

TEST(HobbesRun, AUserNamespaceOfItsOwnMayComeWithNamespacesOfOthers) {
  Node node;
  Background other(node, "other", {"unshare", "--net", "--ipc", "--uts", "sleep", "1000"});
  auto place = [&](const char* file) {
    return "/proc/" + std::to_string(other.pid()) + "/ns/" + file;
  };
  ASSERT_TRUE(eventually([&] {
    return read_link(place("uts")).value_or("") != read_link("/proc/self/ns/uts").value_or("");
  }));
  Json maps = {{{"containerID", 0}, {"hostID", 0}, {"size", 1000}}};
  Json spaces = {{{"type", "mount"}},
                 {{"type", "pid"}},
                 {{"type", "user"}},
                 {{"type", "network"}, {"path", place("net")}},
                 {{"type", "ipc"}, {"path", place("ipc")}},
                 {{"type", "uts"}, {"path", place("uts")}}};
  std::string script = "cd /proc/self/ns; for n in net ipc uts; do busybox readlink $n; done";
  std::string bundle = node.busybox_bundle(
      "b", script,
      {{"hostname", nullptr},
       {"linux", {{"uidMappings", maps}, {"gidMappings", maps}, {"namespaces", spaces}}}});
  std::string expected;
  for (const char* file : {"net", "ipc", "uts"})
    expected += read_link(place(file)).value_or("?") + "\n";
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "a"}), expected);
}

TEST(HobbesRun, HooksRunInOrderWithTheStateOnStandardInput) {
  Node node;
  std::string log = node.folder() + "/log";
  auto hook = [&](const std::string& name) {
    return Json{{"path", "/bin/sh"},
                {"args",
                 {"sh", "-c",
                  "cat > " + node.folder() + "/" + name + ".json; echo " + name + " >> " + log}}};
  };
  Json hooks = Json::object();
  for (const char* name : {"prestart", "createRuntime", "poststart", "poststop"})
    hooks[name] = Json::array({hook(name)});
  node.good(
      {"hobbes-run", "run", "--bundle", node.bundle("b", "sleep 0.3", {{"hooks", hooks}}), "a"});
  EXPECT_EQ(*Files::system().read(log), "prestart\ncreateRuntime\npoststart\npoststop\n");
  Json state = *parse_json(*Files::system().read(node.folder() + "/createRuntime.json"), "s");
  EXPECT_EQ(text_at(state, "id"), "a");
  EXPECT_EQ(text_at(state, "status"), "creating");
  EXPECT_GT(number_at(state, "pid"), 0);
}

TEST(HobbesRun, AFailingHookLeavesTheNodeAsIfNeverAttempted) {
  Node node;
  for (const char* name : {"prestart", "createRuntime", "createContainer"}) {
    Json hooks = {
        {name, {{{"path", "/bin/sh"}, {"args", {"sh", "-c", "echo because >&2; exit 3"}}}}}};
    Outcome outcome = node.run(
        {"hobbes-run", "create", "--bundle", node.bundle("b", "true", {{"hooks", hooks}}), "a"});
    EXPECT_EQ(exit_code_of(outcome.wait_status), 1);
    EXPECT_NE(outcome.err.find("because"), std::string::npos) << outcome.err;
  }
  node.expect_clean();
}

TEST(HobbesRun, EveryRefusalIsClearAndLeavesNothing) {
  Node node;
  std::string good_bundle = node.bundle("good", "true");
  struct Case {
    std::string bundle, id, says;
    int code;
  };
  std::string missing_program =
      node.bundle("mp", "x", {{"process", {{"args", {"/no/such/program"}}}}});
  std::string unknown_program =
      node.bundle("up", "x", {{"process", {{"args", {"no-such-program"}}}}});
  std::string no_rights = node.bundle("nr", "x", {{"process", {{"args", {"/etc/passwd"}}}}});
  std::string missing_root =
      node.bundle("mr", "x", {{"hobbes", {{"root", nullptr}}}, {"root", {{"path", "nowhere"}}}});
  std::string too_many = node.bundle("tm", "x", {{"hobbes", {{"cores", {{"count", 1000}}}}}});
  std::string too_much = node.bundle("tb", "x", {{"hobbes", {{"memory", {{"size", "900TiB"}}}}}});
  std::string bad_mount = node.bundle("bm", "x",
                                      {{"mounts",
                                        {{{"destination", "/tmp/y"},
                                          {"type", "bind"},
                                          {"source", "/no/such/source"},
                                          {"options", {"bind"}}}}}});
  std::string bad_cwd = node.bundle("bc", "x", {{"process", {{"cwd", "/etc/passwd"}}}});
  std::string kitten = node.bundle("k", "x");
  ASSERT_TRUE(make_directories(node.folder() + "/garbage"));
  ASSERT_TRUE(replace_file(node.folder() + "/garbage/config.json", "{ \"ociVersion\": "));
  for (const Case& c :
       std::vector<Case>{{good_bundle, "a/b", "not allowed", 1},
                         {good_bundle, "..", "starts with '.'", 1},
                         {good_bundle, std::string(200, 'x'), "200 characters", 1},
                         {missing_program, "a", "no such file or directory", 127},
                         {unknown_program, "a", "executable file not found in $PATH", 127},
                         {no_rights, "a", "permission denied", 126},
                         {missing_root, "a", "no such file or directory", 1},
                         {too_many, "a", "whole core(s) free", 1},
                         {too_much, "a", "free are", 1},
                         {bad_mount, "a", "/no/such/source", 1},
                         {bad_cwd, "a", "/etc/passwd", 1},
                         {node.folder() + "/garbage", "a", "line 1", 1},
                         {node.folder() + "/nowhere", "a", "no such file or directory", 1}}) {
    Outcome outcome = node.run({"hobbes-run", "create", "--bundle", c.bundle, c.id});
    EXPECT_EQ(exit_code_of(outcome.wait_status), c.code) << c.bundle << outcome.err;
    EXPECT_NE(outcome.err.find(c.says), std::string::npos) << c.says << "\n" << outcome.err;
  }
  node.expect_clean();
}

TEST(HobbesRun, ErrorsAlsoGoToTheLogAsJson) {
  Node node;
  std::string log = node.folder() + "/log.json";
  node.run({"hobbes-run", "--log", log, "--log-format", "json", "state", "nobody"});
  Json line = *parse_json(*Files::system().read(log), "log");
  EXPECT_EQ(line["level"], "error");
  EXPECT_NE(text_at(line, "msg").find("does not exist"), std::string::npos);
}

TEST(HobbesRun, TwoEnclavesNeverShareACoreUnlessBothSaySo) {
  Node node;
  std::string one = node.bundle("one", "exec sleep 1000",
                                {{"hobbes", {{"cores", {{"list", "0"}, {"count", nullptr}}}}}});
  node.good({"hobbes-run", "create", "--bundle", one, "a"});
  Outcome refused = node.run({"hobbes-run", "create", "--bundle", one, "b"});
  EXPECT_NE(refused.err.find("'a' holds 0"), std::string::npos) << refused.err;
  EXPECT_NE(node.good({"hobbes", "topology"}).find(" a "), std::string::npos);
  node.good({"hobbes-run", "delete", "--force", "a"});
  std::string shared =
      node.bundle("shared", "exec sleep 1000",
                  {{"hobbes", {{"cores", {{"list", "0"}, {"count", nullptr}, {"shared", true}}}}}});
  node.good({"hobbes-run", "create", "--bundle", shared, "a"});
  node.good({"hobbes-run", "create", "--bundle", shared, "b"});
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.good({"hobbes-run", "delete", "--force", "b"});
  node.expect_clean();
}

TEST(HobbesRun, ExecRunsInsideWithTheEnclavesLimits) {
  Node node;
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.busybox_bundle("b", "exec sleep 1000",
                                 {{"hobbes", {{"cores", {{"list", "1"}, {"count", nullptr}}}}}}),
             "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "hostname"}), "enclave\n");
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "nproc"}), "1\n");
  EXPECT_EQ(exit_code_of(node.run({"hobbes-run", "exec", "a", "sh", "-c", "exit 9"}).wait_status),
            9);
  EXPECT_EQ(exit_code_of(node.run({"hobbes-run", "exec", "a", "nonsense"}).wait_status), 127);
  EXPECT_NE(node.good({"hobbes-run", "exec", "--env", "K=V", "--cwd", "/bin", "a", "sh", "-c",
                       "echo $K; pwd"})
                .find("V\n/bin"),
            std::string::npos);
  node.good(
      {"hobbes-run", "exec", "--detach", "--pid-file", node.folder() + "/p", "a", "sleep", "500"});
  Json pids = *parse_json(node.good({"hobbes-run", "ps", "--format", "json", "a"}), "ps");
  EXPECT_EQ(pids.size(), 2U);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST(HobbesRun, PauseFreezesEveryProcessAndResumeLetsThemGoOn) {
  Node node;
  std::string file = node.folder() + "/ticks";
  ASSERT_TRUE(replace_file(file, ""));
  Json patch = {{"mounts",
                 {{{"destination", "/tmp/ticks"},
                   {"type", "bind"},
                   {"source", file},
                   {"options", {"bind", "rw"}}}}}};
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("b", "while :; do echo x >> /tmp/ticks; sleep 0.01; done", patch), "a"});
  auto ticks = [&] { return Files::system().read(file)->size(); };
  EXPECT_TRUE(eventually([&] { return ticks() > 4; }));
  node.good({"hobbes-run", "pause", "a"});
  EXPECT_EQ(text_at(state_of(node, "a"), "status"), "paused");
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "paused");
  auto before = ticks();
  ::usleep(200'000);
  EXPECT_EQ(ticks(), before);
  node.good({"hobbes-run", "resume", "a"});
  EXPECT_TRUE(eventually([&] { return ticks() > before; }));
  node.good({"hobbes-run", "pause", "a"});
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST(HobbesRun, UpdateChangesTheLeaseOfARunningEnclave) {
  Node node;
  node.good(
      {"hobbes-run", "run", "--detach", "--bundle", node.bundle("b", "exec sleep 1000"), "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "nproc"}), "1\n");
  node.good({"hobbes-run", "update", "--cores", "2", "--memory-size", "300MiB", "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "nproc"}), "2\n");
  EXPECT_EQ(number_at(node.enclave("a"), "memory"), 300 << 20);
  EXPECT_NE(node.run({"hobbes-run", "update", "--cores", "99", "a"}).wait_status, 0);
  node.good({"hobbes-run", "update", "--cores", "1", "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "nproc"}), "1\n");
  Json stats = *parse_json(node.good({"hobbes-run", "events", "--stats", "a"}), "stats");
  EXPECT_EQ(number_at(stats["data"], "memory.limit"), 300 << 20);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST(HobbesRun, AnEnclaveThatEndsGivesItsCoresBackAndSaysHow) {
  Node node;
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("b", "sleep 0.2; kill -SEGV $$",
                         {{"linux", {{"namespaces", {{{"type", "mount"}}}}}}}),
             "a"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("a"), "state") == "crashed"; }))
      << to_text(node.enclave("a"));
  EXPECT_EQ(number_at(node.enclave("a"), "exitStatus"), 139);
  EXPECT_NE(node.good({"hobbes", "node"}).find("0 B leased"), std::string::npos);
  node.good({"hobbes-run", "delete", "a"});
  node.expect_clean();
}

TEST(HobbesRun, StateKillListAndDeleteWorkWithoutHobbesd) {
  Node node;
  node.good(
      {"hobbes-run", "run", "--detach", "--bundle", node.bundle("b", "exec sleep 1000"), "a"});
  node.kill_daemon();
  EXPECT_EQ(text_at(state_of(node, "a"), "status"), "running");
  EXPECT_NE(node.good({"hobbes-run", "list"}).find("running"), std::string::npos);
  EXPECT_NE(node.good({"hobbes", "enclaves"}).find("running"), std::string::npos)
      << "the mirror needs no writer";
  node.good({"hobbes-run", "kill", "a", "KILL"});
  EXPECT_TRUE(eventually([&] { return text_at(state_of(node, "a"), "status") == "stopped"; }));
  node.good({"hobbes-run", "delete", "a"});
  EXPECT_EQ(node.daemon(), 0) << "none of these starts it";
  node.expect_clean();
}

TEST(HobbesRun, AKilledHobbesdReadoptsRunningEnclaves) {
  Node node;
  node.good(
      {"hobbes-run", "run", "--detach", "--bundle", node.bundle("b", "exec sleep 1000"), "a"});
  for (int round = 0; round < 3; ++round) {
    node.kill_daemon();
    node.wake_daemon();
    EXPECT_EQ(text_at(node.enclave("a"), "state"), "running");
    EXPECT_NE(node.run({"hobbes-run", "create", "--dry-run", "--bundle",
                        node.bundle("two", "true", {{"hobbes", {{"cores", {{"count", 2}}}}}}), "x"})
                  .wait_status,
              0)
        << "its core is still held";
  }
  node.good({"hobbes-run", "kill", "a", "KILL"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("a"), "state") == "stopped"; }))
      << "an adopted enclave's end is seen";
  node.good({"hobbes-run", "delete", "a"});
  node.expect_clean();
}

TEST(HobbesRun, InsideABatchJobsCpusetOnlyThatCpusetIsLeased) {
  Node node;
  std::string bundle = node.bundle("b", "true");
  EXPECT_NE(node.good({"taskset", "-c", "1", HOBBES_BUILD_DIR "/bin/hobbes-run", "create",
                       "--dry-run", "--bundle", bundle, "a"})
                .find("CPUs    1"),
            std::string::npos);
  std::string two = node.bundle("two", "true", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  EXPECT_NE(node.run({"taskset", "-c", "1", HOBBES_BUILD_DIR "/bin/hobbes-run", "create",
                      "--dry-run", "--bundle", two, "a"})
                .wait_status,
            0);
}

// What an unprivileged user may hold is decided by hobbesd, whatever program asks.
// A program that promised signs of life and stops giving them is ended, and its cores are free
// again.
TEST(HobbesRun, AnEnclaveThatMissesItsHeartbeatCountsAsCrashed) {
  Node node;
  std::string bundle =
      node.bundle("b",
                  "export HOBBES_RUN_DIR=" + node.run_folder() +
                      "; exec " HOBBES_BUILD_DIR "/tests/programs/segment-peer beat 5",
                  {{"hobbes", {{"heartbeat", 2}, {"cores", {{"count", 1}}}}}});
  node.good({"sh", "-c",
             HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " + bundle +
                 " a </dev/null >/dev/null 2>&1"});
  node.good({"hobbes-run", "start", "a"});
  ::usleep(4'000'000);
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "running") << "it beats";
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("a"), "state") == "crashed"; }, 15))
      << to_text(node.enclave("a"));
  EXPECT_NE(text_at(node.rest("GET", "/v1/enclaves/a").second, "cause").find("no heartbeat for"),
            std::string::npos);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST(Quota, AnUnprivilegedUserGetsWhatTheSiteAllowsAndNoMore) {
  Node node;
  ::chmod(node.folder().c_str(), 0755);
  std::string config = node.folder() + "/hobbesd.json";
  ASSERT_TRUE(
      replace_file(config, R"({"quotas":{"default":{"cores":1,"memory":"1GiB","enclaves":2}}})"));
  node.good(
      {"sh", "-c", HOBBES_BUILD_DIR "/bin/hobbesd --config " + config + " >/dev/null 2>&1 &"});
  EXPECT_TRUE(eventually([&] { return node.daemon() != 0; }));
  auto ask = [&](unsigned cores, const std::string& memory) {
    std::string bundle = node.bundle(
        "q", "true", {{"hobbes", {{"cores", {{"count", cores}}}, {"memory", {{"size", memory}}}}}});
    node.good({"chmod", "-R", "a+rX", node.folder() + "/q"});
    return node.run({"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups",
                     HOBBES_BUILD_DIR "/bin/hobbes-run", "create", "--dry-run", "--bundle", bundle,
                     "q"});
  };
  Outcome allowed = ask(1, "512MiB");
  EXPECT_EQ(allowed.wait_status, 0) << allowed.err;
  EXPECT_NE(ask(2, "512MiB").err.find("the quota is 1"), std::string::npos);
  EXPECT_NE(ask(1, "2GiB").err.find("quota"), std::string::npos);
  ASSERT_TRUE(replace_file(config, R"({"quotaz":1})"));
  EXPECT_NE(node.run({HOBBES_BUILD_DIR "/bin/hobbesd", "--foreground", "--config", config})
                .err.find("did you mean \"quotas\"?"),
            std::string::npos);
}

// systemd's protocol, by hand: sockets that are there before hobbesd, as descriptors 3 and 4
// (sd_listen_fds(3)).
TEST(Daemon, ServesTheSocketsThatSystemdHandsIt) {
  Node node;
  std::string script =
      "import os,socket,sys\n"
      "run=sys.argv[1]\n"
      "control=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); "
      "control.bind(run+'/control.sock'); control.listen(8)\n"
      "api=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM); api.bind(run+'/api.sock'); "
      "api.listen(8)\n"
      "early=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); "
      "early.connect(run+'/control.sock'); early.send(b'{\"op\":\"ping\"}')\n"
      "pid=os.fork()\n"
      "if pid==0:\n"
      "  a=os.dup(control.fileno()); b=os.dup(api.fileno()); a=os.dup2(a,100); b=os.dup2(b,101)\n"
      "  os.dup2(100,3); os.dup2(101,4)\n"
      "  os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS='2')\n"
      "  os.execv(sys.argv[2],[sys.argv[2],'--foreground'])\n"
      "early.settimeout(20)\n"
      "print(early.recv(1000).decode())\n";
  ASSERT_TRUE(replace_file(node.folder() + "/activate.py", script));
  std::string answer =
      node.good({"sh", "-c",
                 "/usr/bin/python3 " + node.folder() + "/activate.py " + node.run_folder() +
                     " " HOBBES_BUILD_DIR "/bin/hobbesd 2>" + node.folder() + "/log"});
  EXPECT_NE(answer.find("\"ok\":true"), std::string::npos)
      << "who connected before it ran is answered: " << answer;
  EXPECT_EQ(node.rest("GET", "/v1/node").first, 200);
}

TEST(Daemon, AUserWithoutItIsToldWhatToAskFor) {
  Node node;
  ::chmod(node.folder().c_str(), 0755);
  std::string bundle = node.bundle("b", "true");
  Outcome outcome =
      node.run({"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups",
                HOBBES_BUILD_DIR "/bin/hobbes-run", "create", "--bundle", bundle, "a"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("only root can start it; ask the administrator to run `systemctl "
                             "enable --now hobbesd.socket`"),
            std::string::npos)
      << outcome.err;
}

TEST(Shell, CompletesCommandsAndRemembersThem) {
  Node node;
  node.wake_daemon();
  ASSERT_TRUE(replace_file(node.folder() + "/keys", "encl\t\nexit\n"));
  std::string out =
      node.good({"sh", "-c",
                 "export HOME=" + node.folder() + " TERM=xterm; { sleep 1; cat " + node.folder() +
                     "/keys; sleep 1; } | script -qec " HOBBES_BUILD_DIR "/bin/hobbes /dev/null"});
  EXPECT_NE(out.find("KIND"), std::string::npos)
      << "the completed command was not executed: " << out;
  EXPECT_NE(Files::system().read(node.folder() + "/.hobbes_history").value_or("").find("enclaves"),
            std::string::npos);
}

// hobbesd answers whatever is sent to it, and lives on.
TEST(Control, HostileRequestsCostNothingButAnAnswer) {
  Node node;
  node.wake_daemon();
  pid_t daemon = node.daemon();
  std::string script =
      "import socket,json\n"
      "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect('" +
      node.run_folder() +
      "/control.sock')\n"
      "import os,fcntl\n"
      "fd=os.memfd_create('x',os.MFD_ALLOW_SEALING); os.ftruncate(fd,4096); "
      "fcntl.fcntl(fd,1033,2)\n"
      "bad=[b'nonsense',b'[]',b'{}',b'\"x\"',b'{\"op\":1}',b'{\"op\":\"segment.make\",\"name\":"
      "\"x\",\"persistent\":\"y\"}',b'{\"op\":"
      "\"enclave.reserve\",\"id\":\"a\",\"kind\":\"linux\",\"bound\":\"x\"}',\n"
      " b'{\"op\":\"enclave.reserve\",\"id\":\"a\",\"kind\":\"linux\",\"cores\":[1]}',b'{\"op\":"
      "\"composition.begin\",\"name\":\"c\","
      "\"apps\":[{\"ranks\":65536},{\"ranks\":65536}]}',\n"
      " b'{\"op\":\"enclave.commit\",\"handle\":-1}',b'{\"op\":\"operation.begin\",\"verb\":"
      "\"create\",\"id\":\"../"
      "x\"}',b'{'*50000,b'\\xff\\xfe']\n"
      "for b in bad:\n"
      "  s.send(b)\n"
      "  a=json.loads(s.recv(200000)); assert a['ok'] is False, (b,a)\n"
      "socket.send_fds(s,[b'{\"op\":\"ping\"}'],[fd])\n"
      "try:\n"
      "  a=json.loads(s.recv(200000)); assert a['ok'] is False and 'descriptors' in "
      "a['error']['cause'], a\n"
      "except ConnectionResetError: pass\n"  // the connection is closed with the descriptor unread,
                                             // which may overtake the answer
      "print('answered')\n";
  ASSERT_TRUE(replace_file(node.folder() + "/hostile.py", script));
  EXPECT_EQ(node.good({"python3", node.folder() + "/hostile.py"}), "answered\n");
  EXPECT_EQ(node.daemon(), daemon) << "it is still the same process";
  node.expect_clean();
}

TEST(HobbesRun, FeaturesNamesWhatThisNodeCannotHostAndWhy) {
  Node node;
  Json features = *parse_json(node.good({"hobbes-run", "features"}), "features");
  EXPECT_TRUE(features["hobbes"]["kinds"]["linux"]["available"]);
  EXPECT_FALSE(text_at(features["hobbes"]["kinds"]["kitten"], "why").empty());
  Json kitten = example_config(Kind::kitten, false);
  ASSERT_TRUE(make_directories(node.folder() + "/k/rootfs"));
  ASSERT_TRUE(replace_file(node.folder() + "/k/kitten.img", "x"));
  ASSERT_TRUE(replace_file(node.folder() + "/k/config.json", to_text(kitten)));
  EXPECT_NE(
      node.run({"hobbes-run", "create", "--bundle", node.folder() + "/k", "k"}).err.find("kitten"),
      std::string::npos);
  node.expect_clean();
}

TEST(HobbesRun, ATerminalHasItsPlaceInADevThatIsReadOnly) {
  Node node;
  Json mounts = {{{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}},
                 {{"destination", "/dev"},
                  {"type", "tmpfs"},
                  {"source", "tmpfs"},
                  {"options", {"ro", "nosuid"}}},
                 {{"destination", "/dev/pts"},
                  {"type", "devpts"},
                  {"source", "devpts"},
                  {"options", {"newinstance", "ptmxmode=0666"}}}};
  std::string bundle = node.busybox_bundle(
      "b", "tty; touch /dev/x || echo sealed; tty < /dev/console",
      {{"hobbes", nullptr}, {"mounts", mounts}, {"process", {{"terminal", true}}}});
  std::string out =
      node.good({"sh", "-c",
                 "timeout -s KILL 20 " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " + bundle +
                     " a < /dev/null"});
  EXPECT_NE(out.find("/dev/pts/0"), std::string::npos) << out;
  EXPECT_NE(out.find("sealed"), std::string::npos) << out;
  node.expect_clean();
}

// A user who types more than a program reads must still be able to end it.
TEST(HobbesRun, InputThatNobodyReadsDoesNotKeepSignalsAway) {
  Node node;
  std::string bundle =
      node.bundle("b", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done",
                  {{"process", {{"terminal", true}}}});
  Outcome outcome = node.run({"sh", "-c",
                              "yes | timeout --preserve-status -k 10 3 " HOBBES_BUILD_DIR
                              "/bin/hobbes-run run --bundle " +
                                  bundle + " a"});
  EXPECT_EQ(exit_code_of(outcome.wait_status), 5) << outcome.err;
  EXPECT_NE(outcome.out.find("ready"), std::string::npos) << outcome.out.substr(0, 200);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
