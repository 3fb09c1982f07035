// The processes of enclaves: that one has ended, and with which status, also where hobbesd is not
// its parent.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/fd.h"
#include "core/process.h"
#include "hobbesd/exit_events.h"
#include "hobbesd/loop.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. A status is had from waitid(2) for a
/// child of ours, from the pidfd (Linux 6.15 and newer), or from the kernel's announcements; else
/// it is known only to the process that has waited for it.
class ExitTracker {
 public:
  /// `ended`: an enclave's process is gone. `status_known`: how, as wait(2) encodes it; at most
  /// once for each, after `ended`.
  ExitTracker(Loop& loop, std::function<void(std::uint64_t)> ended,
              std::function<void(std::uint64_t, int)> status_known)
      : loop_(loop), ended_(std::move(ended)), status_known_(std::move(status_known)) {}

  /// `name` is for the log.
  void watch(std::uint64_t enclave, const std::string& name, const ProcessId& process);
  /// Called once the enclave counts as ended: its status is looked for from now on.
  void find_status(std::uint64_t enclave);
  /// Nothing is left to find out of it.
  void forget(std::uint64_t enclave);
  /// Asks again for what was not known. Without enclaves it stops listening to the kernel.
  void tick();
  [[nodiscard]] bool unfinished() const { return !endings_.empty(); }
  /// Whether a process is one of those whose status is still to be had.
  [[nodiscard]] bool is_of(pid_t pid) const;

 private:
  struct Watch {
    std::string name;
    pid_t pid = 0;
    Fd pidfd;
    int tries = 0;  ///< to learn the status
  };
  void listen();
  void take_announcements();
  void learn(std::uint64_t enclave);

  Loop& loop_;
  std::function<void(std::uint64_t)> ended_;
  std::function<void(std::uint64_t, int)> status_known_;
  std::map<std::uint64_t, Watch> watches_;  // by enclave: its process runs
  std::map<std::uint64_t, Watch> endings_;  // by enclave: the status is not known yet
  std::map<std::uint64_t, int> announced_;  // by enclave: told before its process was seen to end
  std::optional<ExitEvents> events_;
  bool no_events_ = false;  // this process may not have them
};

}  // namespace hobbes
