// Deadlines of threads that sleep: the core's own timer, armed only while the core has nothing else
// to do.
#pragma once
#include <cstdint>

namespace kitten {

/// For the first deadline among this core's sleeping threads, if there is one.
void arm_timer_for_sleepers();
/// Wakes this core's threads whose deadline (uptime) has come. False: none.
bool wake_sleepers(std::uint64_t now_ns);

}  // namespace kitten
