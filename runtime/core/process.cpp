#include "core/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "core/file.h"
#include "core/pidfd.h"
#include "core/sealed_program.h"

namespace hobbes {
namespace {

struct Stat {
  char state = 0;
  std::uint64_t start_ticks = 0;
};

std::optional<Stat> stat_of(pid_t pid) {
  auto text = Files::system().read("/proc/" + std::to_string(pid) + "/stat");
  if (!text) return std::nullopt;
  // The command name may hold spaces and parentheses; fields are counted from the last ')'.
  std::size_t at = text->rfind(')');
  if (at == std::string::npos || at + 2 >= text->size()) return std::nullopt;
  Stat stat;
  stat.state = (*text)[at + 2];
  std::size_t position = at + 2;
  for (int field = 3; field < 22; ++field) {
    position = text->find(' ', position);
    if (position == std::string::npos) return std::nullopt;
    ++position;
  }
  stat.start_ticks = std::strtoull(text->c_str() + position, nullptr, 10);
  return stat;
}

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const std::string& s : strings) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

// Text for a program that reads when it likes, or never: the writing end of a pipe, which never
// makes this process wait, nor ends it by SIGPIPE.
class PipeWriter {
 public:
  PipeWriter(Fd pipe, const std::string& text) : pipe_(std::move(pipe)), text_(text) {
    if (text_.empty()) pipe_.reset();
  }
  [[nodiscard]] int fd() const { return pipe_.get(); }  // -1 when all is written or nobody reads
  void write_some() {
    sigset_t broken, before;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &broken, &before);
    ssize_t n = ::write(pipe_.get(), text_.data(), text_.size());
    int error = errno;
    if (n < 0 && error == EPIPE && sigismember(&before, SIGPIPE) == 0) {
      timespec none{};
      (void)::sigtimedwait(&broken, nullptr, &none);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (n > 0) text_.remove_prefix(static_cast<std::size_t>(n));
    if (text_.empty() || (n < 0 && error != EAGAIN && error != EINTR)) pipe_.reset();
  }

 private:
  Fd pipe_;
  std::string_view text_;
};

}  // namespace

Result<ProcessId> ProcessId::of(pid_t pid) {
  auto stat = stat_of(pid);
  if (!stat) return os_error("find process " + std::to_string(pid), ESRCH);
  return ProcessId{pid, stat->start_ticks};
}

bool ProcessId::alive() const {
  if (pid <= 0) return false;
  auto stat = stat_of(pid);
  return stat && stat->start_ticks == start_ticks && stat->state != 'Z' && stat->state != 'X';
}

Result<Fd> ProcessId::open() const {
  Fd fd = open_pidfd(pid);
  if (!fd) return os_error("watch process " + std::to_string(pid), errno);
  // Checked after opening: from here on the descriptor, not the number, is the identity.
  if (!alive()) return os_error("watch process " + std::to_string(pid), ESRCH);
  return fd;
}

bool process_has_user(pid_t pid, uid_t uid, bool all) {
  auto text = Files::system().read("/proc/" + std::to_string(pid) + "/status");
  std::size_t at = text ? text->find("\nUid:") : std::string::npos;
  unsigned ids[3] = {};
  if (at == std::string::npos ||
      std::sscanf(text->c_str() + at, "\nUid: %u %u %u", &ids[0], &ids[1], &ids[2]) != 3)
    return false;
  auto same = std::count(ids, ids + 3, uid);
  return all ? same == 3 : same > 0;
}

std::optional<std::string> find_in_path(const std::string& program) {
  const char* set = std::getenv("PATH");
  std::istringstream folders(set != nullptr ? set : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (std::string path = folder + "/" + program; ::access(path.c_str(), X_OK) == 0) return path;
  return std::nullopt;
}

Result<void> close_in_child(Fd fd) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error("close a descriptor elsewhere", errno);
  Fd heard(ends[0]), said(ends[1]);
  pid_t child = ::fork();
  if (child < 0) {
    Error error = os_error("close a descriptor elsewhere", errno);
    (void)fd.release();
    return error;
  }
  if (child == 0) {
    // The last reference must be this one: it ends after the parent's, and after all that is none
    // of its business.
    int kept = ::dup2(fd.get(), 1), pipe = ::dup2(heard.get(), 0);
    ::syscall(SYS_close_range, 2, ~0U, 0);
    char unused = 0;
    if (kept == 1 && pipe == 0) (void)!::read(0, &unused, 1);
    ::_exit(0);
  }
  fd.reset();
  return {};
}

char process_state(pid_t pid) {
  auto stat = stat_of(pid);
  return stat ? stat->state : '\0';
}

int exit_code_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

