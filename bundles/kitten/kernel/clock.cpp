#include "clock.h"

#include "cpu.h"

namespace kitten {
namespace {

std::uint64_t khz, boot_tsc, epoch_ns, epoch_tsc, epoch_monotonic_ns;

std::uint64_t ns_of(std::uint64_t ticks) {
  if (khz == 0) return 0;
  // In two parts: the product with a million would overflow after hours.
  return ticks / khz * 1'000'000 + ticks % khz * 1'000'000 / khz;
}

}  // namespace

void set_clock(std::uint64_t tsc_khz, std::uint64_t wall, std::uint64_t wall_tsc,
               std::uint64_t monotonic) {
  khz = tsc_khz;
  boot_tsc = cpu::time_stamp();
  epoch_ns = wall;
  epoch_tsc = wall_tsc;
  epoch_monotonic_ns = monotonic;
}

std::uint64_t uptime_ns() { return ns_of(cpu::time_stamp() - boot_tsc); }
std::uint64_t wall_ns() {
  return epoch_ns == 0 ? 0 : epoch_ns + ns_of(cpu::time_stamp() - epoch_tsc);
}

ClockEpoch clock_epoch() { return {khz, epoch_tsc, epoch_ns, epoch_monotonic_ns}; }
std::uint64_t monotonic_ns() { return epoch_monotonic_ns + ns_of(cpu::time_stamp() - epoch_tsc); }

}  // namespace kitten
