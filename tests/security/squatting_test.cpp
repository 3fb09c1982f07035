// The class of names that go to the first user who asks: a name that another user needs must not be
// taken, nor answered for, by somebody else.
#include "attacker.h"

namespace hobbes::test {
namespace {

class Squatting : public ::testing::Test {
 protected:
  Squatting() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  ~Squatting() override {
    for (const std::string& id :
         Files::system().list(node.run_folder() + "/users/1234").value_or({}))
      (void)node.run(
          as_user(victim, {HOBBES_BUILD_DIR "/bin/hobbes-run", "delete", "--force", id}));
  }
  // The attacker holds the id "web" in somebody's root, with a process of his own, for as long as
  // he is wanted.
  [[nodiscard]] std::vector<std::string> takes_id(const std::string& root) const {
    return as_user(attacker, {"/usr/bin/python3", script(node, "squat", R"(
c = Control()
said = c.ask(op='enclave.reserve', root=')" + root + R"(', id='web', kind='linux')
print(said)
if said['ok']:
  start = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[19])
  h = said['handle']
  print(c.ask(op='enclave.enter', handle=h, pid=os.getpid(), startTicks=start))
  print(c.ask(op='enclave.commit', handle=h, pid=os.getpid(), startTicks=start,
              cgroup=said.get('cgroup', '')))
print('there', flush=True)
time.sleep(60)
)")});
  }
  [[nodiscard]] Outcome makes(uid_t uid, const std::string& id) const {
    std::string bundle = node.bundle("b", "echo ran", {{"hobbes", {{"cores", nullptr}}}});
    std::vector<std::string> argv = {HOBBES_BUILD_DIR "/bin/hobbes-run", "run", "--bundle", bundle,
                                     id};
    node.good({"chown", "-R", std::to_string(uid) + ":" + std::to_string(uid), bundle});
    return node.run(uid == 0 ? argv : as_user(uid, argv));
  }
  Node node;
};

TEST_F(Squatting, AnIdInRootsRootIsRoots) {
  Background squatter(node, "squatter", takes_id(node.run_folder() + "/enclaves"));
  ASSERT_TRUE(squatter.says("there")) << squatter.output();
  Outcome outcome = makes(0, "web");
  EXPECT_EQ(outcome.out, "ran\n") << outcome.err << squatter.output();
  EXPECT_NE(number_at(node.enclave("web"), "uid", 0), static_cast<std::int64_t>(attacker))
      << "the node shows an enclave of root's that is not";
}

TEST_F(Squatting, AnIdInAnotherUsersRootIsHis) {
  Background squatter(node, "squatter", takes_id(node.run_folder() + "/users/1234"));
  ASSERT_TRUE(squatter.says("there")) << squatter.output();
  Outcome outcome = makes(victim, "web");
  EXPECT_EQ(outcome.out, "ran\n") << outcome.err << squatter.output();
}

// Engines have roots of their own, which are folders of root's as well.
TEST_F(Squatting, AFolderThatOneDoesNotOwnIsNoRoot) {
  ASSERT_TRUE(make_directories(node.folder() + "/engine"));
  Background squatter(node, "squatter", takes_id(node.folder() + "/engine"));
  ASSERT_TRUE(squatter.says("there")) << squatter.output();
  EXPECT_NE(squatter.output().find("'ok': False"), std::string::npos)
      << "a user has an enclave in a folder of root's: " << squatter.output();
  std::string bundle = node.bundle("b", "echo ran", {{"hobbes", {{"cores", nullptr}}}});
  EXPECT_EQ(node.run({"hobbes-run", "--root", node.folder() + "/engine", "run", "--bundle", bundle,
                      "web"})
                .out,
            "ran\n");
}

// The log of an enclave made through REST has a name that follows from its root and id.
TEST_F(Squatting, TheLogOfAnEnclaveIsItsUsers) {
  std::string bundle =
      node.bundle("b", "echo ran; exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}});
  node.good({"chown", "-R", "1234:1234", bundle});
  std::string body = "{'id': 'web', 'bundle': '" + bundle + "', 'start': True}";
  std::string squat = node.good(as_user(
      attacker,
      {"/usr/bin/python3", "-c",
       python(node, "print(*http('POST', '/v1/enclaves?root=' + RUN + '/users/1234', " + body +
                        "))\n"
                        "print(Control().ask(op='operation.begin', verb='create', id='web', "
                        "root=RUN + '/users/1234', arguments=['list']))\ntime.sleep(0.5)\n")}));
  std::string made = node.good(
      as_user(victim, {"/usr/bin/python3", "-c",
                       python(node, "print(*http('POST', '/v1/enclaves', " + body + "))\n")}));
  EXPECT_EQ(made.substr(0, 4), "202 ") << made << squat;
}

// Makes a segment that everybody may use and holds it.
std::vector<std::string> makes_segment(const Node& node, uid_t uid, const std::string& name,
                                       const std::string& text) {
  return as_user(uid, {"/usr/bin/python3", "-c",
                       python(node, R"(
import fcntl, mmap
m = os.memfd_create('m', os.MFD_ALLOW_SEALING)
os.ftruncate(m, 4096)
fcntl.fcntl(m, 1033, 7)
mmap.mmap(m, 4096)[:8] = b')" + text + R"('
print(json.dumps(Control().ask(op='segment.make', name=')" +
                                        name + R"(', mode=0o666, fd=m)), flush=True)
print('there', flush=True)
time.sleep(60)
)")});
}

TEST_F(Squatting, ASegmentsNameIsItsUsers) {
  Background squatter(node, "squatter", makes_segment(node, attacker, "job-input", "poisoned"));
  ASSERT_TRUE(squatter.says("there")) << squatter.output();
  Background owner(node, "owner", makes_segment(node, victim, "job-input", "expected"));
  ASSERT_TRUE(owner.says("there")) << owner.output();
  EXPECT_NE(owner.output().find("\"ok\": true"), std::string::npos)
      << "another user keeps the name from him: " << owner.output();
  std::string attached = node.run(as_user(victim, {HOBBES_BUILD_DIR "/tests/programs/segment-peer",
                                                   "attach", "job-input", "ro"}))
                             .out;
  EXPECT_EQ(attached.substr(0, 8), "expected")
      << "what a program of the user attaches by name is another user's";
}

TEST_F(Squatting, ASegmentThatABundleDeclaresIsNotTakenBeforehand) {
  Background squatter(node, "squatter", makes_segment(node, attacker, "declared", "poisoned"));
  ASSERT_TRUE(squatter.says("there")) << squatter.output();
  Json segment = {{"name", "declared"}, {"size", "4KiB"}};
  std::string bundle = node.bundle(
      "b", "echo ran", {{"hobbes", {{"cores", nullptr}, {"segments", Json::array({segment})}}}});
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "e"});
  EXPECT_EQ(outcome.out, "ran\n") << outcome.err;
}

}  // namespace
}  // namespace hobbes::test
