// The monitor of one virtual machine: puts machine, agent, memory window, terminal and control
// socket together, and knows when the guest has started and how it has ended.
#pragma once
#include "core/event_loop.h"
#include "enclave/drivers/palacios/plan.h"

namespace hobbes::vmm {

/// Boots the guest and ends the process as the guest ends: with the program's own status, by its
/// signal (128 and its number in a pid namespace of its own); 0 after power-off; vm_rebooted_status
/// when the guest asks for a reboot.
[[noreturn]] void run_monitor(VmPlan plan, EventLoop loop);

/// Ends the process as one that met a fault (134), after the manager has been told why.
[[noreturn]] void crash(const VmPlan& plan, const std::string& why);

}  // namespace hobbes::vmm
