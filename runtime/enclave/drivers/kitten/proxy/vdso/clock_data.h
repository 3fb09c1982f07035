/* What the vDSO of programs on a co-kernel knows of time: the page before its image, written by the
 * proxy when a program is loaded, from the kernel's answer to HOBBES_REQUEST_CLOCK.
 */
#ifndef HOBBES_VDSO_CLOCK_DATA_H
#define HOBBES_VDSO_CLOCK_DATA_H

#include <stdint.h>

struct hobbes_clock_data {
  uint64_t tsc_khz;      /* 0: unknown, every call is made to the kernel */
  uint64_t epoch_tsc;    /* the time stamp counter at one instant */
  uint64_t wall_ns;      /* CLOCK_REALTIME then */
  uint64_t monotonic_ns; /* CLOCK_MONOTONIC then */
};

#endif
