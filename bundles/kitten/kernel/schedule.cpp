#include "schedule.h"

#include "apic.h"
#include "clock.h"
#include "commands.h"
#include "cores.h"
#include "cpu.h"
#include "exceptions.h"
#include "forward.h"
#include "futex.h"
#include "kernel.h"
#include "signals.h"
#include "timer.h"
#include "views.h"

extern "C" {
[[noreturn]] void return_to_program(const kitten::TrapFrame* frame);
[[noreturn]] void restart_core(std::uint64_t stack_top);
extern std::uint64_t kernel_root;
void system_call_entry();
}

namespace kitten {
namespace {

constexpr std::uint64_t default_poll_ns = 5'000;
// How long a thread keeps its core from others by system calls that need not wait.
constexpr std::uint64_t turn_ns = 1'000'000;
std::uint64_t extended_states;  // XCR0, 0: no programs here

// The extended state of a program that begins: all components initial (Intel SDM vol. 1, 13.6).
void clear_extended(void* area) {
  __builtin_memset(area, 0, Thread::extended_size);
  auto* words = static_cast<std::uint32_t*>(area);
  words[0] = 0x37f;   // FCW
  words[6] = 0x1f80;  // MXCSR
}

void enter_space(std::uint64_t root) {
  Core& me = this_core();
  if (me.root == root) return;
  __atomic_store_n(&me.root, root, __ATOMIC_SEQ_CST);  // before: a shootdown sees it
  cpu::write_cr3(root);
}

// The current thread's time goes on from here.
void begin_counting(Core& me, const Thread& thread) {
  me.counted_until = uptime_ns();
  __atomic_store_n(&me.counted, thread.process, __ATOMIC_RELEASE);
}

// What it has run since then counts.
void count_time(Core& me) {
  if (me.current == nullptr) return;
  const std::uint64_t now = uptime_ns(), ran = now - me.counted_until;
  me.counted_until = now;
  me.current->ran_ns += ran;
  __atomic_add_fetch(&me.current->process->ran_ns, ran, __ATOMIC_RELAXED);
}

void end_counting(Core& me) {
  count_time(me);
  __atomic_store_n(&me.counted, nullptr, __ATOMIC_RELEASE);
}

// Whether another thread than `except` could run here, or must be looked at.
bool has_ready(Core& me, const Thread* except) {
  Locked locked(me.threads_lock);
  for (Thread* at = me.threads; at != nullptr; at = at->next) {
    if (at == except) continue;
    switch (__atomic_load_n(&at->state, __ATOMIC_SEQ_CST)) {
      case ThreadState::runnable:
        return true;
      case ThreadState::asking:
        if (proxy_spoke(*at)) return true;
        break;
      case ThreadState::waiting:
        if (at->child == nullptr && signals_wait(*at)) return true;
        break;
      default:
        break;
    }
    if (must_end(*at)) return true;
  }
  return false;
}

// What a bundle allows a thread at most while others of its core are ready (`slice=NS`); 0: until
// it waits.
std::uint64_t slice_ns() {
  static std::uint64_t value = number_in_command_line("slice=", 0);
  return value;
}

void remove_from_core(Core& me, Thread& thread) {
  Locked locked(me.threads_lock);
  for (Thread** at = &me.threads; *at != nullptr; at = &(*at)->next)
    if (*at == &thread) {
      *at = thread.next;
      break;
    }
  --me.thread_count;
}

// Frees a thread that this core does not run.
void end_thread(Core& me, Thread& thread) {
  futex_forget(thread);
  remove_from_core(me, thread);
  forget_context(thread);
  if (me.root == thread.process->space->root()) enter_space(kernel_root);
  bury(thread);
}

// One that can run now: asks the proxies of those that wait for them.
Thread* pick(Core& me) {
  for (;;) {
    Thread* ended = nullptr;
    Thread* spoken = nullptr;
    Thread* found = nullptr;
    {
      Locked locked(me.threads_lock);
      // After the one that ran last, so that all have their turn.
      for (int round = 0; round < 2 && ended == nullptr && spoken == nullptr; ++round) {
        bool behind = me.last == nullptr;
        for (Thread* at = me.threads; at != nullptr; at = at->next) {
          if (must_end(*at)) {
            ended = at;
            break;
          }
          if (at->state == ThreadState::asking && proxy_spoke(*at)) {
            spoken = at;
            break;
          }
          if (at->state == ThreadState::waiting && signals_wait(*at)) interrupt_wait(*at);
          if (found == nullptr && (behind || round == 1) &&
              __atomic_load_n(&at->state, __ATOMIC_ACQUIRE) == ThreadState::runnable)
            found = at;
          if (at == me.last) behind = true;
        }
      }
    }
    if (ended != nullptr) {
      end_thread(me, *ended);
    } else if (spoken != nullptr) {
      begin_counting(me, *spoken);
      me.current = spoken;
      std::int64_t result = take_answer(*spoken, spoken->frame);
      if (result != pending) count_time(me);  // otherwise it may be on another core already
      me.current = nullptr;
      __atomic_store_n(&me.counted, nullptr, __ATOMIC_RELEASE);
      if (result == pending) continue;
      spoken->frame.rax = static_cast<std::uint64_t>(result);
      spoken->state = ThreadState::runnable;
    } else {
      return found;
    }
  }
}

[[noreturn]] void run(Core& me, Thread& thread) {
  begin_counting(me, thread);
  me.current = me.last = &thread;
  thread.state = ThreadState::running;
  enter_space(thread.process->space->root());
  if (me.loaded != &thread || thread.fresh) {
    if (me.loaded != nullptr && me.loaded != &thread) save_context(*me.loaded);
    if (thread.fresh) clear_extended(thread.extended());
    thread.fresh = false;
    cpu::restore_extended(thread.extended(), extended_states);
    cpu::write_msr(cpu::msr_fs_base, thread.fs_base);
    cpu::write_msr(cpu::msr_kernel_gs_base, thread.gs_base);
    me.loaded = &thread;
  }
  me.turn_began = uptime_ns();
  if (slice_ns() != 0 && me.thread_count > 1) apic::arm_timer(slice_ns(), vector_timer);
  TrapFrame frame = thread.frame;
  before_program(frame);
  return_to_program(&frame);
}

// What a core does beside threads. False: nothing.
bool serve_duties(Core& me) {
  if (me.number == 0) {
    if (serve_request_of_linux()) return true;
    beat();
    if (views_wait()) {
      serve_views();
      return true;
    }
    return false;
  }
  return serve_work(me);
}

}  // namespace

void prepare_for_programs(std::uint64_t wanted) {
  constexpr std::uint32_t has_xsave = 1U << 26U, has_fsgsbase = 1U;
  if ((cpu::identify(1).c & has_xsave) == 0) return;
  cpu::write_cr0((cpu::read_cr0() & ~(cpu::cr0_emulate | cpu::cr0_task_switched)) |
                 cpu::cr0_monitor | cpu::cr0_numeric_error);
  std::uint64_t cr4 = cpu::read_cr4() | cpu::cr4_fxsr | cpu::cr4_simd | cpu::cr4_xsave;
  if ((cpu::identify(7).b & has_fsgsbase) != 0) cr4 |= cpu::cr4_fsgsbase;
  cpu::write_cr4(cr4);
  cpu::Leaf states = cpu::identify(0xd);
  std::uint64_t possible = static_cast<std::uint64_t>(states.d) << 32U | states.a;
  // As Linux has it, so that programs choose the same code; at least what SSE needs.
  std::uint64_t chosen = (wanted == 0 ? 7 : wanted & possible) | 3U;
  cpu::write_xcr0(chosen & possible);
  if (cpu::identify(0xd).b > Thread::extended_size) cpu::write_xcr0(chosen & possible & 7U);
  extended_states = cpu::read_xcr0();
  cpu::write_msr(cpu::msr_star, std::uint64_t{8} << 32U);
  cpu::write_msr(cpu::msr_lstar, reinterpret_cast<std::uint64_t>(system_call_entry));
  cpu::write_msr(cpu::msr_sfmask, 0x47700);  // traps, direction, interrupts, alignment checks off
  cpu::write_msr(cpu::msr_efer, cpu::read_msr(cpu::msr_efer) | 1U);
}

std::uint64_t answer_poll_ns() {
  static std::uint64_t value = number_in_command_line("poll=", default_poll_ns);
  return value;
}

Thread& current() { return *this_core().current; }

std::uint64_t ran_ns_here() {
  count_time(this_core());
  return current().ran_ns;
}

std::uint64_t ran_ns(Process& process) {
  Core& me = this_core();
  if (me.current != nullptr && me.current->process == &process &&
      __atomic_load_n(&process.threads, __ATOMIC_ACQUIRE) == 1) {
    count_time(me);
    return __atomic_load_n(&process.ran_ns, __ATOMIC_RELAXED);
  }
  // What runs elsewhere is looked at without a lock: a thread that stops meanwhile is missed, but
  // the clock does not go back.
  const std::uint64_t now = uptime_ns();
  std::uint64_t out = __atomic_load_n(&process.ran_ns, __ATOMIC_RELAXED);
  for (unsigned i = 0; i < core_limit; ++i) {
    const Core& one = core(i);
    if (__atomic_load_n(&one.counted, __ATOMIC_ACQUIRE) != &process) continue;
    const std::uint64_t since = __atomic_load_n(&one.counted_until, __ATOMIC_RELAXED);
    if (now > since) out += now - since;
  }
  std::uint64_t told = __atomic_load_n(&process.told_ns, __ATOMIC_RELAXED);
  while (told < out && !__atomic_compare_exchange_n(&process.told_ns, &told, out, false,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    continue;
  return told < out ? out : told;
}

namespace {

// How many of a core's threads want it now.
unsigned busy_threads(Core& one) {
  Locked locked(one.threads_lock);
  unsigned out = 0;
  for (Thread* at = one.threads; at != nullptr; at = at->next) {
    ThreadState state = __atomic_load_n(&at->state, __ATOMIC_ACQUIRE);
    if (state == ThreadState::running || state == ThreadState::runnable) ++out;
  }
  return out;
}

// The core that a thread disturbs least, of those that its process may use. Core 0 only where all
// others are busier: it takes the doorbells.
Core& least_busy(const CoreMask& allowed) {
  Core* best = nullptr;
  unsigned fewest = ~0U;
  for (unsigned i = core_limit; i-- > 0;) {
    Core& one = core(i);
    if (!takes_threads(one) || (!allowed.none() && !allowed.has(one.cpu))) continue;
    const unsigned busy = busy_threads(one);
    if (best != nullptr &&
        (busy > fewest || (busy == fewest && (i == 0 || one.thread_count > best->thread_count))))
      continue;
    best = &one;
    fewest = busy;
  }
  // All that were allowed may have left.
  return best != nullptr ? *best : least_busy({});
}

void put_on(Core& there, Thread& thread) {
  {
    Locked locked(there.threads_lock);
    thread.core = there.number;
    thread.call->core = there.apic_id;
    thread.call->kernel_sleeps = 1;
    thread.next = there.threads;
    there.threads = &thread;
    ++there.thread_count;
  }
  if (&there != &this_core()) ring_core(there);
}

}  // namespace

void place(Thread& thread) { put_on(least_busy(thread.process->cores), thread); }

bool bind_process(Thread& thread, const CoreMask& cores) {
  bool there = false;
  for (unsigned i = 0; i < core_limit; ++i)
    there |= takes_threads(core(i)) && cores.has(core(i).cpu);
  if (!there) return false;
  thread.process->cores = cores;
  // Before another core has it: that one would find the request once more.
  grant(thread, 0);
  remove_from_core(this_core(), thread);
  forget_context(thread);
  put_on(least_busy(cores), thread);
  return true;
}

void empty_core() {
  Core& me = this_core();
  while (me.threads != nullptr) {
    Thread& thread = *me.threads;
    if (me.loaded == &thread) save_context(thread);
    remove_from_core(me, thread);
    forget_context(thread);
    thread.bound = false;
    thread.moved = true;
    put_on(least_busy(thread.process->cores), thread);
  }
}

void wake(Thread& thread) {
  __atomic_store_n(&thread.state, ThreadState::runnable, __ATOMIC_SEQ_CST);
  Core& there = core(thread.core);
  if (&there != &this_core() && __atomic_load_n(&there.asleep, __ATOMIC_SEQ_CST)) ring_core(there);
}

void wake_cores() {
  for (unsigned i = 0; i < core_limit; ++i)
    if (&core(i) != &this_core() && takes_threads(core(i)) && core(i).threads != nullptr)
      ring_core(core(i));
}

void end_threads_here() {
  Core& me = this_core();
  for (;;) {
    Thread* ended = nullptr;
    {
      Locked locked(me.threads_lock);
      for (Thread* at = me.threads; at != nullptr && ended == nullptr; at = at->next)
        if (must_end(*at) && at != me.current) ended = at;
    }
    if (ended == nullptr) return;
    end_thread(me, *ended);
  }
}

void forget_context(const Thread& thread) {
  Core& me = this_core();
  if (me.loaded == &thread) me.loaded = nullptr;
  if (me.last == &thread) me.last = nullptr;
  enter_space(kernel_root);
}

void save_context(Thread& thread) {
  cpu::save_extended(thread.extended(), extended_states);
  thread.fs_base = cpu::read_msr(cpu::msr_fs_base);
  thread.gs_base = cpu::read_msr(cpu::msr_kernel_gs_base);
}

void move_current(TrapFrame& frame, unsigned number) {
  Core& me = this_core();
  Thread& thread = *me.current;
  end_counting(me);
  save_context(thread);
  remove_from_core(me, thread);
  forget_context(thread);
  me.current = nullptr;
  thread.frame = frame;
  thread.state = ThreadState::runnable;
  put_on(core(number), thread);
  restart_core(me.stack_top);
}

void leave_thread(const TrapFrame& frame) {
  this_core().current->frame = frame;
  reschedule();
}

void reschedule() {
  Core& me = this_core();
  end_counting(me);
  me.current = nullptr;
  me.idle_since = uptime_ns();
  restart_core(me.stack_top);
}

void end_current() {
  Core& me = this_core();
  Thread& thread = *me.current;
  end_counting(me);
  me.current = nullptr;
  end_thread(me, thread);
  restart_core(me.stack_top);
}

void share_core(TrapFrame& frame, bool turn_is_over) {
  Core& me = this_core();
  if (me.thread_count < 2) return;
  if (!turn_is_over && uptime_ns() - me.turn_began < turn_ns) return;
  if (has_ready(me, me.current)) {
    me.current->state = ThreadState::runnable;
    leave_thread(frame);
  }
  if (turn_is_over && slice_ns() != 0) apic::arm_timer(slice_ns(), vector_timer);
}

void before_program(TrapFrame& frame) {
  Thread& thread = current();
  if (must_end(thread)) end_current();
  if (leaves(this_core())) {
    thread.state = ThreadState::runnable;
    leave_thread(frame);
  }
  deliver_signals(thread, frame);
}

void run_core() {
  Core& me = this_core();
  cpu::interrupts_off();
  for (;;) {
    if (serve_duties(me)) continue;
    if (Thread* thread = pick(me)) run(me, *thread);
    std::uint64_t now = uptime_ns();
    if (wake_sleepers(now)) continue;
    if (me.threads != nullptr && now - me.idle_since < answer_poll_ns()) {
      cpu::relax();
      continue;
    }
    // A core that wakes a thread of this one looks at `asleep` after the thread's state has
    // changed.
    __atomic_store_n(&me.asleep, true, __ATOMIC_SEQ_CST);
    if (!has_ready(me, nullptr) && !(me.number == 0 && views_wait())) {
      arm_timer_for_sleepers();
      cpu::sleep();
    }
    __atomic_store_n(&me.asleep, false, __ATOMIC_SEQ_CST);
    me.idle_since = uptime_ns();
  }
}

}  // namespace kitten
