// Processes: an identity that survives pid reuse, and running a program to its end.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// A process named so that a recycled pid is not mistaken for it (start time from field 22 of
/// proc(5) stat).
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;

  /// Names a running process. Errors: Code::not_found.
  static Result<ProcessId> of(pid_t pid);
  /// Runs or is stopped; a zombie is not alive.
  [[nodiscard]] bool alive() const;
  /// A descriptor that polls readable at the process's end. Errors: Code::not_found when it is
  /// already gone.
  [[nodiscard]] Result<Fd> open() const;
};

/// Whether `uid` is among its real, effective and saved users; `all`: is each of them. A process
/// that has ended has none.
bool process_has_user(pid_t pid, uid_t uid, bool all = false);

/// The kernel's one-letter process state, 0 when there is no such process.
char process_state(pid_t pid);

/// An exit status as shells report it: the code, or 128 + the signal.
int exit_code_of(int wait_status);
/// "exit code 3" or "signal 9 (SIGKILL)".
std::string describe_wait_status(int wait_status);
/// The same of a status as shells report it: "exit code 3" or "signal 9 (SIGKILL)".
std::string describe_exit_code(int code);

/// What to run and how.
struct Command {
  std::vector<std::string> argv;
  std::optional<std::vector<std::string>> environment;  ///< "K=V"; the caller's own when absent
  std::string directory;                                ///< "" keeps the caller's
  std::string input;         ///< standard input, of any size; the program need not read it
  std::optional<uid_t> uid;  ///< run as this user with its gid and no supplementary groups
  std::optional<gid_t> gid;
  std::chrono::milliseconds deadline{30000};  ///< killed by SIGKILL afterwards
};

struct Outcome {
  int wait_status = 0;
  bool timed_out = false;
  std::string out, err;  ///< at most 1 MiB each; the rest is read and dropped
  [[nodiscard]] bool good() const { return wait_status == 0 && !timed_out; }
};

/// Runs a command to its end and collects what it says. Safe in threaded programs. Errors: the
/// program cannot be started.
Result<Outcome> run(const Command& command);

/// The file that execvp(3) would run; nothing if there is none.
std::optional<std::string> find_in_path(const std::string& program);

/// Closes a descriptor, which may take for ever, in a child process that this one need not wait
/// for. Errors: it cannot fork, and the descriptor stays open.
Result<void> close_in_child(Fd fd);

/// The folder of the running executable, where its siblings are found.
std::string program_directory();

}  // namespace hobbes
