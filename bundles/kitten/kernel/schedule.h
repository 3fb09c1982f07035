// Which thread runs on a core. Threads are pinned and give way by themselves: when they wait, ask,
// say so, or have made calls for a while. No timer is asked for but for a sleeper's deadline, and
// for slices where the bundle allows them.
#pragma once
#include "process.h"

namespace kitten {

constexpr std::uint16_t program_data = 0x2b, program_code = 0x33;  // as on Linux

/// Once for each core: what programs expect of a processor.
void prepare_for_programs(std::uint64_t extended_states);
/// Puts a new thread on the least busy core, among those that may take it.
void place(Thread& thread);
/// Has a process, whose one thread asks for it, on some of the enclave's cores only: grants the
/// request, and the thread is another core's then. False: none of them is there.
bool bind_process(Thread& thread, const CoreMask& cores);
/// The thread that runs here, or whose call is served.
Thread& current();
/// Processor time in nanoseconds: of the current thread, and of all threads of a process.
std::uint64_t ran_ns_here();
std::uint64_t ran_ns(Process& process);
/// A waiting thread may run again. From any core.
void wake(Thread& thread);
/// Every core looks at its threads anew.
void wake_cores();
/// Ends this core's threads that must end, but not the current one.
void end_threads_here();
/// What the processor holds of a thread is not to be kept.
void forget_context(const Thread& thread);
/// What the processor holds of the current thread, into the thread.
void save_context(Thread& thread);
/// This core leaves: its threads, none of which runs, go on elsewhere.
void empty_core();
/// Moves the current thread to another core; it goes on there. Its result is in its frame.
[[noreturn]] void move_current(TrapFrame& frame, unsigned core);

/// The current thread leaves the processor with this frame; the core goes on with others.
[[noreturn]] void leave_thread(const TrapFrame& frame);
/// The current thread leaves the processor; its frame is set already.
[[noreturn]] void reschedule();
/// The current thread is no more.
[[noreturn]] void end_current();
/// The life of a core: threads, its other duties, sleep. On the core's stack, from its top.
[[noreturn]] void run_core();
/// How long a core looks for an answer before it does something else (`poll=NS`).
std::uint64_t answer_poll_ns();
/// The current thread lets others of its core run if they are ready and it has had its turn: so
/// many nanoseconds of system calls, or its slice where `turn_is_over`.
void share_core(TrapFrame& frame, bool turn_is_over);
/// Before a program goes on: ends it if it must, delivers signals.
void before_program(TrapFrame& frame);

}  // namespace kitten
