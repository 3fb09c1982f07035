// What the tests of this folder share: programs that act on the node as somebody who has no right
// to.
#pragma once
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "core/file.h"
#include "core/identity.h"
#include "node_harness.h"

namespace hobbes::test {

inline constexpr uid_t victim = 1234, attacker = 1235;

/// A node on which users without privilege do things: what they leave is taken away with it.
class SharedNode : public Node {
 public:
  SharedNode() { ::chmod(folder().c_str(), 0755); }
  ~SharedNode() {
    for (const std::string& uid : Files::system().list(run_folder() + "/users").value_or({}))
      for (const std::string& id :
           Files::system().list(run_folder() + "/users/" + uid).value_or({}))
        (void)run({"setpriv", "--reuid=" + uid, "--regid=" + uid, "--clear-groups",
                   HOBBES_BUILD_DIR "/bin/hobbes-run", "delete", "--force", id});
    kill_daemon();
    (void)run(
        {"sh", "-c",
         "for d in $(find /sys/fs/cgroup -depth -type d -name 'user-" +
             hex(hash_of(run_folder()), 8) +
             "-*'); do for p in $(cat $d/cgroup.procs); do kill -9 $p; done; n=0; "
             "until rmdir $d || [ $n = 50 ]; do n=$((n+1)); sleep 0.02; done; done 2>/dev/null"});
  }
  SharedNode(const SharedNode&) = delete;
  SharedNode& operator=(const SharedNode&) = delete;
};

/// A command line that runs `argv` as a user without any privilege.
inline std::vector<std::string> as_user(uid_t uid, std::vector<std::string> argv) {
  std::string id = std::to_string(uid);
  argv.insert(argv.begin(),
              {"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--inh-caps=-all"});
  return argv;
}

/// The words every attack in Python needs: a connection to hobbesd that says what it likes, and
/// HTTP on the REST socket.
inline std::string python(const Node& node, const std::string& text) {
  return "import array, ctypes, json, os, signal, socket, struct, subprocess, sys, time\nRUN = '" +
         node.run_folder() + R"('
class Control:
  def __init__(self, limit=20):
    self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    self.s.settimeout(limit)
    self.s.connect(RUN + '/control.sock')
  def send(self, fds=(), **request):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
    self.s.sendmsg([json.dumps(request).encode()], rights)
  def ask(self, fds=(), **request):
    self.send(fds, **request)
    said = self.s.recv(1 << 18)
    return json.loads(said) if said else {'ok': False, 'closed': True}
def until_closed(s):
  said = b''
  try:
    while True:
      more = s.recv(65536)
      if not more: break
      said += more
  except OSError: pass  # also: nothing came within the socket's time limit
  return said
def http(method, path, body=None, limit=20):
  s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  s.settimeout(limit)
  s.connect(RUN + '/api.sock')
  text = '' if body is None else json.dumps(body)
  head = f'{method} {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n'
  s.sendall((head + f'Content-Length: {len(text)}\r\n\r\n' + text).encode())
  head, _, rest = until_closed(s).partition(b'\r\n\r\n')
  return int(head.split()[1]) if head else 0, rest.decode(errors='replace')
)" + text;
}

/// The same in a file of the node that everybody may read.
inline std::string script(const Node& node, const std::string& name, const std::string& text) {
  std::string path = node.folder() + "/" + name + ".py";
  EXPECT_TRUE(replace_file(path, python(node, text)));
  EXPECT_EQ(::chmod(node.folder().c_str(), 0755), 0);
  return path;
}

/// A program that goes on while the test does; its output is in a file. Killed and reaped with the
/// object.
class Background {
 public:
  Background(const Node& node, const std::string& name, std::vector<std::string> argv)
      : output_(node.folder() + "/" + name + ".out") {
    std::vector<char*> pointers;
    for (std::string& word : argv) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::setpgid(0, 0);
    if (std::freopen("/dev/null", "r", stdin) == nullptr ||
        std::freopen(output_.c_str(), "w", stdout) == nullptr ||
        std::freopen(output_.c_str(), "a", stderr) == nullptr)
      ::_exit(126);
    ::execvp(pointers[0], pointers.data());
    ::_exit(127);
  }
  ~Background() { end(); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }
  [[nodiscard]] std::string output() const { return Files::system().read(output_).value_or(""); }
  [[nodiscard]] bool says(const std::string& word, int seconds = 20) const {
    return eventually([&] { return output().find(word) != std::string::npos; }, seconds);
  }
  /// Waits until it has ended by itself; whether it has.
  bool ended(int seconds, int* status = nullptr) {
    if (pid_ <= 0) return true;
    int how = 0;
    bool gone = eventually([&] { return ::waitpid(pid_, &how, WNOHANG) == pid_; }, seconds);
    if (gone) pid_ = 0;
    if (status != nullptr) *status = how;
    return gone;
  }
  void end() {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  std::string output_;
  pid_t pid_ = 0;
};

/// Whether hobbesd answers at all, and soon.
inline bool answers(const Node& node, int seconds = 10) {
  std::string text = python(node, "print('answered' if Control(" + std::to_string(seconds) +
                                      ").ask(op='ping')['ok'] else 'refused')\n");
  return node.run({"/usr/bin/python3", "-c", text}, seconds + 20).out == "answered\n";
}

}  // namespace hobbes::test
