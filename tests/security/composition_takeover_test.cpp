// The class of credentials that are only said: PMIx's `native` security believes the user id that
// its TCP client sends. Who connects must be looked up in the kernel, and who is refused must keep
// nobody waiting.
#include "attacker.h"

namespace hobbes::test {
namespace {

const std::string programs = HOBBES_BUILD_DIR "/tests/programs/";

class CompositionTakeover : public ::testing::Test {
 protected:
  CompositionTakeover() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
    node.bundle(
        "one", "true",
        {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
         {"process", {{"capabilities", nullptr}}}});
    node.good({"chown", "-R", "1234:1234", node.folder() + "/one"});
  }
  // A launcher that had to be killed leaves its folder; it is swept by the next one of its user,
  // which the tests are not.
  ~CompositionTakeover() override {
    (void)node.run({"sh", "-c", "rm -rf /dev/shm/remora-*-takenover"});
  }
  // Command line of a composition of the victim's with two ranks that run for a while and end well.
  [[nodiscard]] std::vector<std::string> composition(const std::string& how) const {
    std::string path = node.folder() + "/c.xml";
    EXPECT_TRUE(replace_file(path,
                             "<composition name=\"takenover\"><enclave name=\"one\" "
                             "bundle=\"one\"><app name=\"a\" path=\"" +
                                 programs + "misbehave\" ranks=\"2\" argv=\"" + how +
                                 "\"/></enclave></composition>"));
    return as_user(victim, {HOBBES_BUILD_DIR "/bin/remora", "run", "--timeout", "40", path});
  }
  // Finds the victim's job by what everybody may read, claims to be `claimed` and one of its ranks,
  // and then does `deed`.
  [[nodiscard]] std::string attack(uid_t claimed, const std::string& deed) const {
    return R"(
def job():
  for name in os.listdir('/dev/shm'):
    parts = name.split('-')
    if parts[0] == 'remora' and parts[-1] == 'takenover': return f'remora-{parts[1]}-takenover'
def ports():
  lines = [line.split() for line in open('/proc/net/tcp').read().splitlines()[1:]]
  return [int(f[1].split(':')[1], 16) for f in lines if f[3] == '0A' and f[7] == '1234']
for _ in range(500):
  nspace, doors = job(), ports()
  if nspace and doors: break
  time.sleep(0.02)
print('job', nspace, doors, flush=True)
if not nspace or not doors: print('done', flush=True); os._exit(0)
libc = ctypes.CDLL(None, use_errno=True)
uid, gid, claimed = os.getuid(), os.getgid(), )" +
           std::to_string(claimed) + R"(
if uid != claimed:
  if libc.unshare(0x10000000) != 0: print('no user namespaces, done', flush=True); os._exit(0)
  maps = (('setgroups', 'deny'), ('uid_map', f'{claimed} {uid} 1'),
          ('gid_map', f'{claimed} {gid} 1'))
  for name, text in maps:
    open('/proc/self/' + name, 'w').write(text)
class Proc(ctypes.Structure):
  _fields_ = [('nspace', ctypes.c_char * 256), ('rank', ctypes.c_uint32)]
def become(rank, door):
  for key in list(os.environ):
    if 'PMIX' in key: del os.environ[key]
  os.environ.update(PMIX_NAMESPACE=nspace, PMIX_RANK=str(rank), PMIX_SECURITY_MODE='native',
                    PMIX_GDS_MODULE='hash', PMIX_MCA_gds='hash',
                    PMIX_BFROP_BUFFER_TYPE='PMIX_BFROP_BUFFER_NON_DESC', PMIX_VERSION='4.2.2',
                    HOME='/tmp', TMPDIR='/tmp')
  for version in ('41', '4', '3', '2', '21'):
    os.environ['PMIX_SERVER_URI' + version] = f'{nspace}-server.0;tcp4://127.0.0.1:{door}'
  pmix = ctypes.CDLL('libpmix.so.2')
  me = Proc()
  signal.alarm(8)
  status = pmix.PMIx_Init(ctypes.byref(me), None, ctypes.c_size_t(0))
  print('rank', rank, 'door', door, 'init', status, flush=True)
  return pmix, status
for door in doors:
  if os.fork() == 0:
    pmix, status = become(0, door)
)" + deed + R"(
    os._exit(0)
  os.wait()
print('done', flush=True)
)";
  }
  Node node;
};

TEST_F(CompositionTakeover, AnotherUserIsNoRankWhateverHeClaims) {
  std::string path = script(node, "attack",
                            attack(victim,
                                   "    if status == 0: print('abort', pmix.PMIx_Abort(77, b'taken "
                                   "over', None, ctypes.c_size_t(0)), flush=True)"));
  Background target(node, "target", composition("late"));
  Background attacking(node, "attack", as_user(attacker, {"/usr/bin/python3", path}));
  EXPECT_TRUE(attacking.says("done", 40)) << attacking.output();
  EXPECT_EQ(attacking.output().find("init 0"), std::string::npos)
      << "another user became a rank: " << attacking.output();
  int status = -1;
  EXPECT_TRUE(target.ended(60, &status)) << target.output();
  EXPECT_EQ(status, 0) << "another user ended the composition: " << target.output();
}

// Without a namespace PMIx sees through him; the composition must not wait for what it has refused.
TEST_F(CompositionTakeover, ARefusedAttemptLeavesTheCompositionAsItWas) {
  std::string path = script(node, "attack", attack(attacker, ""));
  Background target(node, "target", composition("late"));
  Background attacking(node, "attack", as_user(attacker, {"/usr/bin/python3", path}));
  EXPECT_TRUE(attacking.says("done", 40)) << attacking.output();
  int status = -1;
  bool ended = target.ended(60, &status);
  EXPECT_TRUE(ended) << "the composition never ends: " << target.output();
  EXPECT_EQ(status, 0) << target.output();
}

// Nor does it need words: a client that connects and says nothing, or nonsense.
TEST_F(CompositionTakeover, SilentAndSenselessClientsLeaveTheCompositionAsItWas) {
  std::string text = attack(attacker, "    pass");
  text = text.substr(0, text.find("libc = ")) + R"(
held = []
for door in doors:
  for i in range(40):
    s = socket.create_connection(('127.0.0.1', door))
    if i % 2: s.sendall(struct.pack('<IiQQ', 0, 0, 0, 1 << 40) + b'x' * 300)
    held.append(s)
print('done', flush=True)
time.sleep(60)
)";
  std::string path = script(node, "attack", text);
  Background target(node, "target", composition("late"));
  Background attacking(node, "attack", as_user(attacker, {"/usr/bin/python3", path}));
  EXPECT_TRUE(attacking.says("done", 40)) << attacking.output();
  int status = -1;
  EXPECT_TRUE(target.ended(60, &status)) << "the composition never ends: " << target.output();
  EXPECT_EQ(status, 0) << target.output();
}

}  // namespace
}  // namespace hobbes::test
