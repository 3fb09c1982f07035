// From the early tables to a running kernel.
#include "alone.h"
#include "apic.h"
#include "clock.h"
#include "commands.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "descriptor_tables.h"
#include "exceptions.h"
#include "kernel.h"
#include "memory.h"
#include "schedule.h"
#include "shared.h"

namespace kitten {
namespace {

Identity self;
hobbes_boot boot;  // copied once: Linux may write to its own at any time

template <std::size_t n>
void copy_name(char (&to)[n], const char (&from)[n]) {
  for (std::size_t i = 0; i < n; ++i) to[i] = from[i];
  to[n - 1] = '\0';
}

// Linux built this, but nothing of it is taken on trust.
const char* fault_of(const hobbes_boot& b) {
  if (b.magic != HOBBES_BOOT_MAGIC) return "the boot parameters have no magic number";
  if (b.version != HOBBES_KITTEN_VERSION || b.size < sizeof b)
    return "the boot parameters are of another version";
  if (b.cores == 0 || b.cores > HOBBES_KITTEN_CORES)
    return "the boot parameters name no cores, or too many";
  if (b.extents == 0 || b.extents > HOBBES_KITTEN_EXTENTS)
    return "the boot parameters name no memory, or too many extents";
  if (b.extent[0].address != b.base || b.base % block_size != 0 ||
      b.extent[0].size < 4 * block_size)
    return "the first extent must begin at the base and have 8 MiB";
  return nullptr;
}

}  // namespace

const Identity& identity() { return self; }

std::uint64_t number_in_command_line(const char* key, std::uint64_t otherwise) {
  const char* begin = self.command_line;
  for (const char* at = begin; *at != '\0'; ++at) {
    if (at != begin && at[-1] != ' ') continue;
    std::size_t length = 0;
    while (key[length] != '\0' && at[length] == key[length]) ++length;
    if (key[length] != '\0') continue;
    std::uint64_t out = 0;
    for (at += length; *at >= '0' && *at <= '9' && out < 1'000'000'000'000; ++at)
      out = out * 10 + static_cast<std::uint64_t>(*at - '0');
    return out;
  }
  return otherwise;
}

namespace {

// On core 0's own stack.
[[noreturn]] void run() {
  set_extended_states(boot.xcr0);
  enter_core(0);
  for (unsigned i = 1; i < boot.extents; ++i)
    if (add_memory(boot.extent[i].address, boot.extent[i].size, boot.extent[i].slot) != 0)
      print(Line() << "extent " << i << " of the boot parameters is unusable");
  status().memory = frames().total();
  status().memory_free = frames().free();
  print(Line() << "kitten: enclave '" << self.name << "', " << boot.cores << " cores, "
               << (frames().total() >> 20U) << " MiB");
  if (self.command_line[0] != '\0') print(Line() << "command line: " << self.command_line);
  __atomic_store_n(&status().state, static_cast<std::uint32_t>(HOBBES_KITTEN_RUNNING),
                   __ATOMIC_RELEASE);
  ring_linux();
  if (alone != 0) run_alone();
  begin_commands();
  run_core();
}

}  // namespace
}  // namespace kitten

using namespace kitten;

extern "C" [[noreturn]] void kernel_main(std::uint64_t start_info) {
  if (alone != 0) describe_machine(start_info);
  status().magic = HOBBES_STATUS_MAGIC;
  status().version = HOBBES_KITTEN_VERSION;
  __builtin_memcpy(&boot, &boot_parameters(), sizeof boot);
  set_clock(boot.tsc_khz, boot.wall_ns, boot.wall_tsc, boot.monotonic_ns);
  if (const char* fault = fault_of(boot)) panic(fault);
  // Of what Linux has taken for us, only the boot extents are mapped.
  for (std::uint64_t& word : status().released) word = ~0ULL;
  for (unsigned i = 0; i < boot.extents; ++i)
    if (boot.extent[i].slot < HOBBES_KITTEN_SLOTS)
      status().released[boot.extent[i].slot / 64] &= ~(1ULL << (boot.extent[i].slot % 64));
  self.enclave = boot.enclave;
  copy_name(self.name, boot.name);
  copy_name(self.command_line, boot.command_line);
  enter_memory(boot.base, boot.extent[0].size, boot.extent[0].slot);
  status().state = HOBBES_KITTEN_BOOTING;
  if (!make_idt()) panic("no memory for the interrupt table");
  apic::choose(boot.x2apic != 0);
  std::uint64_t stack = prepare_core(0, boot.core[0].apic_id, boot.core[0].cpu);
  if (stack == 0) panic("no memory for core 0");
  asm volatile("mov %0, %%rsp; xor %%ebp, %%ebp; call *%1" : : "r"(stack), "r"(run) : "memory");
  __builtin_unreachable();
}

// What the compiler calls by name.
extern "C" {
void* memcpy(void* to, const void* from, std::size_t size) {
  void* out = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return out;
}
void* memset(void* to, int value, std::size_t size) {
  void* out = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return out;
}
void* memmove(void* to, const void* from, std::size_t size) {
  if (to <= from) return memcpy(to, from, size);
  auto* t = static_cast<char*>(to) + size;
  const auto* f = static_cast<const char*>(from) + size;
  while (size-- > 0) *--t = *--f;
  return to;
}
int memcmp(const void* a, const void* b, std::size_t size) {
  const auto *x = static_cast<const unsigned char*>(a), *y = static_cast<const unsigned char*>(b);
  for (; size > 0; --size, ++x, ++y)
    if (*x != *y) return *x - *y;
  return 0;
}
}
