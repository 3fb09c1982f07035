#include "exceptions.h"

#include <cstdint>

#include "abi/vm.h"
#include "apic.h"
#include "commands.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "memory.h"
#include "shared.h"

namespace kitten {

void on_shoot_down();

namespace {

// As entry.S pushes it.
struct Frame {
  std::uint64_t registers[15];  // rax rbx rcx rdx rsi rdi rbp r8 .. r15
  std::uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

constexpr unsigned vector_nmi = 2, vector_page_fault = 14, vector_panic = 0x100;

const char* name_of(std::uint64_t vector) {
  static const char* const names[] = {"division by zero",
                                      "debug",
                                      "NMI",
                                      "breakpoint",
                                      "overflow",
                                      "bound",
                                      "invalid instruction",
                                      "no FPU",
                                      "double fault",
                                      "coprocessor",
                                      "invalid task state",
                                      "segment not present",
                                      "stack segment",
                                      "general protection",
                                      "page fault",
                                      "reserved",
                                      "floating point",
                                      "alignment",
                                      "machine check",
                                      "SIMD",
                                      "virtualisation",
                                      "control protection"};
  if (vector == vector_panic) return "panic";
  return vector < sizeof names / sizeof names[0] ? names[vector] : "exception";
}

bool on_a_stack(std::uint64_t address) {
  unsigned number = cores_ready() ? this_core().number : 0;
  for (unsigned which = 0; which < 4; ++which) {
    std::uint64_t low, high;
    stack_bounds(number, which, &low, &high);
    if (address >= low && address + 16 <= high) return true;
  }
  return false;
}

// Return addresses along the chain of frame pointers, as far as it stays on this core's stacks.
void trace(std::uint64_t frame_pointer, std::uint64_t (&out)[16]) {
  unsigned n = 0;
  while (n < 15 && frame_pointer % 8 == 0 && on_a_stack(frame_pointer)) {
    const auto* pair = reinterpret_cast<const std::uint64_t*>(frame_pointer);
    if (pair[1] == 0) break;
    out[n++] = pair[1];
    if (pair[0] <= frame_pointer) break;
    frame_pointer = pair[0];
  }
  out[n] = 0;
}

void copy_text(char (&to)[160], const Line& from) {
  std::size_t size = from.size() < sizeof to - 1 ? from.size() : sizeof to - 1;
  for (std::size_t i = 0; i < size; ++i) to[i] = from.text()[i];
  to[size] = '\0';
}

void report(hobbes_fault& to, const Frame& frame, const char* why) {
  unsigned number = cores_ready() ? this_core().number : 0;
  std::uint64_t cr2 = cpu::read_cr2();
  Line text;
  text << name_of(frame.vector) << " on core " << number;
  if (why != nullptr) text << ": " << why;
  if (frame.vector == vector_page_fault)
    text << ((frame.error & 16U) != 0  ? ": executing "
             : (frame.error & 2U) != 0 ? ": writing to "
                                       : ": reading from ")
         << Hex{cr2} << ((frame.error & 1U) != 0 ? ", which is protected" : ", where nothing is");
  text << " at " << Hex{frame.rip};
  to.vector = static_cast<std::uint32_t>(frame.vector);
  to.core = number;
  to.error = frame.error;
  to.rip = frame.rip;
  to.rsp = frame.rsp;
  to.rflags = frame.rflags;
  to.cr2 = cr2;
  to.cr3 = cpu::read_cr3();
  for (unsigned i = 0; i < 15; ++i) to.registers[i] = frame.registers[i];
  trace(frame.registers[6], to.trace);
  copy_text(to.text, text);
  print(text);
}

[[noreturn]] void die(const Frame& frame, const char* why) {
  static std::uint32_t dying;
  cpu::interrupts_off();
  // A fault in the report itself, or a second core's: the first report stands.
  if (__atomic_exchange_n(&dying, 1U, __ATOMIC_ACQ_REL) != 0) cpu::stop();
  halt_others();
  report(status().fault, frame, why);
  __atomic_store_n(&status().state, static_cast<std::uint32_t>(HOBBES_KITTEN_FAULTED),
                   __ATOMIC_RELEASE);
  if (alone != 0) {
    if (cpu::identify(HOBBES_VM_LEAF).b == HOBBES_VM_MAGIC)
      cpu::out8(HOBBES_VM_PANIC_PORT, HOBBES_VM_PANICKED);
    cpu::out8(0xf4, 0x7f);
  }
  ring_linux();
  cpu::stop();
}

void on_nmi(const Frame& frame) {
  if (halting()) cpu::stop();
  report(status().nmi, frame, (frame.rflags & 0x200U) == 0 ? "interrupts are off" : nullptr);
  __atomic_add_fetch(&status().probes, 1U, __ATOMIC_ACQ_REL);
}

}  // namespace

void panic(const char* why) {
  Frame frame{};
  frame.vector = vector_panic;
  frame.rip = reinterpret_cast<std::uint64_t>(__builtin_return_address(0));
  frame.rsp = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  frame.rflags = cpu::read_flags();
  frame.registers[6] = frame.rsp;
  die(frame, why);
}

}  // namespace kitten

using namespace kitten;

extern "C" void interrupt(Frame* frame) {
  if (frame->vector == vector_nmi) return on_nmi(*frame);
  if (frame->vector < 32) die(*frame, nullptr);
  Core& me = this_core();
  me.interrupts = me.interrupts + 1;
  __atomic_store_n(&status().interrupts[me.number], me.interrupts, __ATOMIC_RELAXED);
  if (me.number == 0)
    __atomic_store_n(&status().heartbeat, status().heartbeat + 1, __ATOMIC_RELAXED);
  // A vector the controller did not deliver (a spurious one, a software interrupt) must not be
  // acknowledged.
  bool acknowledge = apic::in_service(static_cast<unsigned>(frame->vector));
  switch (frame->vector) {
    case HOBBES_KITTEN_DOORBELL:
      __atomic_store_n(&status().rings, status().rings + 1, __ATOMIC_RELAXED);
      break;
    case vector_shoot_down:
      on_shoot_down();
      break;
    case vector_work:
      break;
    default:
      __atomic_add_fetch(&status().unknown, 1ULL, __ATOMIC_RELAXED);
  }
  if (acknowledge) apic::end_of_interrupt();
}
