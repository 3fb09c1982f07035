#include "cores.h"

#include <cerrno>

#include "apic.h"
#include "clock.h"
#include "console.h"
#include "cpu.h"
#include "descriptor_tables.h"
#include "exceptions.h"
#include "lock.h"
#include "memory.h"
#include "schedule.h"
#include "shared.h"

extern "C" {
// The stack of the core that is being booted; Linux boots them one after the other.
std::uint64_t next_core_stack;
}

namespace kitten {
namespace {

constexpr std::uint64_t answer_limit_ns = 2'000'000'000;

constinit Core all[core_limit]{};
unsigned count = 0;
bool ready = false, halt_asked = false;
std::uint64_t extended_states = 0;
SpinLock shoot_lock, cores_lock;

void flush() { cpu::write_cr3(cpu::read_cr3()); }

CoreState state_of(const Core& one) { return __atomic_load_n(&one.state, __ATOMIC_ACQUIRE); }
void set_state(Core& one, CoreState state) {
  __atomic_store_n(&one.state, state, __ATOMIC_RELEASE);
}
bool executes(CoreState state) {
  return state == CoreState::idle || state == CoreState::busy || state == CoreState::leaving;
}

void serve_shoot(Core& me) {
  if (__atomic_load_n(&me.shoot, __ATOMIC_ACQUIRE) == 0) return;
  flush();
  __atomic_store_n(&me.shoot, 0U, __ATOMIC_RELEASE);
}

}  // namespace

bool cores_ready() { return ready; }
Core& this_core() {
  Core* out;
  asm volatile("mov %%gs:0, %0" : "=r"(out));
  return *out;
}
Core& core(unsigned number) { return all[number]; }
unsigned cores_up() { return count; }

void serve_while_waiting() {
  if (ready) serve_shoot(this_core());
}

std::uint64_t prepare_core(unsigned number, std::uint32_t apic_id, std::uint32_t cpu) {
  Core& one = all[number];
  one = {};
  one.number = number;
  one.apic_id = apic_id;
  one.cpu = cpu;
  one.stack_top = make_stack(number, 0);
  if (one.stack_top == 0 || !make_gdt(number, one.stack_top)) return 0;
  set_state(one, CoreState::coming);
  return one.stack_top;
}

void set_extended_states(std::uint64_t xcr0) { extended_states = xcr0; }

void enter_core(unsigned number) {
  load_descriptor_tables(number);
  prepare_for_programs(extended_states);
  apic::enable();
  Core& me = all[number];
  if (apic::id() != me.apic_id) me.apic_id = apic::id();
  ready = true;
  set_state(me, number == 0 ? CoreState::busy : CoreState::idle);
  __atomic_store_n(&status().cores_up, __atomic_add_fetch(&count, 1U, __ATOMIC_ACQ_REL),
                   __ATOMIC_RELEASE);
}

int expect_core(std::uint32_t apic_id, std::uint32_t cpu) {
  Locked locked(cores_lock);
  unsigned number = 0;
  for (unsigned i = core_limit; i-- > 0;) {
    CoreState state = state_of(all[i]);
    if (executes(state) && all[i].apic_id == apic_id) return -EEXIST;
    if (i != 0 &&
        (state == CoreState::absent || state == CoreState::gone || state == CoreState::coming))
      number = i;
  }
  if (number == 0) return -ENOSPC;
  next_core_stack = prepare_core(number, apic_id, cpu);
  return next_core_stack == 0 ? -ENOMEM : static_cast<int>(number);
}

int dismiss_core(std::uint32_t apic_id) {
  for (unsigned i = 1; i < core_limit; ++i) {
    Core& one = all[i];
    CoreState expected = CoreState::idle;
    if (one.apic_id != apic_id || !executes(state_of(one))) continue;
    if (!__atomic_compare_exchange_n(&one.state, &expected, CoreState::leaving, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      return EBUSY;
    apic::send(one.apic_id, vector_work);
    std::uint64_t limit = uptime_ns() + answer_limit_ns;
    while (state_of(one) != CoreState::gone) {
      if (uptime_ns() > limit) panic("a core does not leave");
      serve_while_waiting();
      cpu::relax();
    }
    __atomic_store_n(&status().cores_up, __atomic_sub_fetch(&count, 1U, __ATOMIC_ACQ_REL),
                     __ATOMIC_RELEASE);
    return 0;
  }
  return ENOENT;
}

int run_on(unsigned number, const char* name, void (*work)(std::uint64_t), std::uint64_t argument) {
  if (number == 0 || number >= core_limit) return EINVAL;
  Core& one = all[number];
  CoreState expected = CoreState::idle;
  if (!executes(state_of(one))) return ENOENT;
  if (state_of(one) != CoreState::idle) return EBUSY;  // only core 0 gives work, so it stays idle
  one.work_name = name;
  one.argument = argument;
  __atomic_store_n(&one.work, work, __ATOMIC_RELEASE);
  if (!__atomic_compare_exchange_n(&one.state, &expected, CoreState::busy, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE))
    return EBUSY;
  apic::send(one.apic_id, vector_work);
  return 0;
}

namespace {

// On every core, or on those in one program's tables.
void shoot(bool everywhere, std::uint64_t root) {
  cpu::Quiet quiet;
  flush();
  if (!ready) return;
  Core& me = this_core();
  Locked locked(shoot_lock);
  for (Core& one : all) {
    if (&one == &me || !executes(state_of(one))) continue;
    if (!everywhere && __atomic_load_n(&one.root, __ATOMIC_SEQ_CST) != root) continue;
    __atomic_store_n(&one.shoot, 1U, __ATOMIC_RELEASE);
    apic::send(one.apic_id, vector_shoot_down);
  }
  std::uint64_t limit = uptime_ns() + answer_limit_ns;
  for (Core& one : all) {
    while (executes(state_of(one)) && __atomic_load_n(&one.shoot, __ATOMIC_ACQUIRE) != 0 &&
           &one != &me) {
      if (uptime_ns() > limit) panic("a core does not answer a translation shootdown");
      serve_shoot(me);
      cpu::relax();
    }
  }
}

}  // namespace

void shoot_down() { shoot(true, 0); }
void shoot_down(std::uint64_t root) { shoot(false, root); }

bool takes_threads(const Core& one) {
  CoreState state = state_of(one);
  return one.number == 0 ? state == CoreState::busy
                         : state == CoreState::idle || state == CoreState::busy;
}

bool leaves(const Core& one) { return state_of(one) == CoreState::leaving; }

void ring_core(const Core& one) { apic::send(one.apic_id, vector_work); }

bool serve_work(Core& me) {
  CoreState state = state_of(me);
  if (state == CoreState::leaving) {
    empty_core();
    set_state(me, CoreState::gone);
    cpu::stop();
  }
  if (state != CoreState::busy) return false;
  auto work = __atomic_load_n(&me.work, __ATOMIC_ACQUIRE);
  cpu::interrupts_on();
  work(me.argument);
  cpu::interrupts_off();
  me.work_name = nullptr;
  set_state(me, CoreState::idle);
  return true;
}

bool halting() { return __atomic_load_n(&halt_asked, __ATOMIC_ACQUIRE); }

void halt_others() {
  __atomic_store_n(&halt_asked, true, __ATOMIC_RELEASE);
  if (!ready) return;
  Core& me = this_core();
  for (Core& one : all)
    if (&one != &me && executes(state_of(one))) apic::send_nmi(one.apic_id);
}

}  // namespace kitten

using namespace kitten;

// Where a core other than 0 comes from entry.S, on its own stack.
extern "C" [[noreturn]] void core_main(unsigned number) {
  enter_core(number);
  run_core();
}

// Called from the interrupt handler.
namespace kitten {
void on_shoot_down() { serve_shoot(this_core()); }
}  // namespace kitten
