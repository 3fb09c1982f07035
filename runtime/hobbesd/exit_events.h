// The kernel's announcements of ended processes (proc connector, drivers/connector/cn_proc.c): the
// only way to learn the exit status of a process that is not ours and that somebody else reaps,
// before Linux 6.15.
#pragma once
#include <sys/types.h>

#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

class ExitEvents {
 public:
  /// Errors: Code::denied without CAP_NET_ADMIN in the first namespaces, Code::unsupported where
  /// the kernel has no connector.
  static Result<ExitEvents> open();
  ExitEvents(ExitEvents&&) = default;
  ExitEvents& operator=(ExitEvents&&) = delete;
  ~ExitEvents();
  /// Readable when there is something to take.
  [[nodiscard]] int fd() const { return fd_.get(); }
  /// Processes that have ended, with their status as wait(2) encodes it. Some may be lost when many
  /// end at once.
  [[nodiscard]] std::vector<std::pair<pid_t, int>> take() const;

 private:
  explicit ExitEvents(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace hobbes
