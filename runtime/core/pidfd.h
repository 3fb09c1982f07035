// Processes by descriptor (pidfd_open(2)): what it names is never another process of the same
// number.
#pragma once
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "core/fd.h"

namespace hobbes {

/// Polls readable when the process has ended. Empty, with errno: there is no such process.
inline Fd open_pidfd(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

/// As kill(2): 0, or -1 with errno.
inline int signal_pidfd(const Fd& process, int number) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, process.get(), number, nullptr, 0));
}

}  // namespace hobbes
