/* Computes for as many seconds as it is told, without a system call, and prints how far it came.
 * Usage: compute SECONDS
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

int main(int count, char** arguments) {
  if (count != 2) return 2;
  struct timespec begin, now;
  /* What a second is in ticks, before the silence begins. */
  clock_gettime(CLOCK_MONOTONIC, &begin);
  uint64_t first = __rdtsc();
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 100000000L);
  uint64_t second = (__rdtsc() - first) * 10;
  printf("on processor %d\n", sched_getcpu());
  fflush(stdout);
  uint64_t end = __rdtsc() + second * strtoull(arguments[1], NULL, 10);
  double sum = 0;
  while (__rdtsc() < end) sum += 1 / (sum + 1);
  printf("computed %d\n", sum > 1);
  return 0;
}
