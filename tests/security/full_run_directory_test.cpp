// The class of writes into a hole: a mapped file whose blocks do not exist yet is written until the
// file system has no room, and the kernel answers with SIGBUS. Whatever a user fills, hobbesd goes
// on and says so.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "attacker.h"

namespace hobbes::test {
namespace {

// A node whose run directory is a small file system of its own, as /run is on most machines.
class FullRunDirectory : public ::testing::Test {
 protected:
  FullRunDirectory() {
    ::chmod(node.folder().c_str(), 0755);
    mounted = ::mount("tmpfs", node.run_folder().c_str(), "tmpfs", 0, "size=40m,mode=0755") == 0;
    EXPECT_TRUE(mounted);
    node.wake_daemon();
    daemon = node.daemon();
  }
  ~FullRunDirectory() override {
    node.kill_daemon();
    EXPECT_TRUE(!mounted ||
                eventually([&] { return ::umount2(node.run_folder().c_str(), 0) == 0; }, 15));
  }
  [[nodiscard]] std::string as(uid_t uid, const std::string& text) const {
    Outcome outcome = node.run(as_user(uid, {"/usr/bin/python3", "-c", python(node, text)}), 120);
    return outcome.out + outcome.err;
  }
  // What is left is taken by a file of the test, but for `bytes`: so it does not matter how much
  // hobbesd has of its own.
  void leave(std::uint64_t bytes) const {
    struct statvfs info {};
    ASSERT_EQ(::statvfs(node.run_folder().c_str(), &info), 0);
    std::uint64_t room = info.f_bavail * info.f_frsize;
    Fd fd(::open((node.run_folder() + "/ballast").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    off_t taken = room > bytes ? static_cast<off_t>(room - bytes) : 1;
    ASSERT_EQ(::posix_fallocate(fd.get(), 0, taken), 0);
  }
  void expect_served() const {
    EXPECT_EQ(node.daemon(), daemon) << "hobbesd has died";
    EXPECT_TRUE(answers(node));
  }
  Node node;
  bool mounted = false;
  pid_t daemon = 0;
};

TEST_F(FullRunDirectory, KeysOfAUsersCompositionDoNotEndHobbesd) {
  leave(8 << 20);
  std::string out = as(attacker, R"(
c = Control()
h = c.ask(op='composition.begin', name='many', apps=[])['handle']
for batch in range(40):
  keys = {f'k{batch}.{i}': 'v' * 60 for i in range(500)}
  said = c.ask(op='composition.keys', handle=h, keys=keys)
  if not said['ok']: break
print('last', json.dumps(said))
)");
  EXPECT_NE(out.find("last "), std::string::npos) << "hobbesd went away: " << out;
  expect_served();
}

TEST_F(FullRunDirectory, RecordsOfAUsersCompositionsDoNotEndHobbesd) {
  leave(1 << 20);
  std::string out = as(attacker, R"(
held = []
for i in range(20):
  c = Control()
  held.append(c)
  said = c.ask(op='composition.begin', name=f'c{i}', apps=[{'name': 'a', 'ranks': 4000}])
  if not said['ok']: break
print('last', json.dumps(said)[:200])
)");
  EXPECT_NE(out.find("last "), std::string::npos) << "hobbesd went away: " << out;
  expect_served();
}

// A user's own folder and the logs of his operations stand in the same file system.
const char* const fill_it = R"(
print(Control().ask(op='root.make'))
f = open(RUN + f'/users/{os.getuid()}/big', 'wb')
try:
  while True: f.write(bytes(1 << 16)); f.flush()
except OSError as e: print(e)
)";

TEST_F(FullRunDirectory, AUsersFilesDoNotEndHobbesd) {
  std::string filled = as(attacker, fill_it);
  std::string out = as(victim, R"(
for i in range(5):
  c = Control()
  said = c.ask(op='composition.begin', name=f'c{i}', apps=[{'name': 'a', 'ranks': 4000}])
  print('last', json.dumps(said)[:200])
)");
  EXPECT_NE(out.find("last "), std::string::npos) << "hobbesd went away: " << filled << out;
  expect_served();
}

// The last space is hobbesd's own: what root does goes on, and everybody can read it.
TEST_F(FullRunDirectory, AUsersFilesDoNotTakeHobbesdsLastSpace) {
  std::string filled = as(attacker, fill_it);
  std::string out = node.run({"/usr/bin/python3", "-c", python(node, R"(
c = Control()
said = c.ask(op='composition.begin', name='roots', apps=[{'name': 'a', 'ranks': 2000}])
print('begun' if said['ok'] else said)
print(http('GET', '/v1/compositions')[1])
)")},
                             60)
                        .out;
  EXPECT_NE(out.find("begun"), std::string::npos) << filled << out;
  EXPECT_NE(out.find("\"name\":\"roots\""), std::string::npos)
      << "nobody can read it in the mirror: " << out;
  expect_served();
}

}  // namespace
}  // namespace hobbes::test
