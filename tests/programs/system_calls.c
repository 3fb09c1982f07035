/* Makes system calls in a known order and prints what came of them: results, errors and effects,
 * and nothing that differs from one run to the next. Its output on a co-kernel must be that of
 * Linux. Usage: system-calls FOLDER
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;
/* Where nothing is, unknown to the compiler. */
static void* volatile nowhere = (void*)8;

/* What a call returned, with the error's name. */
static void say(const char* what, long result) {
  if (result == -1)
    printf("%-28s -1 %s\n", what, strerrorname_np(errno));
  else
    printf("%-28s %ld\n", what, result);
  fflush(stdout);
}
static void say_whether(const char* what, int holds) {
  printf("%-28s %s\n", what, holds ? "yes" : "no");
  fflush(stdout);
}
#define SAY(call) say(#call, (long)(call))

static void title(const char* text) { printf("== %s\n", text); }

static void memory(void) {
  title("memory");
  const long page = 4096;
  char* a = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  say_whether("mmap anonymous", a != MAP_FAILED);
  a[0] = 1;
  a[15 * page] = 2;
  say("munmap middle", munmap(a + 4 * page, 4 * page));
  say_whether("kept", a[0] == 1 && a[15 * page] == 2);
  say("mprotect over a hole", mprotect(a, 16 * page, PROT_READ));
  say("mprotect unaligned", mprotect(a + 1, page, PROT_READ));
  say("munmap unaligned", munmap(a + 1, page));
  say("munmap nothing", munmap(a, 0));
  say("mmap length 0", (long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  say("mmap no sharing", (long)mmap(NULL, page, PROT_READ, MAP_ANONYMOUS, -1, 0));
  say("mmap bad descriptor", (long)mmap(NULL, page, PROT_READ, MAP_PRIVATE, 999, 0));
  say("mmap noreplace",
      (long)mmap(a, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
  char* b = mmap(a + 4 * page, 4 * page, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  say_whether("mmap fixed", b == a + 4 * page && b[0] == 0);
  strcpy(b, "moved");
  char* c = mremap(b, 4 * page, 64 * page, MREMAP_MAYMOVE);
  say_whether("mremap grows", c != MAP_FAILED && strcmp(c, "moved") == 0 && c[63 * page] == 0);
  say_whether("mremap shrinks", mremap(c, 64 * page, page, 0) == c);
  say("madvise", madvise(c, page, MADV_DONTNEED));
  say_whether("is zero after it", c[0] == 0);
  unsigned char in_core[2] = {9, 9};
  char* d = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  d[0] = d[page] = 1;
  say("mincore", mincore(d, 2 * page, in_core));
  say_whether("resident", (in_core[0] & 1) != 0 && (in_core[1] & 1) != 0);
  say("mincore unaligned", mincore(d + 1, page, in_core));
  say("mincore of nothing", mincore((void*)0x10000, page, in_core));
  char* heap = sbrk(0);
  say_whether("sbrk", sbrk(100000) == heap);
  memset(heap, 7, 100000);
  say_whether("sbrk back", sbrk(-100000) != (void*)-1 && sbrk(0) == heap);
  char* huge = mmap(NULL, 1L << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  say_whether("reserve 64 GiB", huge != MAP_FAILED);
  say("make some usable", mprotect(huge + (1L << 35), 3 * page, PROT_READ | PROT_WRITE));
  huge[(1L << 35) + 2 * page] = 5;
  say("munmap 64 GiB", munmap(huge, 1L << 36));
  say("read into nothing", read(0, (void*)16, 0));
  int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  say("read into a hole", read(zero, (void*)0x20000, 10));
  char* lazy = mmap(NULL, 64 * page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  say("read into untouched", read(zero, lazy + 5 * page - 100, 200));
  mprotect(lazy, page, PROT_READ);
  say("read into read-only", read(zero, lazy, 10));
  close(zero);
  say("msync", msync(d, page, MS_SYNC));
}

static void files(const char* folder) {
  title("files");
  char path[512], other[512], buffer[256] = {0};
  snprintf(path, sizeof path, "%s/file", folder);
  snprintf(other, sizeof other, "%s/other", folder);
  int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644);
  say_whether("open", fd >= 0);
  SAY(write(fd, "hello world", 11));
  SAY(lseek(fd, 6, SEEK_SET));
  SAY(read(fd, buffer, sizeof buffer));
  printf("%s\n", buffer);
  SAY(pwrite(fd, "HELLO", 5, 0));
  SAY(pread(fd, buffer, 11, 0));
  printf("%s\n", buffer);
  struct iovec parts[2] = {{(void*)"ab", 2}, {(void*)"cde", 3}};
  SAY(writev(fd, parts, 2));
  SAY(ftruncate(fd, 4));
  struct stat info;
  SAY(fstat(fd, &info));
  say("size", info.st_size);
  SAY(write(fd, nowhere, 4));
  SAY(open("/does/not/exist", O_RDONLY));
  SAY(open(nowhere, O_RDONLY));
  SAY(close(999));
  SAY(rename(path, other));
  SAY(access(path, F_OK));
  SAY(link(other, path));
  SAY(unlink(other));
  SAY(mkdir(other, 0755));
  SAY(rmdir(other));
  SAY(symlink("target", other));
  ssize_t got = readlink(other, buffer, sizeof buffer);
  say("readlink", got);
  unlink(other);
  int copy = dup(fd);
  say_whether("dup", copy > fd);
  SAY(lseek(copy, 0, SEEK_CUR));
  SAY(fcntl(copy, F_GETFD));
  SAY(fcntl(fd, F_GETFD));
  char* mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  say_whether("mmap of a file", mapped != MAP_FAILED && memcmp(mapped, "HELL", 4) == 0);
  munmap(mapped, 4096);
  SAY(chdir(folder));
  SAY(access("file", R_OK));
  mode_t mask = umask(027);
  say("umask", umask(mask));
  SAY(close(fd));
  SAY(close(copy));
  SAY(unlink("file"));
  int ends[2];
  SAY(pipe(ends));
  SAY(write(ends[1], "pipe", 4));
  struct pollfd ready = {ends[0], POLLIN, 0};
  SAY(poll(&ready, 1, 0));
  SAY(read(ends[0], buffer, 10));
  SAY(poll(&ready, 1, 10));
  SAY(close(ends[0]));
  signal(SIGPIPE, SIG_IGN);
  SAY(write(ends[1], "x", 1));
  signal(SIGPIPE, SIG_DFL);
  close(ends[1]);
  int event = eventfd(3, 0), queue = epoll_create1(0);
  struct epoll_event want = {EPOLLIN, {.u32 = 7}}, seen;
  SAY(epoll_ctl(queue, EPOLL_CTL_ADD, event, &want));
  SAY(epoll_wait(queue, &seen, 1, 0));
  say("whose", seen.data.u32);
  close(event);
  close(queue);
  int pair[2];
  SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  SAY(send(pair[0], "abc", 3, 0));
  SAY(recv(pair[1], buffer, 10, 0));
  SAY(shutdown(pair[0], SHUT_WR));
  SAY(recv(pair[1], buffer, 10, 0));
  struct ucred peer;
  socklen_t size = sizeof peer;
  getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size);
  say_whether("peer is this process", peer.pid == getpid());
  SAY(connect(pair[0], nowhere, 16));
  close(pair[0]);
  close(pair[1]);
  unsigned char random[16] = {0}, none[16] = {0};
  SAY(getrandom(random, sizeof random, 0));
  say_whether("random", memcmp(random, none, sizeof none) != 0);
  struct utsname name;
  uname(&name);
  printf("%s %s\n", name.sysname, name.machine);
  SAY(syscall(10000));
  SAY(ioctl(0, 0xdeadbeef, 0));
}

static void shared_memory(void) {
  title("shared memory");
  int fd = memfd_create("shared", MFD_CLOEXEC);
  SAY(ftruncate(fd, 3 * 4096));
  char* a = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
  say_whether("mmap shared", a != MAP_FAILED && b != MAP_FAILED);
  strcpy(a + 4096, "seen by both");
  printf("%s\n", b);
  char buffer[32] = {0};
  SAY(pread(fd, buffer, 12, 4096));
  printf("%s\n", buffer);
  SAY(pwrite(fd, "SEEN", 4, 4096));
  printf("%s\n", b);
  say("madvise keeps it", madvise(b, 4096, MADV_DONTNEED));
  printf("%s\n", b);
  int* counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 1000; ++i) __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    strcpy(b, "child");
    _exit(0);
  }
  for (int i = 0; i < 1000; ++i) __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
  waitpid(child, NULL, 0);
  say("counter", *counter);
  printf("%s\n", a + 4096);
  SAY(munmap(a, 4096));
  SAY(munmap(a + 4096, 2 * 4096));
  printf("%s\n", b);
  char* over =
      mmap(b, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  say_whether("replaced by memory of its own", over == b && b[0] == 0);
  SAY(pread(fd, b, 5, 4096));
  printf("%.5s\n", b);
  close(fd);
  int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
  say_whether("shmget", id >= 0);
  char* s = shmat(id, NULL, 0);
  say_whether("shmat", s != (char*)-1);
  strcpy(s, "system five");
  char* t = shmat(id, NULL, SHM_RDONLY);
  printf("%s\n", t);
  struct shmid_ds info;
  SAY(shmctl(id, IPC_STAT, &info));
  say("attached", (long)info.shm_nattch);
  SAY(shmdt(s));
  SAY(shmdt(s));
  SAY(shmdt(t));
  shmctl(id, IPC_STAT, &info);
  say("attached", (long)info.shm_nattch);
  SAY(shmctl(id, IPC_RMID, NULL));
  SAY((long)shmat(id, NULL, 0));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static long shared_sum;
static __thread int thread_local_number;

static void* add(void* argument) {
  thread_local_number = (int)(intptr_t)argument;
  for (int i = 0; i < 500; ++i) {
    pthread_mutex_lock(&mutex);
    shared_sum += thread_local_number;
    pthread_mutex_unlock(&mutex);
    if (i % 100 == 0) sched_yield();
  }
  return (void*)(intptr_t)(thread_local_number * 2);
}
static void* announce(void* argument) {
  pthread_mutex_lock(&mutex);
  *(int*)argument = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  return NULL;
}
static void* die_with_mutex(void* argument) {
  pthread_mutex_lock(argument);
  return NULL;
}

static void threads(void) {
  title("threads");
  pthread_t made[6];
  for (intptr_t i = 0; i < 6; ++i) pthread_create(&made[i], NULL, add, (void*)(i + 1));
  long results = 0;
  for (int i = 0; i < 6; ++i) {
    void* result;
    pthread_join(made[i], &result);
    results += (long)result;
  }
  say("sum", shared_sum);
  say("results", results);
  int told = 0;
  pthread_mutex_lock(&mutex);
  pthread_create(&made[0], NULL, announce, &told);
  while (!told) pthread_cond_wait(&condition, &mutex);
  pthread_mutex_unlock(&mutex);
  pthread_join(made[0], NULL);
  say("told", told);
  struct timespec soon;
  clock_gettime(CLOCK_REALTIME, &soon);
  soon.tv_nsec += 20000000;
  if (soon.tv_nsec >= 1000000000) soon.tv_nsec -= 1000000000, ++soon.tv_sec;
  pthread_mutex_lock(&mutex);
  int waited = pthread_cond_timedwait(&condition, &mutex, &soon);
  pthread_mutex_unlock(&mutex);
  printf("timed wait: %s\n", strerrorname_np(waited));
  pthread_mutexattr_t robust;
  pthread_mutex_t left;
  pthread_mutexattr_init(&robust);
  pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&left, &robust);
  pthread_create(&made[0], NULL, die_with_mutex, &left);
  pthread_join(made[0], NULL);
  printf("mutex of a dead thread: %s\n", strerrorname_np(pthread_mutex_lock(&left)));
  uint32_t word = 5;
  SAY(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 4, NULL));
  struct timespec short_time = {0, 10000000};
  SAY(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &short_time));
  SAY(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1));
  SAY(syscall(SYS_futex, (char*)&word + 1, FUTEX_WAIT_PRIVATE, 5, NULL));
  SAY(syscall(SYS_futex, nowhere, FUTEX_WAIT_PRIVATE, 5, NULL));
  SAY(syscall(SYS_futex, &word, 99, 0, NULL));
  say_whether("membarrier", (syscall(SYS_membarrier, 0, 0, 0) & 8) != 0);
  SAY(syscall(SYS_membarrier, 16, 0, 0));
  SAY(syscall(SYS_membarrier, 8, 0, 0));
  SAY(syscall(SYS_membarrier, 3, 0, 0));
  say_whether("thread id of the first", syscall(SYS_gettid) == getpid());
  cpu_set_t set;
  CPU_ZERO(&set);
  say_whether("affinity", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
  say_whether("runs on one of them", CPU_ISSET((unsigned)sched_getcpu(), &set));
  CPU_ZERO(&set);
  SAY(sched_setaffinity(0, sizeof set, &set));
}

static volatile sig_atomic_t caught, code;
static sigjmp_buf back;
static void on_signal(int number, siginfo_t* info, void* context) {
  (void)context;
  caught = number;
  code = info->si_code;
}
static void on_fault(int number, siginfo_t* info, void* context) {
  (void)context;
  printf("signal %d code %d\n", number, info->si_code);
  siglongjmp(back, 1);
}
static void catch_with(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  say("sigaction", sigaction(number, &action, NULL));
}
static void* kill_first(void* argument) {
  usleep(20000);
  pthread_kill(*(pthread_t*)argument, SIGUSR1);
  return NULL;
}
static void* write_later(void* argument) {
  usleep(60000);
  return (void*)(intptr_t)write(*(int*)argument, "late", 4);
}

static void signals(void) {
  title("signals");
  catch_with(SIGUSR1, on_signal, 0);
  SAY(kill(getpid(), SIGUSR1));
  printf("caught %d, code %d\n", caught, code);
  caught = 0;
  union sigval value = {.sival_int = 42};
  SAY(sigqueue(getpid(), SIGUSR1, value));
  printf("caught %d, code %d\n", caught, code);
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  SAY(sigprocmask(SIG_BLOCK, &set, &old));
  caught = 0;
  raise(SIGUSR1);
  printf("blocked: caught %d\n", caught);
  sigset_t waiting;
  sigpending(&waiting);
  say_whether("pending", sigismember(&waiting, SIGUSR1));
  SAY(sigprocmask(SIG_SETMASK, &old, NULL));
  printf("unblocked: caught %d\n", caught);
  sigprocmask(SIG_BLOCK, &set, NULL);
  raise(SIGUSR1);
  siginfo_t info;
  struct timespec none = {0, 0};
  SAY(sigtimedwait(&set, &info, &none));
  SAY(sigtimedwait(&set, &info, &none));
  int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  raise(SIGUSR1);
  struct signalfd_siginfo read_info;
  say_whether("signalfd", read(descriptor, &read_info, sizeof read_info) == sizeof read_info);
  SAY(read(descriptor, &read_info, sizeof read_info));
  close(descriptor);
  caught = 0;
  raise(SIGUSR1);
  sigset_t all_open;
  sigemptyset(&all_open);
  SAY(sigsuspend(&all_open));
  printf("sigsuspend: caught %d\n", caught);
  sigprocmask(SIG_SETMASK, &old, NULL);

  pthread_t killer, self = pthread_self();
  int ends[2];
  if (pipe(ends) != 0) abort();
  char byte[8];
  pthread_create(&killer, NULL, kill_first, &self);
  SAY(read(ends[0], byte, 4));
  pthread_join(killer, NULL);
  catch_with(SIGUSR1, on_signal, SA_RESTART);
  pthread_t writer;
  pthread_create(&killer, NULL, kill_first, &self);
  pthread_create(&writer, NULL, write_later, &ends[1]);
  say("restarted read", read(ends[0], byte, 4));
  pthread_join(killer, NULL);
  pthread_join(writer, NULL);
  pthread_create(&killer, NULL, kill_first, &self);
  say("poll is not restarted", poll(NULL, 0, 2000));
  pthread_join(killer, NULL);
  struct timespec long_time = {5, 0}, left = {0, 0};
  pthread_create(&killer, NULL, kill_first, &self);
  SAY(nanosleep(&long_time, &left));
  say_whether("time is left", left.tv_sec == 4);
  pthread_join(killer, NULL);
  struct itimerval in_20_ms = {{0, 0}, {0, 20000}};
  catch_with(SIGALRM, on_signal, 0);
  SAY(setitimer(ITIMER_REAL, &in_20_ms, NULL));
  SAY(pause());
  printf("caught %d\n", caught);

  catch_with(SIGSEGV, on_fault, 0);
  catch_with(SIGBUS, on_fault, 0);
  catch_with(SIGFPE, on_fault, 0);
  catch_with(SIGILL, on_fault, 0);
  catch_with(SIGTRAP, on_fault, 0);
  if (sigsetjmp(back, 1) == 0) *(volatile int*)0x4321 = 1;
  char* read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sigsetjmp(back, 1) == 0) *(volatile char*)read_only = 1;
  if (sigsetjmp(back, 1) == 0) ((void (*)(void))(uintptr_t)read_only)();
  if (sigsetjmp(back, 1) == 0)
    __asm__ volatile("xor %%eax, %%eax; xor %%edx, %%edx; div %%eax" ::: "eax", "edx");
  if (sigsetjmp(back, 1) == 0) __asm__ volatile("ud2");
  if (sigsetjmp(back, 1) == 0) __asm__ volatile("int3");
  if (sigsetjmp(back, 1) == 0) __asm__ volatile("hlt");
  double kept = 1.5;
  caught = 0;
  kill(getpid(), SIGUSR1);
  kept *= 2;
  printf("floating point survives: %g\n", kept);
  static char second_stack[65536];
  stack_t stack = {.ss_sp = second_stack, .ss_size = sizeof second_stack}, was;
  SAY(sigaltstack(&stack, NULL));
  SAY(sigaltstack(NULL, &was));
  say("size", (long)was.ss_size);
  stack.ss_flags = SS_DISABLE;
  SAY(sigaltstack(&stack, NULL));
  SAY(sigaction(SIGKILL, &(struct sigaction){0}, NULL));
  SAY(sigaction(99, NULL, NULL));
  const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
  for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; ++i) signal(faults[i], SIG_DFL);
}

