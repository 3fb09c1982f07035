#include "descriptor_tables.h"

#include "cores.h"
#include "cpu.h"
#include "layout.h"
#include "memory.h"

extern "C" const char interrupt_stubs[];

namespace kitten {
namespace {

constexpr unsigned stub_size = 16, vectors = 256;
constexpr std::uint16_t code_selector = 0x08, data_selector = 0x10, task_selector = 0x18;
constexpr unsigned double_fault = 8, nmi = 2, machine_check = 18, breakpoint = 3, overflow = 4;

struct [[gnu::packed]] Gate {
  std::uint16_t offset_low, selector;
  std::uint8_t stack, type;
  std::uint16_t offset_middle;
  std::uint32_t offset_high, zero;
};
static_assert(sizeof(Gate) == 16);

struct [[gnu::packed]] TaskState {
  std::uint32_t reserved0;
  std::uint64_t rsp[3], reserved1, stack[7], reserved2;
  std::uint16_t reserved3, io_map;
};
static_assert(sizeof(TaskState) == 104);

struct [[gnu::packed]] Pointer {
  std::uint16_t limit;
  const void* base;
};

// Where the GS base points to in the kernel; entry.S knows the offsets.
struct PerCore {
  Core* self;
  std::uint64_t stack_top, program_stack;
};

// One frame per core, in the protected memory.
struct Tables {
  std::uint64_t segments[7];
  TaskState task;
};

std::uint64_t idt;                    // physical
std::uint64_t tables_of[core_limit];  // physical

void* reach(std::uint64_t physical) { return reinterpret_cast<void*>(physical_map + physical); }

}  // namespace

bool make_idt() {
  idt = take_protected();
  if (idt == 0) return false;
  WriteWindow window;
  auto* gates = static_cast<Gate*>(reach(idt));
  for (unsigned vector = 0; vector < vectors; ++vector) {
    std::uint64_t to = reinterpret_cast<std::uint64_t>(interrupt_stubs) + vector * stub_size;
    std::uint8_t stack = vector == double_fault    ? 1
                         : vector == nmi           ? 2
                         : vector == machine_check ? 3
                                                   : 0;
    const bool of_programs = vector == breakpoint || vector == overflow;  // int3, into
    gates[vector] = {static_cast<std::uint16_t>(to),
                     code_selector,
                     stack,
                     static_cast<std::uint8_t>(of_programs ? 0xee : 0x8e),
                     static_cast<std::uint16_t>(to >> 16U),
                     static_cast<std::uint32_t>(to >> 32U),
                     0};
  }
  return true;
}

bool make_gdt(unsigned core, std::uint64_t core_stack) {
  if (tables_of[core] == 0) tables_of[core] = take_protected();
  if (tables_of[core] == 0) return false;
  std::uint64_t stacks[3];
  for (unsigned i = 0; i < 3; ++i) {
    stacks[i] = make_stack(core, i + 1);
    if (stacks[i] == 0) return false;
  }
  WriteWindow window;
  auto* tables = static_cast<Tables*>(reach(tables_of[core]));
  auto task = reinterpret_cast<std::uint64_t>(&tables->task);
  *tables = {};
  tables->task.io_map = sizeof(TaskState);
  for (unsigned i = 0; i < 3; ++i) tables->task.stack[i] = stacks[i];
  // Accessed bits set beforehand: the core would have to write them.
  tables->segments[1] = 0x00209b0000000000;
  tables->segments[2] = 0x0000930000000000;
  tables->segments[3] = (sizeof(TaskState) - 1) | (task & 0xffffffU) << 16U | 0x89ULL << 40U |
                        (task >> 24U & 0xffU) << 56U;
  tables->segments[4] = task >> 32U;
  tables->segments[5] = 0x0000f30000000000;  // of programs, where Linux has them
  tables->segments[6] = 0x0020fb0000000000;
  tables->task.rsp[0] = core_stack;
  return true;
}

void load_descriptor_tables(unsigned number) {
  auto* tables = static_cast<Tables*>(reach(tables_of[number]));
  Pointer segments{sizeof(Tables::segments) - 1, tables->segments};
  Pointer gates{sizeof(Gate) * vectors - 1, reach(idt)};
  WriteWindow window;  // ltr marks the task state as busy
  asm volatile(
      "lgdt %0\n\t"
      "pushq %2\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"
      "lretq\n"
      "1: movw %w3, %%ds\n\t"
      "movw %w3, %%es\n\t"
      "movw %w3, %%ss\n\t"
      "ltr %w4\n\t"
      "lidt %1"
      :
      : "m"(segments), "m"(gates), "i"(code_selector),
        "r"(static_cast<std::uint32_t>(data_selector)),
        "r"(static_cast<std::uint32_t>(task_selector))
      : "rax", "memory");
  static PerCore all[core_limit];
  all[number] = {&core(number), core(number).stack_top, 0};
  cpu::write_msr(cpu::msr_gs_base, reinterpret_cast<std::uint64_t>(&all[number]));
  cpu::write_msr(cpu::msr_kernel_gs_base, 0);
}

}  // namespace kitten
