// Each core's segment and task state tables, and the interrupt table they share. All are read-only
// once made.
#pragma once
#include <cstdint>

namespace kitten {

/// Makes the interrupt table. Core 0, once. False: no memory.
bool make_idt();
/// Makes a core's tables and its three fault stacks; programs enter the kernel on `core_stack`.
/// False: no memory.
bool make_gdt(unsigned core, std::uint64_t core_stack);
/// On the core itself.
void load_descriptor_tables(unsigned core);

}  // namespace kitten