static void processes(const char* self) {
  title("processes");
  int status;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) _exit(getppid() != 1 ? 17 : 18);
  say_whether("fork", waitpid(child, &status, 0) == child);
  say("exit status", WEXITSTATUS(status));
  child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);
    for (;;) pause();
  }
  SAY(kill(child, 0));
  SAY(kill(child, SIGTERM));
  waitpid(child, &status, 0);
  say("signal", WTERMSIG(status));
  child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    *(volatile int*)nowhere = 1;
    _exit(0);
  }
  waitpid(child, &status, 0);
  say("signal of a fault", WTERMSIG(status));
  char* arguments[] = {(char*)self, (char*)"--child", (char*)"one argument", NULL};
  child = fork();
  if (child == 0) {
    execv(self, arguments);
    _exit(99);
  }
  waitpid(child, &status, 0);
  say("exit status of exec", WEXITSTATUS(status));
  SAY(execv("/does/not/exist", arguments));
  SAY(execv("/etc", arguments));
  SAY(execv("/etc/passwd", arguments));
  SAY(execv(self, nowhere));
  int spawned = posix_spawn(&child, self, NULL, NULL, arguments, environ);
  waitpid(child, &status, 0);
  say("posix_spawn", spawned);
  say("exit status", WEXITSTATUS(status));
  printf("posix_spawn of nothing: %s\n",
         strerrorname_np(posix_spawn(&child, "/does/not/exist", NULL, NULL, arguments, environ)));
  child = vfork();
  if (child == 0) _exit(5);
  waitpid(child, &status, 0);
  say("vfork", WEXITSTATUS(status));
  FILE* pipe_in = popen("echo through a shell; exit 3", "r");
  char line[64] = "";
  if (fgets(line, sizeof line, pipe_in) == NULL) line[0] = '\0';
  printf("%s", line);
  say("pclose", WEXITSTATUS(pclose(pipe_in)));
  SAY(waitpid(-1, &status, 0));
  SAY(kill(1 << 22, 0));
  fflush(stdout);
  child = fork();
  if (child == 0) {
    SAY(setpgid(0, 0));
    say_whether("leader of its group", getpgrp() == getpid());
    _exit(0);
  }
  waitpid(child, &status, 0);
  struct rlimit limit = {64, 64};
  child = fork();
  if (child == 0) {
    setrlimit(RLIMIT_NOFILE, &limit);
    int last = -1;
    while (dup(0) >= 0) ++last;
    _exit(last > 40 ? 1 : 0);
  }
  waitpid(child, &status, 0);
  say("limit of open files", WEXITSTATUS(status));
  struct rusage usage;
  SAY(getrusage(RUSAGE_CHILDREN, &usage));
  SAY(prctl(PR_SET_NAME, "renamed"));
  char name[16] = "";
  prctl(PR_GET_NAME, name);
  printf("%s\n", name);
  char exe[512] = "";
  say_whether("its own name",
              readlink("/proc/self/exe", exe, sizeof exe - 1) > 0 && strcmp(exe, self) == 0);
}

