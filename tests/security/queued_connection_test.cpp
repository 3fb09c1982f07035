// The class of identity by pid: a number outlives its process. A process that connected, exited and
// had his number used again must not be taken for the process that has it now, be that hobbesd
// itself, a program of an enclave or one outside of it.
#include <fcntl.h>
#include <linux/sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "attacker.h"

namespace hobbes::test {
namespace {

// fork() with a chosen number, as if all other numbers had been used meanwhile; -1 when it is not
// free. Only execve may follow.
pid_t fork_as(pid_t wanted) {
  pid_t number = -1;
  eventually([&] {
    clone_args args{};
    args.exit_signal = SIGCHLD;
    args.set_tid = reinterpret_cast<__u64>(&wanted);
    args.set_tid_size = 1;
    number = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    return number >= 0 || errno != EEXIST;
  });
  return number;
}

// A process that only has a number.
class Impostor {
 public:
  explicit Impostor(pid_t wanted) : pid_(fork_as(wanted)) {
    if (pid_ != 0) return;
    ::execl("/bin/sleep", "sleep", "1000", nullptr);
    ::_exit(127);
  }
  ~Impostor() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

Fd listening(const std::string& path, int type) {
  Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd.get(), 64), 0);
  ::chmod(path.c_str(), 0666);
  return fd;
}

// As systemd starts it: with sockets that others have connected to already.
pid_t start_hobbesd(const Fd& control, const Fd& api, pid_t number) {
  static std::string pid = "LISTEN_PID=";
  pid = "LISTEN_PID=" + std::to_string(number);
  pid_t child = fork_as(number);
  if (child != 0) return child;
  ::putenv(pid.data());
  ::setenv("LISTEN_FDS", "2", 1);
  int copies[2] = {::fcntl(control.get(), F_DUPFD, 100), ::fcntl(api.get(), F_DUPFD, 100)};
  ::dup2(copies[0], 3);
  ::dup2(copies[1], 4);
  ::syscall(SYS_close_range, 5, ~0U, 0);
  ::execl(HOBBES_BUILD_DIR "/bin/hobbesd", "hobbesd", nullptr);
  ::_exit(127);
}

// With socket activation a user can connect before hobbesd is there, exit, and let numbers go round
// until hobbesd gets his.
TEST(QueuedConnection, IsNotHobbesdsOwnWhenItsNumberIs) {
  Node node;
  Fd control = listening(node.run_folder() + "/control.sock", SOCK_SEQPACKET);
  Fd api = listening(node.run_folder() + "/api.sock", SOCK_STREAM);
  Json hook = {{"path", "/bin/sh"}, {"args", {"sh", "-c", "id -u > " + node.folder() + "/trace"}}};
  Json patch = {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}};
  patch["hooks"]["createRuntime"] = Json::array({hook});
  std::string evil = node.bundle("evil", "true", patch);
  // He asks for one thing by the words of a command line and for one without.
  std::string path = script(
      node, "queue",
      "who = dict(asUid=0, asGid=0, asPid=1)\nc = Control()\n"
      "c.send(op='operation.begin', verb='run', id='x', arguments=['--root', RUN + '/enclaves', "
      "'run', "
      "'--bundle', '" +
          evil +
          "', 'x'], **who)\n"
          "m = os.memfd_create('m', os.MFD_ALLOW_SEALING)\nos.ftruncate(m, 4096)\nimport fcntl\n"
          "fcntl.fcntl(m, 1033, 7)\n"
          "c.send(op='segment.make', name='forged', mode=0o600, persistent=True, fd=m, **who)\n"
          "print(os.getpid())\n");
  pid_t number = std::atoi(node.good(as_user(attacker, {"/usr/bin/python3", path})).c_str());
  ASSERT_GT(number, 1);
  pid_t daemon = start_hobbesd(control, api, number);
  ASSERT_EQ(daemon, number);
  EXPECT_TRUE(eventually([&] { return answers(node, 2); })) << "hobbesd serves nobody";
  // Our own request came after his in the queue, so his have been answered, one way or the other.
  std::string owners = node.good({"/usr/bin/python3", "-c",
                                  python(node,
                                         "for _ in range(200):\n"
                                         "  if Control().ask(op='operation.get', "
                                         "operation='1').get('state') != 'running': break\n"
                                         "  time.sleep(0.05)\n"
                                         "print(http('GET', '/v1/segments')[1])\n")});
  EXPECT_FALSE(Files::system().exists(node.folder() + "/trace"))
      << "a user's hook ran as user "
      << Files::system().read(node.folder() + "/trace").value_or("?");
  EXPECT_EQ(owners.find("\"uid\":0"), std::string::npos)
      << "a user made a segment of root's: " << owners;
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
}

