// The proxy of a program on a co-kernel: an ordinary process in the enclave's sandbox that executes
// the system calls its program's kernel forwards (docs/KITTEN.md, "Forwarded calls"). Its memory
// shows the program's at the same addresses, so that calls are executed with their arguments as
// they are; it has the program's pid, descriptors, credentials and rights, and no others.
//   kitten-proxy VIEW SELF SLOT CPUS PATH ARGUMENT0 ...     (CPUS: a list such as 2,4-5, or - for
//   all)
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/shm.h>
#include <linux/wait.h>

#include "abi/forward.h"
#include "bounce.h"
#include "program.h"
#include "signal_catcher.h"
#include "system.h"
#include "thread.h"

extern "C" {
long guarded_call(const hobbes_call* call, bool always);
long clone_thread(unsigned long flags, void* stack, void* parent_tid, void* child_tid,
                  unsigned long slot);
[[noreturn]] void run_on(std::uint64_t stack, void (*function)(unsigned long), unsigned long value);
[[noreturn]] void proxy_thread(unsigned long slot);
[[noreturn]] void proxy_start(std::uint64_t* stack);
}

static_assert(__builtin_offsetof(hobbes_call, number) == 8 &&
              __builtin_offsetof(hobbes_call, argument) == 16 &&
              __builtin_offsetof(hobbes_call, caught) == 84 &&
              __builtin_offsetof(hobbes_call, delivered) == 88);

