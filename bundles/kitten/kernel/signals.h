// Signals: Linux keeps them, and the proxy's threads take them; the kernel makes the frames in
// which a program's handlers run (System V ABI and Linux's rt_sigframe).
#pragma once
#include "process.h"

namespace kitten {

constexpr std::uint64_t signal_default = 0, signal_ignored = 1;
constexpr std::uint32_t signal_stack_disabled = 2;

// System calls.
std::int64_t signal_action(Thread& thread, TrapFrame& frame);
std::int64_t signal_mask(Thread& thread, TrapFrame& frame);
std::int64_t signal_return(Thread& thread, TrapFrame& frame);
std::int64_t signal_stack(Thread& thread, TrapFrame& frame);

/// Those that the proxy has caught for this thread.
[[nodiscard]] bool signals_wait(const Thread& thread);
/// The current thread goes on in their handlers.
void deliver_signals(Thread& thread, TrapFrame& frame);
/// The current thread's process ends as this signal ends one, with its proxy's help. Does not
/// return.
[[noreturn]] void kill_process(Thread& thread, TrapFrame& frame, unsigned number);
/// The current thread has met a fault: its handler runs, or its process ends by that signal.
void raise_fault(Thread& thread, TrapFrame& frame, int number, int code, std::uint64_t address);

}  // namespace kitten
