// Time, from the time stamp counter and what the boot parameters say of it. No timer interrupt is
// ever asked for.
#pragma once
#include <cstdint>

namespace kitten {

void set_clock(std::uint64_t tsc_khz, std::uint64_t wall_ns, std::uint64_t wall_tsc,
               std::uint64_t monotonic_ns);
/// Nanoseconds since `set_clock`.
std::uint64_t uptime_ns();
/// CLOCK_REALTIME as Linux had it at boot, carried on. 0: unknown.
std::uint64_t wall_ns();
/// What a program needs to tell the time itself.
struct ClockEpoch {
  std::uint64_t tsc_khz, tsc, wall_ns, monotonic_ns;
};
ClockEpoch clock_epoch();
/// CLOCK_MONOTONIC likewise.
std::uint64_t monotonic_ns();

}  // namespace kitten
