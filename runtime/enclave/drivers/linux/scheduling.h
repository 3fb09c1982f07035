// How the kernel treats a program: scheduler, I/O priority, memory policy, personality, clocks.
#pragma once
#include "bundle/oci.h"
#include "core/procfs.h"
#include "core/result.h"

namespace hobbes {

/// Of the calling process, and kept over execve; while it is still privileged. Errors: what the
/// kernel refused, by the property's name.
Result<void> apply_scheduling(const oci::Process& process);
/// The same for what is the enclave's and not one process's: linux.personality and
/// linux.memoryPolicy.
Result<void> apply_memory_and_personality(const oci::Linux& settings);
/// Puts the calling process, which has one thread, into a new time namespace with those offsets.
/// Errors: Code::unsupported before Linux 5.6.
Result<void> enter_time_namespace(const ProcFs& proc, const std::vector<oci::TimeOffset>& offsets);

}  // namespace hobbes
