// What each thread of the monitor may still ask of Linux once the guest runs: a guest that breaks out of a device gets no further.
#pragma once
#include "core/result.h"

namespace hobbes::vmm {

enum class Role {
  vcpu,   ///< runs the guest and touches devices' registers
  serve,  ///< devices' queues, the control socket, hobbesd
};

/// Loads the role's filter on the calling thread, for good; a call outside of it ends the process with SIGSYS. Needs no_new_privs.
Result<void> confine(Role role);

}  // namespace hobbes::vmm
