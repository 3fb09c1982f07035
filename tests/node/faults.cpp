// Commands that a test image of Kitten has on top of the shipped ones: every way in which a kernel
// can go wrong, on demand.
#include <cerrno>
#include <cstdint>

#include "apic.h"
#include "clock.h"
#include "commands.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "exceptions.h"
#include "memory.h"
#include "shared.h"
#include "tests/node/fault_kinds.h"

namespace kitten {
namespace {

using namespace hobbes::test;

volatile std::uint64_t sink;

[[gnu::noinline]] std::uint64_t overflow(std::uint64_t depth) {
  volatile char frame[512];
  if (depth == ~0ULL) return 0;
  frame[depth % sizeof frame] = static_cast<char>(depth);
  return overflow(depth + 1) + static_cast<std::uint64_t>(frame[0]);
}

struct [[gnu::packed]] Pointer {
  std::uint16_t limit;
  std::uint64_t base;
};

void fill_with_garbage(std::uint64_t offset, std::uint64_t size, std::uint64_t seed) {
  auto* words = static_cast<volatile std::uint64_t*>(shared_at(offset));
  for (std::uint64_t i = 0; i < size / 8; ++i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    words[i] = seed;
  }
}

int fault(Exchange& exchange) {
  std::uint32_t which;
  if (!exchange.get(&which)) return EINVAL;
  switch (which) {
    case explicit_panic:
      panic("asked to");
    case wild_jump:
      reinterpret_cast<void (*)()>(0x123456789000)();
      break;
    case null_read:
      asm volatile("movq 8, %%rax" : : : "rax", "memory");
      break;
    case stack_overflow:
      sink = overflow(0);
      break;
    case spin_without_interrupts:
      cpu::interrupts_off();
      for (;;) cpu::relax();
    case write_page_table:
      *reinterpret_cast<volatile std::uint64_t*>(physical_map + (cpu::read_cr3() & ~0xfffULL)) = 0;
      break;
    case write_interrupt_table: {
      Pointer table{};
      asm volatile("sidt %0" : "=m"(table));
      *reinterpret_cast<volatile std::uint64_t*>(table.base + 14 * 16) = 0;
      break;
    }
    case write_fault_stack: {  // through the physical map, as a stray pointer would
      std::uint64_t frame = take_protected();
      *reinterpret_cast<volatile std::uint64_t*>(physical_map + frame) = 1;
      break;
    }
    case write_own_code:
      *reinterpret_cast<volatile std::uint8_t*>(reinterpret_cast<std::uint64_t>(&panic)) = 0xcc;
      break;
    case execute_data: {
      static std::uint8_t code[] = {0xc3};
      reinterpret_cast<void (*)()>(reinterpret_cast<std::uint64_t>(code))();
      break;
    }
    case doorbell_storm:
      for (;;) ring_linux();
    case garbage_in_rings:
      fill_with_garbage(HOBBES_CONSOLE_OFFSET, HOBBES_RING_BYTES, cpu::time_stamp());
      fill_with_garbage(HOBBES_REQUEST_OFFSET, HOBBES_RING_BYTES, cpu::time_stamp());
      fill_with_garbage(HOBBES_REPLY_OFFSET, HOBBES_RING_BYTES, cpu::time_stamp());
      return 0;
    case garbage_in_status:
      fill_with_garbage(0, sizeof(hobbes_status), cpu::time_stamp());
      return 0;
    case invalid_instruction:
      asm volatile("ud2");
      break;
    case divide_by_zero: {
      std::uint64_t zero = 0;
      asm volatile("xor %%edx, %%edx; div %0" : "+r"(zero) : : "rax", "rdx");
      break;
    }
    case machine_stop:
      cpu::stop();
    default:
      return EINVAL;
  }
  return ENOTRECOVERABLE;  // still here: it was not caught
}
KITTEN_COMMAND(HOBBES_KITTEN_OWN, fault);

struct SpinRequest {
  std::uint32_t core, seconds;
};

void spin(std::uint64_t seconds) {
  std::uint64_t end = uptime_ns() + seconds * 1'000'000'000;
  while (uptime_ns() < end) sink = sink + 1;
}

// Keeps an application core busy.
int work(Exchange& exchange) {
  SpinRequest request;
  if (!exchange.get(&request)) return EINVAL;
  return run_on(request.core, "spin", spin, request.seconds);
}
KITTEN_COMMAND(HOBBES_KITTEN_OWN + 1, work);

// Takes frames until only the reserve of an extent is left, so that it is not wholly free; returns
// one address of each call.
int hold_memory(Exchange& exchange) {
  std::uint64_t count;
  if (!exchange.get(&count)) return EINVAL;
  for (std::uint64_t i = 0; i < count; ++i)
    if (frames().take_block(Use::kernel) == 0) return ENOMEM;
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_OWN + 2, hold_memory);

// Maps and unmaps while every core is up: each unmap asks all of them to drop their translations.
int shoot(Exchange& exchange) {
  std::uint32_t rounds;
  if (!exchange.get(&rounds)) return EINVAL;
  for (std::uint32_t i = 0; i < rounds; ++i) {
    int error = map_window(9, 0, 0x1000, 0x1000);
    if (error == 0) error = unmap_window(9, 0x1000);
    if (error != 0) return error;
  }
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_OWN + 3, shoot);

}  // namespace
}  // namespace kitten
