// Threads that wait: for a word of their memory (futex(2)), for a while, for a child that borrows
// their memory.
#pragma once
#include "process.h"

namespace kitten {

std::int64_t futex(Thread& thread, TrapFrame& frame);
/// Wakes up to `count` threads that wait for a word. How many there were.
unsigned futex_wake(AddressSpace& space, std::uint64_t address, unsigned count,
                    std::uint32_t bits = ~0U);
/// The current thread sleeps until `deadline_ns` of uptime, or until a signal, and then stores what
/// was left as a timespec where `saved[0]` says. `pending`.
std::int64_t sleep_until(Thread& thread, TrapFrame& frame, std::uint64_t deadline_ns);
/// Its deadline has come: it goes on with ETIMEDOUT, or with 0 where it only slept. False: it was
/// woken meanwhile.
bool futex_time_out(Thread& thread);
/// A signal has come: a waiting thread goes on with EINTR. On its core.
void interrupt_wait(Thread& thread);
/// It waits for nothing any more.
void futex_forget(Thread& thread);
/// What a thread that ends leaves behind: its robust list and `clear_child_tid`.
void release_on_exit(Thread& thread);

}  // namespace kitten
