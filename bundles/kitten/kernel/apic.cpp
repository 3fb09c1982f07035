#include "apic.h"

#include "abi/apic.h"
#include "clock.h"
#include "cpu.h"
#include "layout.h"
#include "memory.h"

namespace kitten::apic {
namespace {

enum Register : std::uint32_t {
  identity = 0x20,
  priority = 0x80,
  end = 0xb0,
  spurious = 0xf0,
  service = 0x100,
  command = 0x300,
  destination_high = 0x310,
  timer = 0x320,
  timer_count = 0x380,
  timer_now = 0x390,
  timer_divisor = 0x3e0
};
constexpr std::uint64_t physical_address = 0xfee00000;
constexpr std::uint32_t nmi_mode = 0x400, pending = 0x1000, assert_level = 0x4000;

bool x2 = false;

std::uint32_t read(std::uint32_t number) {
  if (x2) return static_cast<std::uint32_t>(cpu::read_msr(cpu::msr_x2apic + number / 16));
  return *reinterpret_cast<volatile std::uint32_t*>(apic_address + number);
}

void write(std::uint32_t number, std::uint32_t value) {
  if (x2)
    cpu::write_msr(cpu::msr_x2apic + number / 16, value);
  else
    *reinterpret_cast<volatile std::uint32_t*>(apic_address + number) = value;
}

// Ticks of the timer in a millisecond, counted once against the time stamp counter.
std::uint64_t timer_khz() {
  static std::uint64_t known = 0;
  if (std::uint64_t found = __atomic_load_n(&known, __ATOMIC_ACQUIRE); found != 0) return found;
  constexpr std::uint64_t sample_ns = 2'000'000;
  constexpr std::uint32_t masked = 0x10000, longest = 0xffffffff;
  write(timer, masked);
  write(timer_count, longest);
  std::uint64_t begin = uptime_ns(), now;
  do now = uptime_ns();
  while (now - begin < sample_ns);
  std::uint64_t ticks = longest - read(timer_now);
  write(timer_count, 0);
  std::uint64_t out = ticks * 1'000'000 / (now - begin);
  if (out == 0) out = 1;
  __atomic_store_n(&known, out, __ATOMIC_RELEASE);
  return out;
}

}  // namespace

void arm_timer(std::uint64_t ns, unsigned vector) {
  constexpr std::uint32_t divide_by_16 = 3, longest = 0xffffffff;
  constexpr std::uint64_t longest_ns = 1'000'000'000;  // then it is armed anew
  write(timer_divisor, divide_by_16);
  std::uint64_t ticks = (ns < longest_ns ? ns : longest_ns) * timer_khz() / 1'000'000 + 1;
  write(timer, vector);
  write(timer_count, ticks < longest ? static_cast<std::uint32_t>(ticks) : longest);
}

void choose(bool x2apic) {
  x2 = x2apic;
  if (!x2) map_device(apic_address, physical_address);
}

void enable() {
  std::uint64_t base = cpu::read_msr(cpu::msr_apic_base) | 0x800U;
  cpu::write_msr(cpu::msr_apic_base, x2 ? base | 0x400U : base);
  write(priority, 0);
  write(spurious, 0x1ff);
}

std::uint32_t id() { return x2 ? read(identity) : read(identity) >> 24U; }
void end_of_interrupt() { write(end, 0); }
bool in_service(unsigned vector) {
  return (read(service + vector / 32 * 16) >> (vector % 32) & 1U) != 0;
}

void send_raw(std::uint64_t value) {
  cpu::Quiet quiet;
  if (x2) {
    cpu::write_msr(cpu::msr_x2apic + command / 16, value);
    return;
  }
  while ((read(command) & pending) != 0) cpu::relax();
  write(destination_high, static_cast<std::uint32_t>(value >> 32U));
  write(command, static_cast<std::uint32_t>(value));
}

void send(std::uint32_t destination, unsigned vector) {
  send_raw(hobbes_interrupt_command(x2 ? 1 : 0, destination, assert_level | vector));
}
void send_nmi(std::uint32_t destination) {
  send_raw(hobbes_interrupt_command(x2 ? 1 : 0, destination, assert_level | nmi_mode));
}

}  // namespace kitten::apic