std::string describe_wait_status(int wait_status) {
  return describe_exit_code(exit_code_of(wait_status));
}

std::string describe_exit_code(int code) {
  int number = code - 128;
  if (number <= 0 || number >= NSIG) return "exit code " + std::to_string(code);
  const char* name = ::sigabbrev_np(number);
  return "signal " + std::to_string(number) +
         (name != nullptr ? " (SIG" + std::string(name) + ")" : "");
}

Result<Outcome> run(const Command& command) {
  const std::string attempt = "run " + command.argv[0];
  int in[2], out[2], err[2], failed[2];
  if (::pipe2(in, O_CLOEXEC) != 0) return os_error(attempt, errno);
  Fd in_read(in[0]), in_write(in[1]);
  if (::pipe2(out, O_CLOEXEC) != 0) return os_error(attempt, errno);
  Fd out_read(out[0]), out_write(out[1]);
  if (::pipe2(err, O_CLOEXEC) != 0) return os_error(attempt, errno);
  Fd err_read(err[0]), err_write(err[1]);
  if (::pipe2(failed, O_CLOEXEC) != 0) return os_error(attempt, errno);
  Fd failed_read(failed[0]), failed_write(failed[1]);
  ::fcntl(in_write.get(), F_SETFL, O_NONBLOCK);

  std::vector<char*> argv = pointers_to(command.argv);
  std::vector<char*> environment;
  if (command.environment) environment = pointers_to(*command.environment);

  pid_t child = ::fork();
  if (child < 0) return os_error(attempt, errno);
  if (child == 0) {
    // Only async-signal-safe calls: the parent may have threads.
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    bool good = ::dup2(in_read.get(), 0) == 0 && ::dup2(out_write.get(), 1) == 1 &&
                ::dup2(err_write.get(), 2) == 2;
    good = good && (command.directory.empty() || ::chdir(command.directory.c_str()) == 0);
    if (good && command.uid) {
      good = (::getuid() != 0 || ::setgroups(0, nullptr) == 0) &&
             ::setresgid(*command.gid, *command.gid, *command.gid) == 0 &&
             ::setresuid(*command.uid, *command.uid, *command.uid) == 0;
    }
    // Whatever its caller has forgotten to close is not the program's.
    ::syscall(SYS_close_range, 3, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
    if (good) ::execvpe(argv[0], argv.data(), command.environment ? environment.data() : environ);
    int error = errno;
    (void)!::write(failed_write.get(), &error, sizeof error);
    ::_exit(127);
  }
  in_read.reset();
  out_write.reset();
  err_write.reset();
  failed_write.reset();

  Outcome outcome;
  PipeWriter input(std::move(in_write), command.input);
  auto end = std::chrono::steady_clock::now() + command.deadline;
  Fd exited = open_pidfd(child);
  pollfd watched[4] = {{out_read.get(), POLLIN, 0},
                       {err_read.get(), POLLIN, 0},
                       {exited.get(), POLLIN, 0},
                       {input.fd(), POLLOUT, 0}};
  // Ends when the program has ended, not when its pipes close: a daemon it left behind may hold
  // them open.
  for (bool done = false; !done;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                    end - std::chrono::steady_clock::now())
                    .count();
    if (left <= 0 && !outcome.timed_out) {
      outcome.timed_out = true;
      ::kill(child, SIGKILL);
    }
    watched[3].fd = input.fd();
    ::poll(watched, 4, outcome.timed_out ? 1000 : static_cast<int>(left));
    done = (watched[2].revents & POLLIN) != 0;
    if ((watched[3].revents & (POLLOUT | POLLERR)) != 0) input.write_some();
    for (int i = 0; i < 2; ++i) {
      std::string& sink = i == 0 ? outcome.out : outcome.err;
      char chunk[16384];
      while (watched[i].fd >= 0) {
        pollfd one{watched[i].fd, POLLIN, 0};
        if (::poll(&one, 1, 0) <= 0) break;
        ssize_t n = ::read(watched[i].fd, chunk, sizeof chunk);
        if (n <= 0) {
          watched[i].fd = -1;
        } else if (sink.size() < (1U << 20U)) {
          sink.append(chunk, static_cast<std::size_t>(n));
        }
      }
    }
  }
  ::waitpid(child, &outcome.wait_status, 0);
  int exec_error = 0;
  if (::read(failed_read.get(), &exec_error, sizeof exec_error) ==
      static_cast<ssize_t>(sizeof exec_error))
    return os_error(attempt, exec_error);
  return outcome;
}

std::string program_directory() {
  std::string path = program_file();
  return path.empty() ? std::string("/usr/bin") : path.substr(0, path.rfind('/'));
}

}  // namespace hobbes
