#include "apic.h"

#include "abi/apic.h"
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
  destination_high = 0x310
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

}  // namespace

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
