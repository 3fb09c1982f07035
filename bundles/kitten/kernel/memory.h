// The kernel's one address space and the memory behind it (layout.h).
#pragma once
#include <cstdint>

#include "frames.h"
#include "layout.h"
#include "paging.h"

namespace kitten {

/// While it lives, this core may write to read-only pages: page tables, descriptor tables.
/// Interrupts are off; keep it short.
class WriteWindow {
 public:
  WriteWindow();
  ~WriteWindow();
  WriteWindow(const WriteWindow&) = delete;
  WriteWindow& operator=(const WriteWindow&) = delete;

 private:
  std::uint64_t flags_;
};

/// Builds the final tables from the boot parameters and enters them. Core 0, once.
void enter_memory(std::uint64_t base, std::uint64_t size, std::uint32_t slot);

/// Adds an extent and maps it. 0 or an errno.
int add_memory(std::uint64_t address, std::uint64_t size, std::uint32_t slot);
/// Takes a wholly free one away, from every core's sight. 0 or an errno.
int remove_memory(std::uint32_t slot);

/// Memory for programs and what the kernel knows of them: a cleared frame, or 2 MiB that are
/// cleared too. 0: none left. Any core.
std::uint64_t take_frame(Use use);
std::uint64_t take_block(Use use);
void give_frame(std::uint64_t address, Use use);
void give_block(std::uint64_t address, Use use);
/// Bytes that are free now, and all.
std::uint64_t free_memory();
std::uint64_t total_memory();
/// Where the kernel sees its own memory.
inline void* at_physical(std::uint64_t address) {
  return reinterpret_cast<void*>(physical_map + address);
}
/// Where page tables of programs come from, and what their upper halves are.
TableMemory& program_tables();
const PageTables& kernel_tables();

/// A frame of the kind that is read-only in the physical map. 0: none left.
std::uint64_t take_protected();

/// Frames of Linux at a place of a window, to be read. 0 or an errno.
int map_window(unsigned window, std::uint64_t offset, std::uint64_t physical, std::uint64_t size);
int unmap_window(unsigned window, std::uint64_t size);
/// Where a window begins.
std::uint64_t* window_at(unsigned window);

/// A stack with unmapped pages around it, `which` of the core's: 0 normal, 1 double fault, 2 NMI, 3
/// machine check. Its top, 0: no memory.
std::uint64_t make_stack(unsigned core, unsigned which);
/// The range of addresses of that stack.
void stack_bounds(unsigned core, unsigned which, std::uint64_t* low, std::uint64_t* high);

void map_device(std::uint64_t virtual_address, std::uint64_t physical);
Frames& frames();

}  // namespace kitten
