// The cores of this enclave. Core 0 takes the doorbells and serves commands; the others run what
// they are given and are left alone.
#pragma once
#include <cstdint>

#include "lock.h"

namespace kitten {

struct Thread;

enum class CoreState : std::uint32_t { absent, coming, idle, busy, leaving, gone };

struct Core {
  std::uint32_t number, apic_id, cpu;
  CoreState state;
  std::uint64_t stack_top;
  std::uint64_t interrupts;
  std::uint32_t shoot;  // a translation shootdown it has not served yet
  void (*work)(std::uint64_t);
  std::uint64_t argument;
  const char* work_name;
  // schedule.cpp
  SpinLock threads_lock;
  Thread* threads;  // those pinned to it
  unsigned thread_count;
  Thread* current;     // whose program or call it executes
  Thread* last;        // whose turn it was
  Thread* loaded;      // whose extended state and segment bases it holds
  std::uint64_t root;  // whose page tables; 0: the kernel's own
  bool asleep;
  std::uint64_t idle_since, turn_began;  // uptime
  // Whose processor time goes on here, null: nobody's, and until when it has been counted.
  const struct Process* counted;
  std::uint64_t counted_until;
};

constexpr unsigned core_limit = 256;
constexpr unsigned vector_shoot_down = 0xf1, vector_work = 0xf2, vector_timer = 0xf3;

/// This core's own.
Core& this_core();
Core& core(unsigned number);
/// Whether `this_core` can be used yet.
bool cores_ready();

/// Core 0's part: its record, descriptors and stacks. Returns the top of its stack.
std::uint64_t prepare_core(unsigned number, std::uint32_t apic_id, std::uint32_t cpu);
/// On the core itself, once its stack is in use: descriptors, interrupt controller.
void enter_core(unsigned number);
/// A number for a core that Linux is about to boot, -errno on failure.
int expect_core(std::uint32_t apic_id, std::uint32_t cpu);
/// An idle core leaves for good. 0 or an errno: EBUSY while it works.
int dismiss_core(std::uint32_t apic_id);
/// Gives an idle core something to run to its end. EBUSY when it is not idle.
int run_on(unsigned number, const char* name, void (*work)(std::uint64_t), std::uint64_t argument);
unsigned cores_up();

/// Whether threads may be put on it.
bool takes_threads(const Core& one);
/// Whether it has been told to leave.
bool leaves(const Core& one);
/// Makes a core look for work.
void ring_core(const Core& one);
/// On the core itself: runs what it was given, or leaves. False: nothing.
bool serve_work(Core& me);
/// XCR0 for programs, as Linux has it; before `enter_core`.
void set_extended_states(std::uint64_t xcr0);
/// As `shoot_down()`, but only on the cores that are in these page tables.
void shoot_down(std::uint64_t root);

/// Every core drops its cached translations before this returns. Interrupts may be off; waiting
/// cores serve each other.
void shoot_down();
/// All others stop for good, by NMI. From fault handlers too.
void halt_others();
/// Whether the others have been told to.
bool halting();

}  // namespace kitten
