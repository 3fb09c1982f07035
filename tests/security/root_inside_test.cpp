// The class of a root that is none: user id 0 inside an enclave is a number its bundle chose.
// Without a grant it has no more rights over what others have on the node than any other user.
#include <sys/mman.h>

#include "attacker.h"

namespace hobbes::test {
namespace {

class RootInside : public ::testing::Test {
 protected:
  RootInside() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  ~RootInside() override {
    for (const std::string& id :
         Files::system().list(node.run_folder() + "/users/1234").value_or({}))
      (void)node.run(
          as_user(victim, {HOBBES_BUILD_DIR "/bin/hobbes-run", "delete", "--force", id}));
  }
  // What a program says that runs as user 0 in an enclave whose bundle grants nothing.
  [[nodiscard]] std::string inside(const std::string& program) const {
    Json patch = {{"hobbes", {{"manage", "none"}, {"cores", nullptr}}},
                  {"linux", {{"namespaces", Json::array({{{"type", "mount"}}})}}}};
    patch["process"]["args"] = {"/usr/bin/python3", "-c", python(node, program)};
    Outcome outcome =
        node.run({"hobbes-run", "run", "--bundle", node.bundle("inner", "true", patch), "inner"});
    EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
    return outcome.out + outcome.err;
  }
  // A segment that only the victim may use, and the process that made it: it says what the memory
  // holds when that changes.
  [[nodiscard]] std::vector<std::string> segment(const std::string& name, bool persistent) const {
    return as_user(victim, {"/usr/bin/python3", "-c",
                            python(node, R"(
import fcntl, mmap
m = os.memfd_create('m', os.MFD_ALLOW_SEALING)
os.ftruncate(m, 4096)
fcntl.fcntl(m, 1033, 7)
memory = mmap.mmap(m, 4096)
memory[:5] = b'whole'
said = Control().ask(op='segment.make', name=')" +
                                             name + "', mode=0o600, fd=m, persistent=" +
                                             (persistent ? "True" : "False") + R"()
print('made', json.dumps(said), flush=True)
while memory[:5] == b'whole': time.sleep(0.02)
print('spoiled', flush=True)
time.sleep(60)
)")});
  }
  Node node;
};

TEST_F(RootInside, NeitherReadsNorWritesAnothersSegment) {
  Background owner(node, "owner", segment("private", false));
  ASSERT_TRUE(owner.says("\"ok\": true")) << owner.output();
  std::string out = inside(R"(
import mmap
for access in ('ro', 'rw'):
  c = Control()
  c.send(op='segment.attach', name='private', access=access)
  said, fds, _, _ = socket.recv_fds(c.s, 1 << 18, 1)
  print(said.decode())
  if fds and access == 'rw': mmap.mmap(fds[0], 4096)[:5] = b'spoil'
print(Control().ask(op='segment.get', name='private', access='ro'))
)");
  EXPECT_EQ(out.find("\"ok\":true"), std::string::npos) << out;
  EXPECT_EQ(out.find("'ok': True"), std::string::npos) << out;
  EXPECT_FALSE(owner.says("spoiled", 1)) << "the memory was written from inside an enclave";
}

TEST_F(RootInside, DoesNotRemoveAnothersSegment) {
  Background owner(node, "owner", segment("private", false));
  ASSERT_TRUE(owner.says("\"ok\": true")) << owner.output();
  std::string out = inside("print(Control().ask(op='segment.remove', name='private'))\n");
  EXPECT_EQ(out.find("'ok': True"), std::string::npos) << out;
  EXPECT_NE(node.good({"hobbes", "segments"}).find("private"), std::string::npos);
}

// The keeper holds what outlives hobbesd, and believes user 0; its socket stands where every
// enclave sees it.
TEST_F(RootInside, DoesNotMakeTheKeeperLetGoOfAnothersSegment) {
  {
    Background owner(node, "owner", segment("kept", true));
    ASSERT_TRUE(owner.says("\"ok\": true")) << owner.output();
  }
  std::string out = inside(R"(
for number in range(3, 64):
  try:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(RUN + '/keeper.sock')
    s.send(json.dumps(dict(op='release', number=number)).encode())
    s.settimeout(5)
    s.recv(100)
  except OSError as e: print(e); break
)");
  node.kill_daemon();
  node.wake_daemon();
  EXPECT_NE(node.good({"hobbes", "segments"}).find("kept"), std::string::npos)
      << "a persistent segment is lost: " << out;
}

TEST_F(RootInside, ReadsNeitherAnothersRecordNorHisLog) {
  std::string bundle = node.bundle("b", "echo what nobody else may read; exec sleep 1000",
                                   {{"hobbes", {{"cores", nullptr}}}});
  node.good({"chown", "-R", "1234:1234", bundle});
  std::string made = node.good(as_user(victim, {"/usr/bin/python3", "-c",
                                                python(node, R"(
status, text = http('POST', '/v1/enclaves', {'id': 'a', 'bundle': ')" +
                                                                 bundle + R"(', 'start': True})
number = json.loads(text)['operation']
for _ in range(400):
  text = http('GET', '/v1/operations/' + number)[1]
  if json.loads(text)['state'] != 'running': break
  time.sleep(0.05)
print(text)
)")}));
  ASSERT_NE(made.find("succeeded"), std::string::npos) << made;
  std::string out = inside(R"(
root = RUN + '/users/1234'
print(*http('GET', '/v1/enclaves/a?root=' + root))
print(*http('GET', '/v1/enclaves/a/logs?root=' + root))
for number in range(1, 4): print(*http('GET', f'/v1/operations/{number}'))
print(json.dumps(Control().ask(op='enclave.describe', root=root, id='a')))
)");
  EXPECT_EQ(out.find("what nobody else may read"), std::string::npos) << out;
  EXPECT_EQ(out.find(bundle), std::string::npos) << out;
  EXPECT_EQ(out.find("succeeded"), std::string::npos) << "another user's operation: " << out;
}

// Who joins a composition is signalled with its launcher's rights when it ends, so a number of
// somebody else's process is none to take.
TEST_F(RootInside, DoesNotHaveAnothersProcessKilledByALauncher) {
  std::string path = node.folder() + "/open.xml";
  ASSERT_TRUE(replace_file(path,
                           "<composition name=\"open\"><enclave name=\"e\"><app name=\"x\" "
                           "ranks=\"1\"/></enclave></composition>"));
  Background other(node, "other", as_user(victim, {"sleep", "1000"}));
  Background host(node, "host", {HOBBES_BUILD_DIR "/bin/remora", "host", "--timeout", "4", path});
  ASSERT_TRUE(host.says("waiting for ranks")) << host.output();
  std::string out = inside(R"(
door = [name for name in os.listdir(RUN) if name.startswith('remora-0-')]
print(door)
for request in (dict(op='join', app='x'), dict(op='arrive', app='x', rank=0, pid=)" +
                           std::to_string(other.pid()) + R"()):
  try:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(RUN + '/' + door[0])
    s.send(json.dumps(request).encode())
    print(s.recv(1 << 18)[:300])
  except OSError as e: print(e)
)");
  EXPECT_TRUE(host.ended(30)) << host.output();
  EXPECT_FALSE(other.ended(0)) << "a process of another user was killed by root's launcher: " << out
                               << host.output();
}

}  // namespace
}  // namespace hobbes::test
