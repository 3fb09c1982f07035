#include "exceptions.h"

#include <cerrno>
#include <cstdint>

#include "abi/vm.h"
#include "apic.h"
#include "commands.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "memory.h"
#include "schedule.h"
#include "shared.h"
#include "signals.h"
#include "trap_frame.h"
#include "views.h"

namespace kitten {

void on_shoot_down();

namespace {

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

void report(hobbes_fault& to, const TrapFrame& frame, const char* why) {
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
  __builtin_memcpy(to.registers, &frame, 15 * sizeof(std::uint64_t));
  trace(frame.rbp, to.trace);
  copy_text(to.text, text);
  print(text);
}

[[noreturn]] void die(const TrapFrame& frame, const char* why) {
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

void on_nmi(const TrapFrame& frame) {
  if (halting()) cpu::stop();
  report(status().nmi, frame, (frame.rflags & 0x200U) == 0 ? "interrupts are off" : nullptr);
  __atomic_add_fetch(&status().probes, 1U, __ATOMIC_ACQ_REL);
}

}  // namespace

void panic(const char* why) {
  TrapFrame frame{};
  frame.vector = vector_panic;
  frame.rip = reinterpret_cast<std::uint64_t>(__builtin_return_address(0));
  frame.rsp = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  frame.rflags = cpu::read_flags();
  frame.rbp = frame.rsp;
  die(frame, why);
}

}  // namespace kitten

using namespace kitten;

namespace {

// What Linux makes of a processor's exceptions (arch/x86/kernel/traps.c).
void on_program_exception(TrapFrame& frame) {
  enum : int { sigill = 4, sigtrap = 5, sigbus = 7, sigfpe = 8, sigsegv = 11 };
  Thread& thread = current();
  switch (frame.vector) {
    case 0:
      return raise_fault(thread, frame, sigfpe, 1, frame.rip);
    case 1:
      return raise_fault(thread, frame, sigtrap, 2, frame.rip);
    case 3:
      return raise_fault(thread, frame, sigtrap, 0x80, 0);
    case 6:
      return raise_fault(thread, frame, sigill, 2, frame.rip);
    case 16:
    case 19:
      return raise_fault(thread, frame, sigfpe, 7, frame.rip);
    case 11:
    case 12:
      return raise_fault(thread, frame, sigbus, 0x80, 0);
    case 17:
      return raise_fault(thread, frame, sigbus, 1, 0);
    case vector_page_fault: {
      constexpr std::uint64_t was_write = 2, was_execution = 16;
      std::uint64_t address = cpu::read_cr2();
      int error = thread.process->space->fill(address, (frame.error & was_write) != 0,
                                              (frame.error & was_execution) != 0);
      if (error == 0) return;
      if (error == ENOMEM) {
        print(Line() << "process " << thread.process->pid
                     << " is killed: the enclave has no memory left for " << Hex{address});
        return kill_process(thread, frame, 9);
      }
      return raise_fault(thread, frame, sigsegv, error == EFAULT ? 1 : 2, address);
    }
    default:
      return raise_fault(thread, frame, sigsegv, 0x80, 0);
  }
}

}  // namespace

extern "C" void interrupt(TrapFrame* frame) {
  if (frame->vector == vector_nmi) return on_nmi(*frame);
  constexpr unsigned vector_double_fault = 8, vector_machine_check = 18;
  if (frame->vector < 32) {
    if (!frame->from_program() || frame->vector == vector_double_fault ||
        frame->vector == vector_machine_check)
      die(*frame, nullptr);
    current().call_number = -1;
    on_program_exception(*frame);
    return before_program(*frame);
  }
  Core& me = this_core();
  me.interrupts = me.interrupts + 1;
  __atomic_store_n(&status().interrupts[me.number], me.interrupts, __ATOMIC_RELAXED);
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
    case vector_timer:
      break;
    default:
      __atomic_add_fetch(&status().unknown, 1ULL, __ATOMIC_RELAXED);
  }
  if (acknowledge) apic::end_of_interrupt();
  if (!frame->from_program()) {
    if (me.number == 0) beat();
    return;
  }
  current().call_number = -1;
  if (me.number == 0) {
    beat();
    while (serve_request_of_linux()) {
    }
    serve_views();
  }
  if (frame->vector == vector_timer) share_core(*frame, true);
  before_program(*frame);
}
