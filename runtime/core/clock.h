// The kernel's clocks as numbers.
#pragma once
#include <time.h>

#include <cstdint>

namespace hobbes {

/// Nanoseconds that a clock shows, such as CLOCK_BOOTTIME (clock_gettime(2)).
inline std::uint64_t clock_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace hobbes
