/* The clock calls of programs on a co-kernel, without entering it (vdso(7)): the time stamp counter
 * and where it began, by the same arithmetic as the kernel's, so that the two never disagree.
 */
#include <stdint.h>
#include <time.h>

#include "clock_data.h"

#define NS_PER_SECOND 1000000000ULL

struct wall_time {
  int64_t seconds, us;
};

/* The page before the image, wherever that is. */
static const struct hobbes_clock_data* data(void) {
  const struct hobbes_clock_data* out;
  __asm__("lea __ehdr_start-4096(%%rip), %0" : "=r"(out));
  return out;
}

static uint64_t elapsed_ns(const struct hobbes_clock_data* clock) {
  uint32_t low, high;
  uint64_t ticks;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  ticks = ((uint64_t)high << 32 | low) - clock->epoch_tsc;
  return ticks / clock->tsc_khz * 1000000 + ticks % clock->tsc_khz * 1000000 / clock->tsc_khz;
}

static long system_call(long number, long a, long b) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
  return result;
}

int __vdso_clock_gettime(clockid_t which, struct timespec* to) {
  const struct hobbes_clock_data* clock = data();
  uint64_t ns;
  if (clock->tsc_khz == 0) return (int)system_call(228, which, (long)to);
  switch (which) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
      ns = clock->wall_ns + elapsed_ns(clock);
      break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
      ns = clock->monotonic_ns + elapsed_ns(clock);
      break;
    default:
      return (int)system_call(228, which, (long)to);
  }
  to->tv_sec = (time_t)(ns / NS_PER_SECOND);
  to->tv_nsec = (long)(ns % NS_PER_SECOND);
  return 0;
}

int __vdso_gettimeofday(struct wall_time* to, void* zone) {
  const struct hobbes_clock_data* clock = data();
  uint64_t us;
  if (clock->tsc_khz == 0 || zone != 0) return (int)system_call(96, (long)to, (long)zone);
  us = (clock->wall_ns + elapsed_ns(clock)) / 1000;
  if (to != 0) {
    to->seconds = (int64_t)(us / 1000000);
    to->us = (int64_t)(us % 1000000);
  }
  return 0;
}

time_t __vdso_time(time_t* to) {
  const struct hobbes_clock_data* clock = data();
  time_t now;
  if (clock->tsc_khz == 0) return system_call(201, (long)to, 0);
  now = (time_t)((clock->wall_ns + elapsed_ns(clock)) / NS_PER_SECOND);
  if (to != 0) *to = now;
  return now;
}

int __vdso_clock_getres(clockid_t which, struct timespec* to) {
  return (int)system_call(229, which, (long)to);
}
