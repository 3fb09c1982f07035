// Calls that a program's proxy executes (abi/forward.h): one in flight for each thread.
#pragma once
#include "process.h"

namespace kitten {

/// Asks the proxy; `then` continues with its answer, on the thread's core. Returns `pending`.
std::int64_t ask(Thread& thread, std::uint64_t number, const std::uint64_t (&arguments)[6],
                 Then then);
/// Passes on what cannot be answered: its thread or process ends.
void tell(Thread& thread, std::uint64_t number, std::uint64_t argument);
/// Whether the proxy has answered or asks something.
[[nodiscard]] bool proxy_spoke(const Thread& thread);
/// Takes the answer: the call's result or `pending`. Only when `proxy_spoke`.
std::int64_t take_answer(Thread& thread, TrapFrame& frame);
/// Answers the proxy's request.
void grant(Thread& thread, std::int64_t result);
/// The answer as it is.
std::int64_t as_answered(Thread& thread, TrapFrame& frame, std::int64_t answer);

struct ForwardCounts {
  std::uint64_t calls, rings;
};
ForwardCounts forward_counts();
/// How often each system call was forwarded.
const std::uint64_t* forwarded_by_number();
constexpr unsigned counted_numbers = 512;

}  // namespace kitten
