// Makes system calls by number, by the 64-bit and by the 32-bit way into the kernel, with arguments
// that no call accepts, and prints what the kernel says: one line "NUMBER64 NUMBER32 ERRNO64
// ERRNO32" a pair; "none" where the kernel has no 32-bit way.
//
//   calls NUMBER64:NUMBER32...
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static sigjmp_buf no_way;
static void on_fault(int number) {
  (void)number;
  siglongjmp(no_way, 1);
}

static long by_interrupt(long number) {
  long result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "a"(number), "b"(-1L), "c"(0L), "d"(0L), "S"(0L), "D"(0L)
                   : "memory", "r8", "r9", "r10", "r11");
  return (int)result;
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    char* end = argv[i];
    long wide = strtol(end, &end, 10), narrow = *end == ':' ? strtol(end + 1, &end, 10) : wide;
    errno = 0;
    long one = syscall(wide, -1L, 0L, 0L, 0L, 0L, 0L);
    int first = one < 0 ? errno : 0;
    signal(SIGSEGV, on_fault);
    if (sigsetjmp(no_way, 1) != 0) {
      printf("%ld %ld %d none\n", wide, narrow, first);
      continue;
    }
    long other = by_interrupt(narrow);
    printf("%ld %ld %d %ld\n", wide, narrow, first, other < 0 ? -other : 0);
  }
  return 0;
}
