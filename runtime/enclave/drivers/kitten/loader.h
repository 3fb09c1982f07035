// Puts a co-kernel's image and boot parameters into the memory it will own.
#pragma once
#include <string>

#include "core/result.h"
#include "enclave/drivers/kitten/plan.h"

namespace hobbes {

/// Loads the ELF file at `path` into the plan's first extent, 2 MiB above its start, and writes
/// boot parameters for the plan's first core. Returns the physical entry point. Errors:
/// Code::invalid for a file that is no such image or does not fit; Code::not_found.
Result<std::uint64_t> load_kernel(const std::string& path, const std::string& command_line,
                                  const KittenPlan& plan, const ModuleEnclave& module);

}  // namespace hobbes
