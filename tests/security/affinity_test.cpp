// The class of work that leaves its requester's limits because somebody else does it: what hobbesd
// does for a caller stays on the CPUs and in the control group that the caller is confined to.
#include "attacker.h"

namespace hobbes::test {
namespace {

class Affinity : public ::testing::Test {
 protected:
  Affinity() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  // Makes an enclave of one core through REST, as a program that may run on `cpus` only; the
  // operation's end.
  [[nodiscard]] std::string makes(const std::string& cpus, const std::string& id,
                                  const std::string& bundle, uid_t uid = 0) const {
    std::vector<std::string> argv = {
        "/usr/bin/python3", "-c",
        python(node, R"(
status, text = http('POST', '/v1/enclaves', {'id': ')" +
                         id + "', 'bundle': '" + bundle + R"(', 'start': True})
for _ in range(400):
  if status != 202 or json.loads(text)['state'] != 'running': break
  time.sleep(0.05)
  text = http('GET', '/v1/operations/' + json.loads(text)['operation'])[1]
print(status, text)
)")};
    if (uid != 0) argv = as_user(uid, argv);
    argv.insert(argv.begin(), {"taskset", "-c", cpus});
    return node.run(argv).out;
  }
  [[nodiscard]] std::string one_core(const std::string& name, const Json& patch = {}) const {
    Json whole = {{"hobbes", {{"cores", {{"count", 1}}}}}};
    if (!patch.is_null()) whole.merge_patch(patch);
    std::string path = node.bundle(name, "exec sleep 1000", whole);
    node.good({"chown", "-R", "1235:1235", path});
    return path;
  }
  Node node;
};

// A batch job has CPU 0 and somebody else leases it: there is nothing left for the job, though CPU
// 1 is free.
TEST_F(Affinity, ACallerOfRestGetsNoCpuBeyondHisOwn) {
  Json list = {{"hobbes", {{"cores", {{"count", nullptr}, {"list", "0"}}}}}};
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("other", "exec sleep 1000", list), "other"});
  std::string said = makes("0", "mine", one_core("b"));
  EXPECT_EQ(said.find("succeeded"), std::string::npos) << said;
  EXPECT_NE(text_at(node.enclave("mine"), "cpus"), "1") << "the caller was confined to CPU 0";
  (void)node.run({"hobbes-run", "delete", "--force", "mine"});
  node.good({"hobbes-run", "delete", "--force", "other"});
  node.expect_clean();
}

TEST_F(Affinity, ACallerOfRestGetsACpuOfHisOwn) {
  std::string said = makes("1", "mine", one_core("b"));
  EXPECT_NE(said.find("succeeded"), std::string::npos) << said;
  EXPECT_EQ(text_at(node.enclave("mine"), "cpus"), "1");
  (void)node.run({"hobbes-run", "delete", "--force", "mine"});
}

TEST_F(Affinity, WhatIsDoneForACallerStaysOnHisCpus) {
  std::string seen = node.folder() + "/seen";
  Json hook = {{"path", "/bin/sh"},
               {"args", {"sh", "-c", "grep Cpus_allowed_list /proc/self/status > " + seen}}};
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"]["createRuntime"] = Json::array({hook});
  std::string said = makes("1", "mine", one_core("b", patch));
  EXPECT_NE(said.find("succeeded"), std::string::npos) << said;
  std::string list = Files::system().read(seen).value_or("");
  EXPECT_EQ(list.substr(list.find('\t') + 1), "1\n");
  (void)node.run({"hobbes-run", "delete", "--force", "mine"});
}

// Growing is a request like making.
TEST_F(Affinity, ACallerOfRestGrowsNoFurtherThanHisOwn) {
  node.good({"taskset", "-c", "0", HOBBES_BUILD_DIR "/bin/hobbes-run", "run", "--detach",
             "--bundle", one_core("b"), "mine"});
  ASSERT_EQ(text_at(node.enclave("mine"), "cpus"), "0");
  std::string said = node.run({"taskset", "-c", "0", "/usr/bin/python3", "-c", python(node, R"(
status, text = http('PATCH', '/v1/enclaves/mine', {'cores': {'count': 2}})
for _ in range(400):
  if status != 202 or json.loads(text)['state'] != 'running': break
  time.sleep(0.05)
  text = http('GET', '/v1/operations/' + json.loads(text)['operation'])[1]
print(status, text)
)")})
                         .out;
  EXPECT_EQ(text_at(node.enclave("mine"), "cpus"), "0") << said;
  node.good({"hobbes-run", "delete", "--force", "mine"});
}

// A control group is a limit of memory, processes and time as well; the test's is one of a
// controller that every node has.
TEST_F(Affinity, WhatIsDoneForACallerStaysInHisControlGroup) {
  std::string group = node.good({"sh", "-c",
                                 "for d in /sys/fs/cgroup/pids /sys/fs/cgroup; do test -w "
                                 "$d/cgroup.procs && mkdir $d/hobbes-affinity-test-$$ && "
                                 "chmod 755 $d/hobbes-affinity-test-$$ && printf %s "
                                 "$d/hobbes-affinity-test-$$ && break; done"});
  ASSERT_FALSE(group.empty());
  std::string seen = node.folder() + "/seen";
  Json hook = {{"path", "/bin/sh"}, {"args", {"sh", "-c", "cat /proc/self/cgroup > " + seen}}};
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"]["createRuntime"] = Json::array({hook});
  std::string bundle = one_core("b", patch);
  std::string program = script(node, "confined",
                               "open('" + group + "/cgroup.procs', 'w').write('0')\n" + R"(
status, text = http('POST', '/v1/enclaves', {'id': 'mine', 'bundle': ')" +
                                   bundle + R"('})
for _ in range(400):
  if status != 202 or json.loads(text)['state'] != 'running': break
  time.sleep(0.05)
  text = http('GET', '/v1/operations/' + json.loads(text)['operation'])[1]
print(status, text)
)");
  std::string said = node.good({"/usr/bin/python3", program});
  std::string groups = Files::system().read(seen).value_or("");
  EXPECT_NE(groups.find(group.substr(group.rfind('/'))), std::string::npos) << said << groups;
  (void)node.run({"hobbes-run", "delete", "--force", "mine"});
  EXPECT_TRUE(eventually([&] { return ::rmdir(group.c_str()) == 0; }));
}

}  // namespace
}  // namespace hobbes::test
