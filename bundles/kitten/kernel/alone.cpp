#include "alone.h"

#include "abi/vm.h"
#include "console.h"
#include "cpu.h"
#include "exceptions.h"
#include "kernel.h"
#include "layout.h"
#include "shared.h"

namespace kitten {
namespace {

// xen/include/public/arch-x86/hvm/start_info.h, version 1.
struct StartInfo {
  std::uint32_t magic, version, flags, modules;
  std::uint64_t module_list, command_line, rsdp, memory_map;
  std::uint32_t memory_entries, reserved;
};
struct MemoryEntry {
  std::uint64_t address, size;
  std::uint32_t type, reserved;
};
constexpr std::uint32_t start_magic = 0x336ec578, type_ram = 1;
constexpr std::uint64_t reach_limit = 4ULL
                                      << 30U;  // what the early tables show at physical addresses

// A guest of our own monitor, which has no chips of old times.
bool in_palacios() { return cpu::identify(HOBBES_VM_LEAF).b == HOBBES_VM_MAGIC; }

// Counted against the timer chip's channel 2, whose frequency is fixed.
std::uint64_t measure_tsc_khz() {
  constexpr std::uint32_t pit_hz = 1193182, milliseconds = 20, ticks = pit_hz / 1000 * milliseconds;
  cpu::out8(0x61, static_cast<std::uint8_t>((cpu::in8(0x61) & 0xfcU) | 1U));
  cpu::out8(0x43, 0xb0);
  cpu::out8(0x42, ticks & 0xffU);
  cpu::out8(0x42, ticks >> 8U);
  std::uint64_t begin = cpu::time_stamp();
  while ((cpu::in8(0x61) & 0x20U) == 0) cpu::relax();
  return (cpu::time_stamp() - begin) / milliseconds;
}

bool has_word(const char* text, const char* word) {
  for (; *text != '\0'; ++text) {
    std::size_t i = 0;
    while (word[i] != '\0' && text[i] == word[i]) ++i;
    if (word[i] == '\0') return true;
  }
  return false;
}

}  // namespace

void describe_machine(std::uint64_t start_info) {
  // The old interrupt controllers' vectors are those of exceptions.
  cpu::out8(0x21, 0xff);
  cpu::out8(0xa1, 0xff);
  hobbes_boot& b = boot_parameters();
  const auto* info = reinterpret_cast<const StartInfo*>(start_info);
  constexpr std::uint64_t base = IMAGE_LOAD_ADDRESS - HOBBES_IMAGE_OFFSET;
  b.magic = HOBBES_BOOT_MAGIC;
  b.version = HOBBES_KITTEN_VERSION;
  b.size = sizeof b;
  b.base = base;
  b.alone = 1;
  b.cores = 1;
  b.core[0] = {cpu::identify(1).b >> 24U, 0};
  b.tsc_khz = in_palacios() ? cpu::identify(HOBBES_VM_LEAF).a : measure_tsc_khz();
  __builtin_memcpy(b.name, "alone", 6);
  if (info->magic != start_magic || info->memory_map >= reach_limit) panic("no PVH start info");
  const auto* map = reinterpret_cast<const MemoryEntry*>(info->memory_map);
  std::uint64_t slot = 1;
  for (std::uint32_t i = 0; i < info->memory_entries && i < 128; ++i) {
    if (map[i].type != type_ram) continue;
    std::uint64_t begin = (map[i].address + block_size - 1) & ~(block_size - 1),
                  end = (map[i].address + map[i].size) & ~(block_size - 1);
    if (begin <= base && base < end)
      b.extent[0] = {base, end - base, 0, 0};
    else if (begin > base && end > begin && slot < HOBBES_KITTEN_EXTENTS) {
      b.extent[slot] = {begin, end - begin, static_cast<std::uint32_t>(slot), 0};
      ++slot;
    }
  }
  b.extents = static_cast<std::uint32_t>(slot);
  if (info->command_line != 0 && info->command_line < reach_limit) {
    const auto* text = reinterpret_cast<const char*>(info->command_line);
    for (std::size_t i = 0; i + 1 < sizeof b.command_line && text[i] != '\0'; ++i)
      b.command_line[i] = text[i];
  }
}

void run_alone() {
  print(Line() << "alone on this machine, nothing to do");
  if (has_word(identity().command_line, "exit")) {
    if (in_palacios()) cpu::out8(HOBBES_VM_SLEEP_PORT, HOBBES_VM_POWER_OFF);
    cpu::out8(0xf4, 0);
  }
  for (;;) cpu::sleep();
}

}  // namespace kitten
