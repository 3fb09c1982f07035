#include "vmm/agent/program.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/file.h"

namespace hobbes::agent {
namespace {

struct Pipe {
  Fd read, write;
  static Pipe make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    return {Fd(ends[0]), Fd(ends[1])};
  }
};

std::vector<std::string> texts(const Json& json, const char* key) {
  std::vector<std::string> out;
  for (const Json& one : json.value(key, Json::array()))
    if (one.is_string()) out.push_back(one.get<std::string>());
  return out;
}

void set_window(int terminal, const Json& process) {
  Json size = process.value("consoleSize", Json::object());
  winsize window{};
  window.ws_row = static_cast<unsigned short>(number_at(size, "height"));
  window.ws_col = static_cast<unsigned short>(number_at(size, "width"));
  if (window.ws_row != 0) (void)::ioctl(terminal, TIOCSWINSZ, &window);
}

Result<void> prepare(const Json& process) {
  if (auto why = Files::system().read("/run/no-root"))
    return Error{Code::invalid, "enter the root file system", *why, "see vm.image"};
  struct stat info {};
  if (::stat(program_root, &info) == 0 && (::chdir(program_root) != 0 || ::chroot(".") != 0))
    return os_error("enter the root file system", errno);
  std::string host = text_at(process, "hostname");
  if (!host.empty()) (void)::sethostname(host.c_str(), host.size());
  for (const Json& limit : process.value("rlimits", Json::array())) {
    rlimit value{limit.at(1).get<rlim_t>(), limit.at(2).get<rlim_t>()};
    if (::setrlimit(static_cast<__rlimit_resource>(limit.at(0).get<int>()), &value) != 0)
      return os_error("set resource limit " + std::to_string(limit.at(0).get<int>()), errno);
  }
  std::vector<gid_t> groups;
  for (const Json& one : process.value("groups", Json::array()))
    if (one.is_number_unsigned()) groups.push_back(one.get<gid_t>());
  auto uid = static_cast<uid_t>(number_at(process, "uid"));
  auto gid = static_cast<gid_t>(number_at(process, "gid"));
  if (::setgroups(groups.size(), groups.data()) != 0 || ::setresgid(gid, gid, gid) != 0 ||
      ::setresuid(uid, uid, uid) != 0)
    return os_error("become user " + std::to_string(uid), errno);
  if (process.contains("umask")) ::umask(static_cast<mode_t>(number_at(process, "umask")));
  if (process.contains("vcpus")) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const Json& one : process["vcpus"])
      if (one.is_number_unsigned() && one.get<unsigned>() < CPU_SETSIZE)
        CPU_SET(one.get<unsigned>(), &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0)
      return os_error("bind the program to vCPUs " + to_text(process["vcpus"]), errno);
  }
  std::string cwd = text_at(process, "cwd", "/");
  if (::chdir(cwd.c_str()) != 0) return os_error("enter working directory " + cwd, errno);
  return {};
}

// In the new process; reports over `failed`, which its execve closes.
[[noreturn]] void become_program(const Json& process, const Fd& failed) {
  auto fail = [&](const Error& error) {
    std::string text = to_text(to_json(error));
    (void)!::write(failed.get(), text.data(), text.size());
    ::_exit(127);
  };
  try {
    if (auto prepared = prepare(process); !prepared) fail(prepared.error());
    std::vector<std::string> args = texts(process, "args"), env = texts(process, "env");
    std::vector<char*> argv, envp;
    bool has_path = false;
    for (std::string& entry : env) {
      has_path = has_path || entry.rfind("PATH=", 0) == 0;
      envp.push_back(entry.data());
    }
    std::string path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if (!has_path) envp.push_back(path.data());
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; ++number)
      if (number != SIGKILL && number != SIGSTOP) ::signal(number, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::environ = envp.data();
    ::execvp(argv[0], argv.data());
    int why = errno;
    fail(why == ENOENT ? Error{Code::not_found, "execute '" + args[0] + "'",
                               "executable file not found in $PATH: no such file or directory",
                               "give its absolute path, or add it to the image"}
                       : os_error("execute " + args[0], why));
  } catch (const std::exception& e) {
    fail({Code::invalid, "start a program", e.what(), ""});
  }
  ::_exit(127);
}

}  // namespace

