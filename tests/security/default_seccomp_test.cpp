// The profile of host-root enclaves: no new namespaces by any call, no second way around the calls
// that it denies, and calls that are newer than the library that compiled it are known by number.
#include <sys/stat.h>

#include <cerrno>

#include "attack.h"

namespace hobbes::test {
namespace {

// What the kernel says to calls in a host-root enclave; "64 and 32": both ways into it.
std::string answer_of(const Node& node, const std::string& id, std::vector<std::string> numbers) {
  std::string bundle = node.bundle(id, "");
  edit(bundle, [&](Json& config) {
    config["process"]["args"] = {HOBBES_BUILD_DIR "/tests/security/calls"};
    for (const std::string& number : numbers) config["process"]["args"].push_back(number);
  });
  return node.good({"hobbes-run", "run", "--bundle", bundle, id});
}

// What both ways say when a call fails with `number`; a kernel may have no 32-bit way at all.
std::string both(const Node& node, int number) {
  const bool one_way =
      holds(node.good({HOBBES_BUILD_DIR "/tests/security/calls", "39:20"}), "none");
  return " " + std::to_string(number) + " " + (one_way ? "none" : std::to_string(number)) + "\n";
}

std::string python(const Node& node, const std::string& id, const std::string& text,
                   const Json& capabilities) {
  std::string bundle = node.bundle(id, "");
  edit(bundle, [&](Json& config) {
    config["process"]["args"] = {"python3", "-c", text};
    for (const char* set : {"bounding", "effective", "permitted"})
      for (const Json& name : capabilities) config["process"]["capabilities"][set].push_back(name);
  });
  return node.good({"hobbes-run", "run", "--bundle", bundle, id});
}

// clone3's flags lie in memory, where no filter sees them: the call has to be absent, so that
// libraries fall back to clone, and threads still work.
TEST(DefaultSeccomp, Clone3IsAbsentAndMakesNoNamespace) {
  Node node;
  EXPECT_EQ(answer_of(node, "absent", {"435"}), "435 435" + both(node, ENOSYS));
  std::string text = R"(import ctypes, os, threading
call = ctypes.CDLL(None, use_errno=True).syscall
before = os.readlink('/proc/self/ns/user')
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x4000000, 0x8000000, 0x2000000, 0x80):
  words = (ctypes.c_uint64 * 11)()
  words[0] = flag | 0x10000000
  words[4] = 17
  made = call(435, ctypes.byref(words), 88)
  if made == 0: os._exit(0)
  if made > 0: print('a process in a new namespace:', hex(flag))
  if made > 0: os.waitpid(made, 0)
thread = threading.Thread(target=lambda: print('a thread'))
thread.start()
thread.join())";
  EXPECT_EQ(python(node, "made", text, Json::array()), "a thread\n");
}

TEST(DefaultSeccomp, ThereIsNoSecondWayAroundItsCalls) {
  Node node;
  struct Call {
    const char *name, *numbers;
  };
  for (const Call& call :
       {Call{"io_uring_setup", "425"}, Call{"io_uring_enter", "426"},
        Call{"io_uring_register", "427"}, Call{"quotactl", "179:131"}, Call{"quotactl_fd", "443"},
        Call{"open_tree", "428"}, Call{"move_mount", "429"}, Call{"fsopen", "430"},
        Call{"fsconfig", "431"}, Call{"fsmount", "432"}, Call{"fspick", "433"},
        Call{"mount_setattr", "442"}, Call{"open_tree_attr", "467"}, Call{"bpf", "321:357"},
        Call{"perf_event_open", "298:336"}, Call{"setns", "308:346"}, Call{"umount2", "166:52"}}) {
    std::string said = answer_of(node, call.name, {call.numbers});
    EXPECT_TRUE(said.size() > 5 && holds(said, both(node, EPERM))) << call.name << ": " << said;
  }
}

// With userfaultfd a program could hold the kernel up at any access to its memory; snapshots need
// no more than its own accesses.
TEST(DefaultSeccomp, FaultsOfTheKernelAreNobodysToHandle) {
  Node node;
  std::string text = R"(import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
for flags in (0, 0x800, 0x80000): print(call(323, flags), ctypes.get_errno())
print(call(323, 1) >= 0))";
  EXPECT_EQ(python(node, "a", text, Json::array()), "-1 1\n-1 1\n-1 1\nTrue\n");
}

// open_tree_attr (Linux 6.15) does what open_tree and mount_setattr do. With CAP_SYS_ADMIN it makes
// a writable copy of the host's read-only tree.
TEST(DefaultSeccomp, TheHostsTreeStaysReadOnlyForAnEnclaveWithTheRightToMount) {
  Node node;
  std::string target = node.folder() + "/target";
  ASSERT_TRUE(replace_file(target, "as it was"));
  std::string text = R"(import ctypes, os, struct
call = ctypes.CDLL(None, use_errno=True).syscall
wishes = ctypes.create_string_buffer(struct.pack('QQQQ', 0, 1, 0, 0))
tree = call(467, -100, b'/', 1 | 0x80000, wishes, 32)
path = ')" + target + R"('
if tree >= 0:
  try: open('/proc/self/fd/%d' % tree + path, 'w').write('changed')
  except OSError as e: print(e))";
  python(node, "a", text, {"CAP_SYS_ADMIN"});
  EXPECT_EQ(Files::system().read(target).value_or(""), "as it was");
}

}  // namespace
}  // namespace hobbes::test
