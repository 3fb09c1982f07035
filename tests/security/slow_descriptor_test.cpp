// The class of descriptors that make their holder wait: looking at, or merely closing, a file of a
// user's own file system waits for that user. hobbesd has one loop for everybody; nothing that
// somebody sends may be touched there before it is known to be harmless.
#include "attacker.h"

namespace hobbes::test {
namespace {

// A user's file system with one file, mounted in a user namespace of his own, which needs no
// privilege. It opens the file and then answers nothing about it any more: neither what it is
// (GETATTR), nor that it is closed (FLUSH) unless it is polite, nor that it is written (WRITE).
const char* const slow_file = R"(
libc = ctypes.CDLL(None, use_errno=True)
def must(result, what):
  if result < 0: print('cannot', what, os.strerror(ctypes.get_errno()), flush=True); os._exit(3)
uid, gid = os.getuid(), os.getgid()
must(libc.unshare(0x10000000 | 0x20000), 'unshare')
for name, text in (('setgroups', 'deny'), ('uid_map', f'0 {uid} 1'), ('gid_map', f'0 {gid} 1')):
  open('/proc/self/' + name, 'w').write(text)
fuse = os.open('/dev/fuse', os.O_RDWR)
must(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None), 'mount tmpfs')
os.mkdir('/mnt/slow')
options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0'.encode()
must(libc.mount(b'slow', b'/mnt/slow', b'fuse', 6, options), 'mount fuse')
def attributes(ino, mode):
  return struct.pack('<6Q10I', ino, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def serve():
  opened = False
  while True:
    request = os.read(fuse, 1 << 18)
    size, code, unique, node = struct.unpack('<IIQQ', request[:24])
    def answer(data=b'', error=0):
      os.write(fuse, struct.pack('<IiQ', 16 + len(data), error, unique) + data)
    if code == 26:
      answer(struct.pack('<IIIIHHIIHHIIIIII', 7, 31, 65536, 1 << 16, 16, 12, 65536, 1, 1,
                         *[0] * 7))
    elif code == 1: answer(struct.pack('<QQQQII', 2, 0, 3600, 3600, 0, 0) + attributes(2, 0o100666))
    elif code == 3 and not opened:
      mode = 0o40777 if node == 1 else 0o100666
      answer(struct.pack('<QII', 3600, 0, 0) + attributes(node, mode))
    elif code in (14, 27): opened = True; answer(struct.pack('<QII', 1, 0, 0))
    elif code == 22: answer(error=-61)
    elif code == 25 and polite: answer()
    elif code == 15 and polite: answer(bytes(4096))
    elif code in (3, 15, 16, 25): print('waits', code, flush=True)
    elif code in (2, 42): pass
    else: answer(error=-38)
polite = sys.argv[1] == 'InsideAHarmlessOne'
if os.fork() == 0:
  try: serve()
  except Exception as e: print('server', repr(e), flush=True)
  os._exit(0)
os.close(fuse)  # the file system ends with its server
slow = os.open('/mnt/slow/file', os.O_RDWR)
)";

struct Way {
  const char* name;
  const char* sends;
};

void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class SlowDescriptorSent : public ::testing::TestWithParam<Way> {};

TEST_P(SlowDescriptorSent, KeepsNobodyElseWaiting) {
  Node node;
  node.wake_daemon();
  if (::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "this machine has no FUSE";
  std::string path = script(node, "slow",
                            std::string(slow_file) + "c = Control()\n" + GetParam().sends +
                                "\nprint('sent', flush=True)\ntime.sleep(60)\n");
  Background slow(node, "slow", as_user(attacker, {"/usr/bin/python3", path, GetParam().name}));
  bool sent = slow.says("sent");
  if (slow.output().find("cannot ") != std::string::npos)
    GTEST_SKIP() << "users cannot mount FUSE here: " << slow.output();
  ASSERT_TRUE(sent) << slow.output();
  EXPECT_TRUE(answers(node, 5)) << "hobbesd waits for a user's file system: " << slow.output();
  slow.end();  // with its server the file system is gone, and a process that waits for it goes on
  EXPECT_TRUE(answers(node, 10));
}

// A harmless descriptor may carry a slow one: here a socket whose queue holds the last reference to
// a file with unwritten data. Not even receiving it is enough to be safe, since the kernel writes
// that data when the reference goes, wherever it goes; so the loop must not be the one that drops
// what is sent to it.
const char* const nested =
    R"(slow_ends, carrier = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
slow_ends.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [slow]))])
os.close(slow)
other = os.open('/mnt/slow/file', os.O_RDWR)
os.write(other, b'x' * 4096)
for _ in range(100): c.send(op='node')
c.send([carrier.fileno()], op='ping')
print('sent', flush=True)
carrier.close())";

INSTANTIATE_TEST_SUITE_P(
    Every, SlowDescriptorSent,
    ::testing::Values(Way{"SentWithARequestThatTakesNone", "c.send([slow], op='ping')"},
                      Way{"SentAsTheMemoryOfASegment",
                          "c.send([slow], op='segment.make', name='s', mode=0o600)"},
                      Way{"SentAsAProcess", "c.send([slow], op='enclave.enter', handle=1)"},
                      Way{"SentWithWordsThatAreNoRequest",
                          "c.s.sendmsg([b'nonsense'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, "
                          "array.array('i', [slow]))])"},
                      Way{"SentWithARequestThatIsTooLarge",
                          "c.s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)\n"
                          "c.s.sendmsg([b' ' * (200 << 10)], [(socket.SOL_SOCKET, "
                          "socket.SCM_RIGHTS, array.array('i', [slow]))])"},
                      Way{"SentBehindOneThatIsTaken",
                          "m = os.memfd_create('m', os.MFD_ALLOW_SEALING)\nc.send([m, slow], "
                          "op='segment.make', name='s', mode=0o600)"},
                      Way{"InsideAHarmlessOne", nested}),
    [](const auto& test) { return std::string(test.param.name); });

// No file system is needed: the last one to close a connection with unsent data waits as long as
// its owner has said.
TEST(SlowDescriptor, OfAConnectionThatLingersKeepsNobodyElseWaiting) {
  Node node;
  node.wake_daemon();
  std::string path = script(node, "slow", R"(
door = socket.create_server(('127.0.0.1', 0))
slow = socket.create_connection(door.getsockname())
silent, _ = door.accept()
slow.setblocking(False)
try:
  while True: slow.send(bytes(65536))
except BlockingIOError: pass
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
c = Control()
for _ in range(100): c.send(op='node')
c.send([slow.fileno()], op='ping')
slow.close()
print('sent', flush=True)
time.sleep(60)
)");
  Background slow(node, "slow", as_user(attacker, {"/usr/bin/python3", path}));
  ASSERT_TRUE(slow.says("sent")) << slow.output();
  EXPECT_TRUE(answers(node, 5)) << "hobbesd waits for a user's connection";
  slow.end();
  EXPECT_TRUE(answers(node, 10));
}

}  // namespace
}  // namespace hobbes::test
