// Booted without Linux (PVH), as a virtual machine's kernel.
#pragma once
#include <cstdint>

namespace kitten {

/// Writes the boot parameters that Linux would have written, from the start info at this physical
/// address.
void describe_machine(std::uint64_t start_info);
/// What it does then: nothing, until the machine is switched off. With "exit" on the command line
/// it ends QEMU (isa-debug-exit at 0xf4).
[[noreturn]] void run_alone();

}  // namespace kitten
