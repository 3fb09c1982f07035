/* Adds numbers up with OpenMP: prints how many processors and threads there are, and the sum. */
#include <omp.h>
#include <stdio.h>

int main(void) {
  long sum = 0;
  int threads = 0;
#pragma omp parallel reduction(+ : sum)
  {
#pragma omp single
    threads = omp_get_num_threads();
#pragma omp for schedule(dynamic, 1000)
    for (long i = 0; i < 10000000; ++i) sum += i % 7;
  }
  printf("%d processors, %d threads, sum %ld\n", omp_get_num_procs(), threads, sum);
  return 0;
}
