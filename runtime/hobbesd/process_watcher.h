// Says when a process has ended that has something of the node's.
#pragma once
#include <sys/types.h>

#include <functional>
#include <map>

#include "core/fd.h"
#include "core/process.h"
#include "hobbesd/loop.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks.
class ProcessWatcher {
 public:
  ProcessWatcher(Loop& loop, std::function<void(pid_t)> ended)
      : loop_(loop), ended_(std::move(ended)) {}

  /// `ended` is called once, in the loop; soon, when there is no such process. Idempotent.
  void watch(pid_t pid) {
    if (watches_.count(pid) != 0) return;
    if (auto process = ProcessId::of(pid)) {
      if (auto pidfd = process->open()) {
        if (loop_.watch(pidfd->get(), [this, pid] { end(pid); })) watches_[pid] = std::move(*pidfd);
        return;
      }
    }
    loop_.post([this, pid] { end(pid); });
  }

  /// It has ended, as somebody else has found out.
  void end(pid_t pid) {
    if (auto at = watches_.find(pid); at != watches_.end()) {
      loop_.unwatch(at->second.get());
      watches_.erase(at);
    }
    ended_(pid);
  }

 private:
  Loop& loop_;
  std::function<void(pid_t)> ended_;
  std::map<pid_t, Fd> watches_;
};

}  // namespace hobbes