void run_program(const AgentConnection& monitor, const Json& request, Shared& shared) {
  Json process = request.value("process", Json::object());
  if (texts(process, "args").empty()) {
    (void)monitor.send(
        {{"error", to_json(Error{Code::invalid, "start a program", "it has no name", ""})}});
    return;
  }
  bool terminal = process.value("terminal", false);
  Pipe in, out, err, failed = Pipe::make();
  Fd master;
  pid_t child = -1;
  if (terminal) {
    int fd = -1;
    child = ::forkpty(&fd, nullptr, nullptr, nullptr);
    if (child > 0) {
      master.reset(fd);
      (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
  } else {
    in = Pipe::make();
    out = Pipe::make();
    err = Pipe::make();
    child = ::fork();
  }
  if (child == 0) {
    if (terminal) {
      set_window(0, process);
    } else {
      (void)::setsid();
      ::dup2(in.read.get(), 0);
      ::dup2(out.write.get(), 1);
      ::dup2(err.write.get(), 2);
    }
    become_program(process, failed.write);
  }
  failed.write.reset();
  in.read.reset();
  out.write.reset();
  err.write.reset();
  if (child < 0) {
    (void)monitor.send({{"error", to_json(os_error("start a program", errno))}});
    return;
  }
  std::string trouble(4096, '\0');
  ssize_t n = ::read(failed.read.get(), trouble.data(), trouble.size());
  if (n > 0) {
    ::waitpid(child, nullptr, 0);
    auto error = parse_json(trouble.substr(0, static_cast<std::size_t>(n)), "the failure");
    (void)monitor.send(
        {{"error",
          error ? *error : to_json(Error{Code::os, "start a program", "it ended at once", ""})}});
    return;
  }
  if (request.value("main", false)) shared.main_program = child;
  (void)monitor.send({{"started", child}});

  int to_program = terminal ? master.get() : in.write.get();
  (void)::fcntl(to_program, F_SETFL,
                O_NONBLOCK);  // it may take no input before its output is taken
  std::string input;
  bool input_ends = false;
  int sources[2] = {terminal ? master.get() : out.read.get(), terminal ? -1 : err.read.get()};
  bool heard = true;
  int status = 0;
  bool ended = false;
  int last_rounds = 16;  // of a program that has ended: its orphans may write for ever
  for (;;) {
    bool full = to_program >= 0 && !input.empty();
    pollfd watched[4] = {{heard ? monitor.fd() : -1, static_cast<short>(full ? 0 : POLLIN), 0},
                         {sources[0], POLLIN, 0},
                         {sources[1], POLLIN, 0},
                         {full ? to_program : -1, POLLOUT, 0}};
    // A program that has ended may have left children that hold its output open: what is there is
    // passed on, nobody waits for more.
    int ready = ::poll(watched, 4, ended ? 0 : 100);
    if (ended && (ready == 0 || --last_rounds == 0)) break;
    if (watched[3].revents != 0) {
      ssize_t put = ::write(to_program, input.data(), input.size());
      if (put > 0) input.erase(0, static_cast<std::size_t>(put));
      if (put < 0 && errno != EAGAIN && errno != EINTR) to_program = -1;  // it does not want it
    }
    for (int i = 0; i < 2; ++i) {
      if (watched[1 + i].revents == 0) continue;
      char data[32 * 1024];
      ssize_t got = ::read(sources[i], data, sizeof data);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) {
        sources[i] = -1;  // a terminal without its program says EIO
        continue;
      }
      if (!monitor.send(i == 0 ? HOBBES_FRAME_STDOUT : HOBBES_FRAME_STDERR,
                        {data, static_cast<std::size_t>(got)}))
        heard = false;
    }
    if (watched[0].revents != 0) {
      auto frame = monitor.receive(std::chrono::seconds(10));
      if (!frame) {
        heard = false;
        (void)::kill(child, SIGKILL);  // nobody is left who wants it
      } else if (frame->type == HOBBES_FRAME_STDIN && frame->content.empty()) {
        input_ends = true;
      } else if (frame->type == HOBBES_FRAME_STDIN && to_program >= 0) {
        input += frame->content;
      } else if (frame->type == HOBBES_FRAME_JSON) {
        if (auto word = parse_json(frame->content, "the monitor's word");
            word && text_at(*word, "op") == "resize")
          set_window(master.get(), *word);
        if (auto word = parse_json(frame->content, "the monitor's word");
            word && text_at(*word, "op") == "signal")
          (void)::kill(child, static_cast<int>(number_at(*word, "number")));
      }
    }
    if (input_ends && input.empty() && to_program >= 0) {
      to_program = -1;
      if (terminal)
        (void)!::write(master.get(), "\x04", 1);  // a terminal's end of input is a character
      else
        in.write.reset();
    }
    if (!ended && ::waitpid(child, &status, WNOHANG) == child) ended = true;
    if (!heard && ended) break;
  }
  ::sync();
  (void)monitor.send(WIFEXITED(status) ? Json{{"exited", WEXITSTATUS(status)}}
                                       : Json{{"signalled", WTERMSIG(status)}});
}

}  // namespace hobbes::agent