// A process connects, hands the connection to a child and ends; the child asks when it is told to,
// and says what it was answered.
std::string asks_later(const Node& node, const std::string& request) {
  return python(node, R"(
if os.fork() == 0:
  c = Control()
  print('pid', os.getpid(), flush=True)
  if os.fork() != 0: os._exit(0)
  for _ in range(2000):
    if os.path.exists(RUN + '/go'): break
    time.sleep(0.02)
  print('answer', json.dumps(c.ask()" +
                          request + R"()), flush=True)
  os._exit(0)
os.wait()
print('reaped', flush=True)
time.sleep(60)
)");
}

pid_t number_after(const std::string& text, const std::string& word) {
  std::size_t at = text.find(word);
  return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + word.size());
}

// An enclave's own segments are for the processes inside, and which these are must not follow from
// a number alone.
TEST(QueuedConnection, OfAnotherUserIsNotInsideWhenItsNumberIs) {
  Node node;
  ::chmod(node.folder().c_str(), 0755);
  Json segment = {{"name", "private"}, {"size", "4KiB"}};
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("b", "exec sleep 1000",
                         {{"hobbes", {{"cores", nullptr}, {"segments", Json::array({segment})}}}}),
             "e"});
  std::string request = "op='segment.attach', name='private', access='rw'";
  Outcome honest =
      node.run(as_user(attacker, {"/usr/bin/python3", "-c",
                                  python(node, "print(Control().ask(" + request + ")['ok'])\n")}));
  ASSERT_EQ(honest.out, "False\n") << honest.err;
  Background later(node, "later",
                   as_user(attacker, {"/usr/bin/python3", "-c", asks_later(node, request)}));
  ASSERT_TRUE(later.says("reaped")) << later.output();
  pid_t number = number_after(later.output(), "pid ");
  Impostor impostor(number);
  ASSERT_EQ(impostor.pid(), number);
  node.good({"sh", "-c",
             "for f in $(find /sys/fs/cgroup -path '*/hobbes/*-e/cgroup.procs'); do echo " +
                 std::to_string(number) + " > $f; done"});
  ASSERT_TRUE(replace_file(node.run_folder() + "/go", ""));
  EXPECT_TRUE(later.says("answer ", 40));
  EXPECT_EQ(later.output().find("\"ok\": true"), std::string::npos)
      << "another user's private segment: " << later.output();
  node.good({"hobbes-run", "delete", "--force", "e"});
}

// Nor is a process that connected from inside an enclave outside of it.
TEST(QueuedConnection, FromInsideAnEnclaveIsNotOutsideWhenItsNumberIs) {
  Node node;
  Json patch = {{"hobbes", {{"cores", nullptr}, {"manage", "none"}}},
                {"linux", {{"namespaces", Json::array({{{"type", "mount"}}})}}}};
  patch["process"]["args"] = {
      "/usr/bin/python3", "-c",
      asks_later(node, "op='enclave.reserve', root=RUN + '/enclaves', id='outer', kind='linux'")};
  Background inside(node, "inside",
                    {HOBBES_BUILD_DIR "/bin/hobbes-run", "run", "--bundle",
                     node.bundle("b", "true", patch), "e"});
  ASSERT_TRUE(inside.says("reaped")) << inside.output();
  Impostor impostor(number_after(inside.output(), "pid "));
  ASSERT_GT(impostor.pid(), 0);
  ASSERT_TRUE(replace_file(node.run_folder() + "/go", ""));
  EXPECT_TRUE(inside.says("answer ", 40));
  EXPECT_EQ(inside.output().find("\"ok\": true"), std::string::npos)
      << "an enclave without a grant reserved resources of the node: " << inside.output();
  node.good({"hobbes-run", "delete", "--force", "e"});
  EXPECT_TRUE(inside.ended(10));
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