static void clocks(void) {
  title("clocks");
  struct timespec a, b, resolution;
  for (clockid_t clock = 0; clock < 8; ++clock) {
    int good = clock_gettime(clock, &a) == 0 && clock_gettime(clock, &b) == 0;
    say_whether("clock goes on",
                good && (b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec)));
  }
  SAY(clock_gettime(77, &a));
  SAY(syscall(SYS_clock_gettime, CLOCK_REALTIME, nowhere));
  SAY(clock_getres(CLOCK_MONOTONIC, &resolution));
  struct timeval now;
  time_t seconds = time(NULL);
  gettimeofday(&now, NULL);
  say_whether("the same time", now.tv_sec - seconds <= 1);
  struct stat info;
  int fd = memfd_create("time", 0);
  fstat(fd, &info);
  clock_gettime(CLOCK_REALTIME, &a);
  long apart = a.tv_sec - info.st_mtim.tv_sec;
  say_whether("as Linux has it", apart >= -2 && apart <= 2);
  close(fd);
  struct timespec wrong = {0, 1000000000};
  SAY(nanosleep(&wrong, NULL));
  clock_gettime(CLOCK_MONOTONIC, &a);
  struct timespec wait = {0, 30000000};
  SAY(nanosleep(&wait, NULL));
  clock_gettime(CLOCK_MONOTONIC, &b);
  say_whether("slept", (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= 30000000L);
  a.tv_nsec += 50000000;
  if (a.tv_nsec >= 1000000000) a.tv_nsec -= 1000000000, ++a.tv_sec;
  SAY(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &a, NULL));
  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec soon = {{0, 0}, {0, 1000000}};
  SAY(timerfd_settime(timer, 0, &soon, NULL));
  uint64_t times = 0;
  SAY(read(timer, &times, sizeof times));
  say("times", (long)times);
  close(timer);
}

