/* A program that wishes its kernel ill: random system calls with random arguments, races on the
 * memory of calls in flight, floods of processes, threads and descriptors, overflowing stacks. It
 * may die; nothing else may.
 * Usage: hostile calls SEED COUNT | race | fork | threads | descriptors | stack | memory | data |
 * view
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t state;
static uint64_t next(void) { /* xorshift64* */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 2685821657736338717ULL;
}

static char* area;
static uint64_t argument(void) {
  switch (next() % 9) {
    case 0:
      return next() % 8;
    case 1:
      return next();
    case 2:
      return (uint64_t)area + next() % 65536;
    case 3:
      return 0x7e0000000000 + next() % 0x20000000000; /* the proxy's */
    case 4:
      return 0xffff800000000000 + next() % 0x100000000; /* the kernel's */
    case 5:
      return ((uint64_t)area + next() % 65536) & ~4095ULL;
    case 6:
      return (next() % 64) * 4096;
    case 7:
      return (uint64_t) - (int64_t)(next() % 200);
    default:
      return 1ULL << (next() % 64);
  }
}

/* Those that end the test's own purpose: waiting for ever, ending, stopping. */
static int spared(long number) {
  static const int numbers[] = {SYS_exit,
                                SYS_exit_group,
                                SYS_pause,
                                SYS_rt_sigsuspend,
                                SYS_rt_sigtimedwait,
                                SYS_fork,
                                SYS_vfork,
                                SYS_clone,
                                SYS_clone3,
                                SYS_kill,
                                SYS_tkill,
                                SYS_tgkill,
                                SYS_rt_sigqueueinfo,
                                SYS_wait4,
                                SYS_waitid,
                                SYS_execve,
                                SYS_execveat,
                                SYS_rt_tgsigqueueinfo};
  for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; ++i)
    if (numbers[i] == number) return 1;
  return 0;
}

static void calls(uint64_t seed, long count) {
  state = seed * 0x9e3779b97f4a7c15ULL + 1;
  area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 65536; ++i) area[i] = (char)next();
  for (long i = 0; i < count; ++i) {
    long number = (long)(next() % 460);
    if (!spared(number))
      syscall(number, argument(), argument(), argument(), argument(), argument(), argument());
  }
}

static volatile int racing = 1;
static void* flip(void* unused) {
  (void)unused;
  while (racing) {
    mprotect(area, 65536, PROT_NONE);
    mprotect(area, 65536, PROT_READ | PROT_WRITE);
    munmap(area + 32768, 32768);
    mmap(area + 32768, 32768, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
         0);
  }
  return NULL;
}
static void race(void) {
  area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_t other;
  pthread_create(&other, NULL, flip, NULL);
  int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
  for (int i = 0; i < 300; ++i) {
    (void)!read(zero, area + i % 7 * 4096, 40000);
    (void)!write(null, area, 65536);
    (void)open(area + 40000, O_RDONLY);
  }
  racing = 0;
  pthread_join(other, NULL);
}

static void forks(void) {
  int made = 0;
  pid_t children[1000];
  while (made < 1000) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0) {
      pause();
      _exit(0);
    }
    children[made++] = child;
  }
  for (int i = 0; i < made; ++i) kill(children[i], SIGKILL);
  while (wait(NULL) > 0) {
  }
  printf("%s\n", made > 3 ? "forked" : "did not fork");
}

static void* sleeper(void* unused) {
  (void)unused;
  pause();
  return NULL;
}
static void threads(void) {
  int made = 0;
  pthread_t thread;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  while (made < 1000 && pthread_create(&thread, &small, sleeper, NULL) == 0) ++made;
  printf("%s\n", made > 3 ? "made threads" : "made none");
}

static void descriptors(void) {
  const struct rlimit most = {4096, 4096}; /* each costs a call of the proxy's */
  setrlimit(RLIMIT_NOFILE, &most);
  while (dup(0) >= 0) {
  }
  for (int i = 0; i < 5000; ++i) close(i);
  if (open("/", O_RDONLY) >= 0) _exit(0);
  _exit(1);
}

static int deeper(volatile char* above) {
  volatile char here[4096];
  here[0] = above[0];
  if (above == NULL) return 0; /* never */
  return deeper(here) + here[1];
}

static void memory(void) {
  for (;;) {
    char* at = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) break;
    memset(at, 1, 16 << 20);
  }
  printf("no more\n");
}

static void data(void) {
  char* code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  code[0] = (char)0xc3;
  ((void (*)(void))(uintptr_t)code)();
}

/* Several threads replace the program at once, while another goes on making threads: one wins. */
static void* replace(void* unused) {
  (void)unused;
  execl("/bin/true", "true", (char*)NULL);
  return NULL;
}
static int execs(void) {
  int failed = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      pthread_t thread;
      for (int i = 0; i < 6; ++i) pthread_create(&thread, NULL, replace, NULL);
      for (;;) pthread_create(&thread, NULL, sleeper, NULL);
    }
    int status = 1;
    waitpid(child, &status, 0);
    failed += status != 0;
  }
  return failed;
}

/* The descriptors that are not the program's: every request on every one. */
static void view(void) {
  uint64_t words[8];
  const int top = (int)sysconf(_SC_OPEN_MAX);
  for (int fd = top - 32 < 3 ? 3 : top - 32; fd < top; ++fd)
    for (unsigned request = 1; request < 6; ++request) {
      if (request == 1) continue; /* sleeps */
      for (unsigned i = 0; i < 8; ++i) words[i] = 0x100000 * i;
      (void)ioctl(fd,
                  request << 0 | 0xb6 << 8 |
                      (request == 5   ? 0x40180000
                       : request == 2 ? 0x40040000
                                      : 0),
                  words);
    }
  /* The call frames, as far as the proxy's addresses can be named in a call. */
  int ends[2];
  if (pipe(ends) != 0) return;
  for (uint64_t at = 0x7ea000000000; at < 0x7ea000000000 + 4 * 4096; at += 512)
    if (write(ends[1], (void*)(at), 256) > 0) {
      char bytes[256];
      (void)!read(ends[0], bytes, sizeof bytes);
      memset(bytes, 0xff, sizeof bytes);
      (void)!write(ends[1], bytes, sizeof bytes);
      (void)!read(ends[0], (void*)(at), sizeof bytes);
    }
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "";
  if (strcmp(what, "calls") == 0 && count == 4)
    calls(strtoull(arguments[2], NULL, 10), atol(arguments[3]));
  else if (strcmp(what, "race") == 0)
    race();
  else if (strcmp(what, "fork") == 0)
    forks();
  else if (strcmp(what, "threads") == 0)
    threads();
  else if (strcmp(what, "descriptors") == 0)
    descriptors();
  else if (strcmp(what, "stack") == 0)
    return deeper((volatile char*)arguments[1]);
  else if (strcmp(what, "memory") == 0)
    memory();
  else if (strcmp(what, "data") == 0)
    data();
  else if (strcmp(what, "exec") == 0)
    return execs();
  else if (strcmp(what, "view") == 0)
    view();
  else
    return 2;
  return 0;
}
