// What each thread of the monitor may still ask of Linux once the guest runs: a guest that breaks
// out of a device gets no further.
#pragma once
#include "core/result.h"

namespace hobbes::vmm {

enum class ThreadKind {
  vcpu,   ///< runs the guest and touches devices' registers
  serve,  ///< devices' queues, the control socket, hobbesd
  files,  ///< a shared folder, which is its root directory by then; keeps the rights over files
          ///< that root of the guest has there
};

/// Loads the filter of its kind on the calling thread, for good, and gives up every capability that
/// the kind has no use for; a call outside of it ends the process with SIGSYS. Sets no_new_privs.
Result<void> install_seccomp_filter(ThreadKind kind);

}  // namespace hobbes::vmm