static long clock_ms(clockid_t clock) {
  struct timespec now = {0, 0};
  clock_gettime(clock, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
static long usage_ms(int who) {
  struct rusage usage;
  if (getrusage(who, &usage) != 0) return -1;
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
         (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}
/* Computes until this thread has had so many milliseconds of a processor, however many others want
 * it. */
static void* compute(void* ms) {
  const long end = clock_ms(CLOCK_THREAD_CPUTIME_ID) + *(const long*)ms;
  while (clock_ms(CLOCK_THREAD_CPUTIME_ID) < end) continue;
  return NULL;
}

static void processor_time(void) {
  title("processor time");
  long some = 60;
  long process = clock_ms(CLOCK_PROCESS_CPUTIME_ID), self_used = usage_ms(RUSAGE_SELF),
       thread_used = usage_ms(RUSAGE_THREAD);
  struct tms before, after;
  const clock_t began = times(&before);
  compute(&some);
  say_whether("the process's clock", clock_ms(CLOCK_PROCESS_CPUTIME_ID) - process >= 59);
  say_whether("its usage", usage_ms(RUSAGE_SELF) - self_used >= 40);
  say_whether("the thread's usage", usage_ms(RUSAGE_THREAD) - thread_used >= 40);
  say_whether("times", times(&after) - began >= 4);
  say_whether("in ticks",
              after.tms_utime + after.tms_stime - before.tms_utime - before.tms_stime >= 3);
  /* A thread's time is its process's and no other thread's. */
  pthread_t other;
  long more = 300;
  process = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
  long thread = clock_ms(CLOCK_THREAD_CPUTIME_ID);
  pthread_create(&other, NULL, compute, &more);
  pthread_join(other, NULL);
  say_whether("another thread", clock_ms(CLOCK_PROCESS_CPUTIME_ID) - process >= 299);
  say_whether("not this one's", clock_ms(CLOCK_THREAD_CPUTIME_ID) - thread < 200);
  clockid_t own_thread = 0, own_process = 0;
  SAY(pthread_getcpuclockid(pthread_self(), &own_thread));
  SAY(clock_getcpuclockid(0, &own_process));
  thread = clock_ms(own_thread);
  process = clock_ms(own_process);
  compute(&some);
  say_whether("the clock of this thread", clock_ms(own_thread) - thread >= 59);
  say_whether("the clock of this process", clock_ms(own_process) - process >= 59);
  /* Sleep is none. */
  process = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
  struct timespec pause = {1, 0};
  nanosleep(&pause, NULL);
  say_whether("sleep does not count", clock_ms(CLOCK_PROCESS_CPUTIME_ID) - process < 500);
  long children = usage_ms(RUSAGE_CHILDREN);
  process = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
  pid_t child = fork();
  if (child == 0) {
    const long begin = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    compute(&some);
    _exit(begin < process ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  say("a child's clock begins anew", WEXITSTATUS(status));
  say_whether("a child's time", usage_ms(RUSAGE_CHILDREN) - children >= 40);
  struct sysinfo facts;
  SAY(sysinfo(&facts));
  char line[128] = "";
  FILE* file = fopen("/proc/meminfo", "r");
  unsigned long total = 0;
  if (file != NULL && fgets(line, sizeof line, file) != NULL) sscanf(line, "MemTotal: %lu", &total);
  if (file != NULL) fclose(file);
  const unsigned long told = facts.totalram * facts.mem_unit / 1024;
  say_whether("memory", told >= total - total / 10 && told <= total + total / 10);
  say_whether("of which is free", facts.freeram > 0 && facts.freeram <= facts.totalram);
  say_whether("programs", facts.procs >= 1);
  SAY(syscall(SYS_getrusage, RUSAGE_SELF, nowhere));
  SAY(syscall(SYS_getrusage, 7, nowhere));
  SAY(syscall(SYS_sysinfo, nowhere));
  SAY(syscall(SYS_times, nowhere));
}

int main(int count, char** arguments) {
  if (count == 3 && strcmp(arguments[1], "--child") == 0) {
    printf("child: %s\n", arguments[2]);
    return 21;
  }
  if (count != 2) return 2;
  char self[512] = "";
  if (arguments[0][0] != '/' || strlen(arguments[0]) >= sizeof self) return 2;
  strcpy(self, arguments[0]);
  memory();
  files(arguments[1]);
  shared_memory();
  threads();
  signals();
  processes(self);
  clocks();
  processor_time();
  return 0;
}