namespace proxy {

int view = -1, self = -1;

namespace {

constexpr long enoent = -2, e2big = -7, enoexec = -8, ebadf = -9, enomem = -12, eacces = -13,
               efault = -14, einval = -22, enosys = -38, eownerdead = -130;
constexpr unsigned spins = 200;
constexpr std::uint64_t argument_limit = 2ULL << 20U;  // bytes of pointers, as Linux's strings

ProgramStart start_of_program;
const char* cpus_of_program;

bool my_turn(const hobbes_call& frame) {
  std::uint32_t state = __atomic_load_n(&frame.state, __ATOMIC_ACQUIRE);
  return state == HOBBES_CALL_ASKED || state == HOBBES_CALL_GRANTED;
}

// Rings the kernel if it waits for that, then waits for it.
void wait_turn(hobbes_call& frame, unsigned slot) {
  bool ring = __atomic_load_n(&frame.kernel_sleeps, __ATOMIC_SEQ_CST) != 0;
  if (!ring)
    for (unsigned i = 0; i < spins; ++i) {
      if (my_turn(frame)) return;
      asm volatile("pause");
    }
  __atomic_store_n(&frame.proxy_sleeps, 1U, __ATOMIC_SEQ_CST);
  while (ring || !my_turn(frame)) {
    hobbes_view_wait wait{slot, ring ? frame.core : ~0U};
    ring = false;
    long result = call(__NR_ioctl, view, static_cast<long>(HOBBES_VIEW_WAIT), as_long(&wait));
    if (result == eownerdead || result == ebadf) die_of(SIGKILL);  // the kernel is no more
  }
  __atomic_store_n(&frame.proxy_sleeps, 0U, __ATOMIC_SEQ_CST);
}

bool is_hidden(std::uint64_t descriptor) {
  return static_cast<int>(descriptor) == view || static_cast<int>(descriptor) == self;
}

// As close_range(2), around the hidden descriptors.
long close_all(std::uint64_t first, std::uint64_t last, long flags) {
  const auto from = static_cast<unsigned>(first), to = static_cast<unsigned>(last);
  if (from > to) return einval;
  const unsigned low = static_cast<unsigned>(view < self ? view : self),
                 high = static_cast<unsigned>(view < self ? self : view);
  long out = 0;
  auto part = [&](std::uint64_t a, std::uint64_t b) {
    if (a > b || a > to || b < from) return;
    if (a < from) a = from;
    if (b > to) b = to;
    if (long bad = call(__NR_close_range, static_cast<long>(a), static_cast<long>(b), flags);
        bad < 0)
      out = bad;
  };
  if (low > 0) part(0, low - 1);
  if (high > low + 1) part(low + 1, high - 1);
  part(high + 1ULL, ~0U);
  return out;
}

// ---- a new program ----

long read_program(hobbes_call& frame, unsigned slot, std::uint64_t from, void* to,
                  std::size_t size) {
  auto* out = static_cast<std::uint8_t*>(to);
  while (size > 0) {
    std::size_t part = size;
    if (part > HOBBES_CALL_COPY) part = HOBBES_CALL_COPY;
    if (request(frame, slot, HOBBES_REQUEST_READ, from, part) != 0) return efault;
    __builtin_memcpy(out, frame.copy, part);
    out += part;
    from += part;
    size -= part;
  }
  return 0;
}

// Copies the pointers of an argument list. Their count, or an error.
long read_pointers(hobbes_call& frame, unsigned slot, std::uint64_t from, std::uint64_t* to,
                   std::size_t room) {
  for (std::size_t count = 0; from != 0;) {
    // As much as lies on this page: the next one may not be there.
    std::size_t bytes = 4096 - from % 4096;
    if (bytes > 256) bytes = 256;
    bytes &= ~std::size_t{7};
    if (bytes == 0) bytes = 8;
    std::uint64_t words[32];
    if (long bad = read_program(frame, slot, from, words, bytes); bad != 0) return bad;
    for (std::size_t i = 0; i < bytes / 8; ++i) {
      if (words[i] == 0) return static_cast<long>(count);
      if (count == room) return e2big;
      to[count++] = words[i];
    }
    from += bytes;
  }
  return 0;
}

const char* decimal(unsigned number, char (&buffer)[12]) {
  char* at = buffer + sizeof buffer - 1;
  *at = '\0';
  do *--at = static_cast<char>('0' + number % 10);
  while ((number /= 10) != 0);
  return at;
}

// What Linux would say before it replaced anything.
long check_program(long folder, std::uint64_t path, long flags) {
  constexpr long execute = 1, effective_ids = 0x200;
  if (long bad = call(__NR_faccessat2, folder, static_cast<long>(path), execute,
                      effective_ids | (flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
      bad < 0)
    return bad;
  if ((flags & AT_EMPTY_PATH) != 0) return 0;
  long file = call(__NR_openat, folder, static_cast<long>(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return file;
  char begin[4] = {};
  long got = call(__NR_pread64, file, as_long(begin), sizeof begin, 0);
  (void)call(__NR_close, file);
  if (got < 0) return eacces;  // a folder, a pipe
  bool good = got >= 4 &&
              (__builtin_memcmp(begin, "\177ELF", 4) == 0 || __builtin_memcmp(begin, "#!", 2) == 0);
  return good ? 0 : enoexec;
}

// execve(2): the proxy executes itself again, which makes Linux do all that belongs to it
// (descriptors, signals, threads, timers); the new one loads the program.
long execute(hobbes_call& frame, unsigned slot, std::uint64_t path, std::uint64_t arguments,
             std::uint64_t environment) {
  if (long bad = check_program(AT_FDCWD, path, 0); bad < 0) return bad;
  const long size = static_cast<long>(argument_limit) + 4096;
  long memory =
      call(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory < 0) return memory;
  auto* list = reinterpret_cast<std::uint64_t*>(memory);
  char numbers[3][12];
  const std::uint64_t leading[] = {
      reinterpret_cast<std::uint64_t>("kitten-proxy"),
      reinterpret_cast<std::uint64_t>(decimal(static_cast<unsigned>(view), numbers[0])),
      reinterpret_cast<std::uint64_t>(decimal(static_cast<unsigned>(self), numbers[1])),
      reinterpret_cast<std::uint64_t>(decimal(slot, numbers[2])),
      reinterpret_cast<std::uint64_t>("-"),
      path};
  constexpr std::size_t first = sizeof leading / sizeof leading[0];
  for (std::size_t i = 0; i < first; ++i) list[i] = leading[i];
  long count = read_pointers(frame, slot, arguments, list + first, argument_limit / 8 - 8);
  long result = count;
  if (count >= 0) {
    list[first + static_cast<std::size_t>(count)] = 0;
    result = call(__NR_execveat, self, as_long(""), memory, static_cast<long>(environment),
                  AT_EMPTY_PATH);
  }
  (void)call(__NR_munmap, memory, size);
  return result;
}

long execute_at(hobbes_call& frame, unsigned slot) {
  const auto* a = frame.argument;
  const std::uint64_t path = a[1], flags = a[4];
  if (static_cast<int>(a[0]) == AT_FDCWD && flags == 0)
    return execute(frame, slot, path, a[2], a[3]);
  if ((flags & ~static_cast<std::uint64_t>(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0)
    return einval;
  if (long bad = check_program(static_cast<long>(a[0]), path, static_cast<long>(flags)); bad < 0)
    return bad;
  // By a name that needs no folder; the descriptor must outlive the execution.
  static char name[64];
  long file = (flags & AT_EMPTY_PATH) != 0
                  ? call(__NR_fcntl, static_cast<long>(a[0]), F_DUPFD, 3)
                  : call(__NR_openat, static_cast<long>(a[0]), static_cast<long>(path), O_RDONLY);
  if (file < 0) return file;
  char digits[12];
  const char* number = decimal(static_cast<unsigned>(file), digits);
  char* to = name;
  for (const char* c = "/proc/self/fd/"; *c != '\0'; ++c) *to++ = *c;
  while (*number != '\0') *to++ = *number++;
  *to = '\0';
  long result = execute(frame, slot, reinterpret_cast<std::uint64_t>(name), a[2], a[3]);
  (void)call(__NR_close, file);
  return result;
}

// ---- threads and processes ----

long make_thread(unsigned slot) {
  if (slot >= HOBBES_PROCESS_THREADS) return einval;
  hobbes_call& frame = frame_of(slot);
  constexpr unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                                  CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  return clone_thread(flags, reinterpret_cast<void*>(stacks + (slot + 1) * stack_size),
                      &frame.thread, &frame.thread, slot);
}

[[noreturn]] void begin_child(unsigned long) {
  open_view();
  hobbes_call& frame = frame_of(0);
  (void)call(__NR_set_tid_address, as_long(&frame.thread));
  __atomic_store_n(&frame.thread, static_cast<std::uint32_t>(call(__NR_gettid)), __ATOMIC_RELEASE);
  serve(0);
}

long fork_process(hobbes_call& frame, std::uint64_t exit_signal) {
  long derived = call(__NR_ioctl, view, static_cast<long>(HOBBES_VIEW_DERIVE));
  if (derived < 0) return derived == -28 ? -11 : derived;
  const long number = call(__NR_ioctl, derived, static_cast<long>(HOBBES_VIEW_NUMBER));
  long child = call(__NR_clone, static_cast<long>(exit_signal & 0xffU));
  if (child == 0) {
    (void)call(__NR_dup3, derived, view, 0);
    (void)call(__NR_close, derived);
    run_on(stacks + stack_size, begin_child, 0);
  }
  (void)call(__NR_close, derived);
  frame.argument[5] = static_cast<std::uint64_t>(number);
  return child;
}

// ---- shared memory ----

long show_view(std::uint64_t address, std::uint64_t size) {
  long at = call(__NR_mmap, static_cast<long>(address), static_cast<long>(size),
                 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, view, static_cast<long>(address));
  return at < 0 ? at : 0;
}

// Linux's memory at the same place as the co-kernel's, and pinned for it.
long pin(std::uint64_t address, std::uint64_t size, std::uint64_t protection, long mapped) {
  if (mapped < 0) return mapped;
  const hobbes_view_pin wanted{address, size, (protection & PROT_WRITE) != 0 ? 1U : 0U, 0};
  long bad = call(__NR_ioctl, view, static_cast<long>(HOBBES_VIEW_PIN), as_long(&wanted));
  if (bad < 0) (void)show_view(address, size);
  return bad;
}

long share(const std::uint64_t* a) {
  const long flags = static_cast<long>((a[3] & ~std::uint64_t{MAP_FIXED_NOREPLACE}) | MAP_FIXED);
  // Frames are pinned by reading them.
  return pin(a[0], a[1], a[2],
             call(__NR_mmap, static_cast<long>(a[0]), static_cast<long>(a[1]),
                  static_cast<long>(a[2] | PROT_READ) & ~PROT_EXEC, flags, static_cast<int>(a[4]),
                  static_cast<long>(a[5])));
}

long attach_segment(const std::uint64_t* a) {
  long flags = SHM_REMAP | ((a[2] & PROT_WRITE) != 0 ? 0 : SHM_RDONLY);
  return pin(a[0], a[1], a[2],
             call(__NR_shmat, static_cast<long>(a[4]), static_cast<long>(a[0]), flags));
}

long segment_size(std::uint64_t id) {
  shmid64_ds info{};
  long bad = call(__NR_shmctl, static_cast<long>(id), IPC_STAT, as_long(&info));
  return bad < 0 ? bad : static_cast<long>(info.shm_segsz);
}

// ---- calls ----

long perform(hobbes_call& frame, unsigned slot) {
  const std::uint64_t number = frame.number & ~HOBBES_FORWARD_ALWAYS;
  const std::uint64_t* a = frame.argument;
  switch (number) {
    case HOBBES_FORWARD_SIGNAL_ACTION:
      return set_action(static_cast<unsigned>(a[0]), a[1], a[2], a[3]);
    case HOBBES_FORWARD_CLONE:
      return make_thread(static_cast<unsigned>(a[0]));
    case HOBBES_FORWARD_FORK:
      return fork_process(frame, a[0]);
    case HOBBES_FORWARD_DIE:
      die_of(static_cast<int>(a[0]));
    case HOBBES_FORWARD_PROGRAM_PATH:
      return program_path(reinterpret_cast<char*>(a[0]), a[1]);
    case HOBBES_FORWARD_UNFORK:
      (void)call(__NR_kill, static_cast<long>(a[0]), SIGKILL);
      (void)call(__NR_wait4, static_cast<long>(a[0]), 0, __WALL);
      return enomem;
    case HOBBES_FORWARD_SHARE:
      return share(a);
    case HOBBES_FORWARD_UNSHARE:
      return show_view(a[0], a[1]);
    case HOBBES_FORWARD_ATTACH:
      return attach_segment(a);
    case HOBBES_FORWARD_SEGMENT_SIZE:
      return segment_size(a[0]);
    case __NR_execve:
      return execute(frame, slot, a[0], a[1], a[2]);
    case __NR_execveat:
      return execute_at(frame, slot);
    case __NR_close:
      if (is_hidden(a[0])) return ebadf;
      break;
    case __NR_dup2:
    case __NR_dup3:
      if (is_hidden(a[1]) || is_hidden(a[0])) return ebadf;
      break;
    case __NR_close_range:
      return close_all(a[0], a[1], static_cast<long>(a[2]));
    case __NR_exit:
    case __NR_exit_group: {
      std::uint64_t all = ~0ULL;
      // No handler on a stack that is about to be another thread's.
      if (number == __NR_exit) (void)call(__NR_rt_sigprocmask, 0, as_long(&all), 0, 8);
      (void)call(static_cast<long>(number), static_cast<long>(a[0]));
      break;
    }
    default:
      // Calls that would change the proxy itself, and not what its program sees.
      if (number > 0xffff) return enosys;
      break;
  }
  long result = guarded_call(&frame, (frame.number & HOBBES_FORWARD_ALWAYS) != 0);
  return result == efault && can_bounce(number) ? bounce(frame) : result;
}

// Where a program's own descriptors do not come.
int hide(int descriptor, int least) {
  rlimit64 limit{1024, 1024};
  (void)call(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, as_long(&limit));
  std::uint64_t top = limit.rlim_cur > 1ULL << 20U ? 1ULL << 20U : limit.rlim_cur;
  if (top < 16) fail("find room for descriptors", -24, 126);
  long at = static_cast<long>(top) - 8;
  if (descriptor >= at) return descriptor;
  if (at < least) at = least;
  long moved = call(__NR_fcntl, descriptor, F_DUPFD, at);
  if (moved < 0) fail("move a descriptor", moved, 126);
  (void)call(__NR_close, descriptor);
  return static_cast<int>(moved);
}

unsigned number_of(const char* text) {
  unsigned out = 0;
  for (; *text >= '0' && *text <= '9'; ++text) out = out * 10 + static_cast<unsigned>(*text - '0');
  return out;
}

// "2,4-5": the cores that the program may use.
void bind(hobbes_call& frame, unsigned slot, const char* list) {
  if (*list == '-') return;
  std::uint64_t words[4] = {};
  while (*list >= '0' && *list <= '9') {
    unsigned first = number_of(list), last = first;
    while (*list >= '0' && *list <= '9') ++list;
    if (*list == '-') {
      last = number_of(++list);
      while (*list >= '0' && *list <= '9') ++list;
    }
    for (unsigned cpu = first; cpu <= last && cpu < 256; ++cpu)
      words[cpu / 64] |= std::uint64_t{1} << (cpu % 64);
    if (*list == ',') ++list;
  }
  if (long bad = request(frame, slot, HOBBES_REQUEST_BIND, words[0], words[1], words[2], words[3]);
      bad < 0)
    fail("bind to the cores asked for", bad, 126);
}

[[noreturn]] void begin_program(unsigned long slot) {
  hobbes_call& frame = frame_of(static_cast<unsigned>(slot));
  (void)call(__NR_set_tid_address, as_long(&frame.thread));
  __atomic_store_n(&frame.thread, static_cast<std::uint32_t>(call(__NR_gettid)), __ATOMIC_RELEASE);
  bind(frame, static_cast<unsigned>(slot), cpus_of_program);
  load_program(frame, static_cast<unsigned>(slot), start_of_program);
  serve(static_cast<unsigned>(slot));
}

}  // namespace

unsigned this_slot() {
  char here;
  return static_cast<unsigned>((reinterpret_cast<std::uint64_t>(&here) - stacks) / stack_size);
}

void fail(const char* what, long error, int status) {
  char text[512];
  std::size_t size = 0;
  auto add = [&](const char* more) {
    while (*more != '\0' && size < sizeof text - 2) text[size++] = *more++;
  };
  add("hobbes: execute '");
  add(what);
  add("': ");
  switch (error) {
    case enoent:
      add("no such file or directory");
      break;
    case eacces:
      add("permission denied");
      break;
    case enoexec:
      add("exec format error");
      break;
    case enomem:
      add("the enclave has no memory left");
      break;
    case eownerdead:
      add("the co-kernel is gone");
      break;
    case -110:
      add("the co-kernel does not answer");
      break;
    default: {
      char digits[12];
      add("error ");
      add(decimal(static_cast<unsigned>(-error), digits));
    }
  }
  text[size++] = '\n';
  (void)call(__NR_write, 2, as_long(text), static_cast<long>(size));
  (void)call(__NR_exit_group, status);
  for (;;) asm volatile("hlt");
}

void die_of(int signal) {
  rlimit64 none{0, 0};
  (void)call(__NR_prlimit64, 0, RLIMIT_CORE, as_long(&none), 0);  // it would show the proxy
  (void)set_action(static_cast<unsigned>(signal), 0, 0, 0);
  std::uint64_t set = 1ULL << (static_cast<unsigned>(signal) - 1);
  (void)call(__NR_rt_sigprocmask, 1, as_long(&set), 0, 8);
  (void)call(__NR_kill, call(__NR_getpid), signal);
  (void)call(__NR_exit_group, 128 + signal);
  for (;;) asm volatile("hlt");
}

void open_view() {
  long at =
      call(__NR_mmap, static_cast<long>(HOBBES_PROGRAM_LOW),
           static_cast<long>(HOBBES_PROGRAM_HIGH - HOBBES_PROGRAM_LOW), PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_FIXED, view, static_cast<long>(HOBBES_PROGRAM_LOW));
  if (at < 0) fail("map the view", at, 126);
  at = call(__NR_mmap, static_cast<long>(frames), HOBBES_PROCESS_THREADS * 4096L,
            PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, view,
            static_cast<long>(HOBBES_VIEW_FRAMES));
  if (at < 0) fail("map the call frames", at, 126);
  if (long bad = call(__NR_ioctl, view, static_cast<long>(HOBBES_VIEW_OPEN)); bad < 0)
    fail("open the view", bad, 126);
}

long request(hobbes_call& frame, unsigned slot, std::uint64_t number, std::uint64_t a,
             std::uint64_t b, std::uint64_t c, std::uint64_t d) {
  frame.number = number;
  const std::uint64_t arguments[4] = {a, b, c, d};
  for (unsigned i = 0; i < 4; ++i) frame.argument[i] = arguments[i];
  __atomic_store_n(&frame.state, std::uint32_t{HOBBES_CALL_REQUEST}, __ATOMIC_SEQ_CST);
  if (number == HOBBES_REQUEST_START) return 0;  // `serve` waits for what its program asks
  wait_turn(frame, slot);
  return frame.result;
}

void serve(unsigned slot) {
  hobbes_call& frame = frame_of(slot);
  for (;;) {
    wait_turn(frame, slot);
    if (__atomic_load_n(&frame.state, __ATOMIC_ACQUIRE) != HOBBES_CALL_ASKED) die_of(SIGKILL);
    frame.result = perform(frame, slot);
    __atomic_store_n(&frame.state, std::uint32_t{HOBBES_CALL_ANSWERED}, __ATOMIC_SEQ_CST);
  }
}

}  // namespace proxy

using namespace proxy;

void proxy_thread(unsigned long slot) { serve(static_cast<unsigned>(slot)); }

void proxy_start(std::uint64_t* stack) {
  auto** arguments = reinterpret_cast<char**>(stack + 1);
  const std::uint64_t count = stack[0];
  if (count < 6) fail("kitten-proxy", einval, 2);  // started by hand
  char** environment = arguments + count + 1;
  char** after = environment;
  while (*after != nullptr) ++after;
  cpus_of_program = arguments[4];
  start_of_program = {arguments[5], arguments + 6, environment,
                      reinterpret_cast<const std::uint64_t*>(after + 1)};
  const unsigned slot = number_of(arguments[3]) % HOBBES_PROCESS_THREADS;
  view = hide(static_cast<int>(number_of(arguments[1])), 3);
  self = hide(static_cast<int>(number_of(arguments[2])), 3);
  long at = call(__NR_mmap, static_cast<long>(stacks),
                 static_cast<long>(HOBBES_PROCESS_THREADS * stack_size), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  if (at < 0) fail("make stacks", at, 126);
  open_view();
  run_on(stacks + (slot + 1ULL) * stack_size, begin_program, slot);
}

// What the compiler calls by name.
extern "C" {
void* memcpy(void* to, const void* from, std::size_t size) {
  void* out = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return out;
}
void* memset(void* to, int value, std::size_t size) {
  void* out = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return out;
}
int memcmp(const void* a, const void* b, std::size_t size) {
  const auto *x = static_cast<const unsigned char*>(a), *y = static_cast<const unsigned char*>(b);
  for (; size > 0; --size, ++x, ++y)
    if (*x != *y) return *x - *y;
  return 0;
}
}
