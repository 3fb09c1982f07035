// `hobbes interference`: what took time from an enclave on its cores, and who did.
#pragma once
#include <chrono>
#include <string>

#include "core/result.h"
#include "shell/views.h"

namespace hobbes {

/// Watches a running enclave of the caller's for so long and prints what came between: interrupts,
/// other programs, the hypervisor, waiting for a processor, a limit of CPU time, and the enclaves
/// that share its last cache. An enclave without cores of its own is watched where it may run.
/// Errors: Code::not_found, Code::invalid (it does not run), Code::unavailable without a mirror.
Result<void> show_interference(const std::string& id, std::chrono::milliseconds duration,
                               const Style& style);

}  // namespace hobbes
