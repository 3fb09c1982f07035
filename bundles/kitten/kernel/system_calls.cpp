#include "system_calls.h"

#include <cerrno>

#include "clock.h"
#include "cores.h"
#include "cpu.h"
#include "forward.h"
#include "futex.h"
#include "schedule.h"
#include "signals.h"
#include "views.h"

namespace kitten {
namespace {

using Serve = std::int64_t (*)(Thread&, TrapFrame&);

constexpr std::uint64_t ns_per_second = 1'000'000'000;

struct TimeSpec {
  std::int64_t seconds, ns;
};

AddressSpace& space_of(const Thread& thread) { return *thread.process->space; }

template <class T>
std::int64_t give(Thread& thread, std::uint64_t to, const T& value) {
  return space_of(thread).write(to, &value, sizeof value) ? 0 : -EFAULT;
}

std::int64_t forward(Thread& thread, TrapFrame& f, Then then = as_answered) {
  return ask(thread, f.rax, {f.rdi, f.rsi, f.rdx, f.r10, f.r8, f.r9}, then);
}

// ---- memory ----

std::int64_t file_was_read(Thread& thread, TrapFrame&, std::int64_t answer);

// The next part of a mapping's content. In `saved`: address, size, bytes read, protection,
// descriptor, offset.
std::int64_t read_file(Thread& thread) {
  constexpr std::uint64_t read_at = 17;
  const std::uint64_t done = thread.saved[2];
  return ask(thread, read_at | HOBBES_FORWARD_ALWAYS,
             {thread.saved[4], thread.saved[0] + done, thread.saved[1] - done,
              thread.saved[5] + done},
             file_was_read);
}

// The mapping is there; its content comes by the proxy's reading, then it gets its protection.
std::int64_t file_was_read(Thread& thread, TrapFrame&, std::int64_t answer) {
  AddressSpace& space = space_of(thread);
  const std::uint64_t address = thread.saved[0], size = thread.saved[1], done = thread.saved[2];
  if (answer < 0 && answer != -EINTR) {
    (void)space.unmap(address, size);
    return answer == -EISDIR ? -ENODEV : answer;
  }
  const std::uint64_t more = answer > 0 ? static_cast<std::uint64_t>(answer) : 0;
  if (answer != 0 && done + more < size) {
    thread.saved[2] = done + more;
    return read_file(thread);
  }
  const auto protection = static_cast<std::uint32_t>(thread.saved[3]);
  if (protection != (protect_read | protect_write))
    if (std::int64_t bad = space.protect(address, size, protection); bad < 0) return bad;
  return static_cast<std::int64_t>(address);
}

std::int64_t map_memory(Thread& thread, TrapFrame& f) {
  AddressSpace& space = space_of(thread);
  const auto protection = static_cast<std::uint32_t>(f.rdx), flags = static_cast<std::uint32_t>(f.r10);
  const std::uint32_t sharing = flags & 3U;
  if (sharing == 0) return -EINVAL;
  if (f.r9 % frame_size != 0) return -EINVAL;
  if ((flags & map_anonymous) != 0) return space.map(f.rdi, f.rsi, protection, flags);
  if (sharing != map_private && (protection & protect_write) != 0)
    return -ENODEV;  // docs/KITTEN.md: what is written would not reach the file
  std::int64_t at = space.map(f.rdi, f.rsi, protect_read | protect_write,
                              (flags & ~std::uint32_t{map_shared}) | map_private | map_anonymous);
  if (at < 0) return at;
  thread.saved[0] = static_cast<std::uint64_t>(at);
  thread.saved[1] = (f.rsi + frame_size - 1) & ~(frame_size - 1);
  thread.saved[2] = 0;
  thread.saved[3] = protection;
  thread.saved[4] = f.r8;
  thread.saved[5] = f.r9;
  return read_file(thread);
}

std::int64_t unmap_memory(Thread& thread, TrapFrame& f) { return space_of(thread).unmap(f.rdi, f.rsi); }
std::int64_t protect_memory(Thread& thread, TrapFrame& f) {
  return space_of(thread).protect(f.rdi, f.rsi, static_cast<std::uint32_t>(f.rdx));
}
std::int64_t remap_memory(Thread& thread, TrapFrame& f) {
  return space_of(thread).remap(f.rdi, f.rsi, f.rdx, static_cast<std::uint32_t>(f.r10), f.r8);
}
std::int64_t advise_memory(Thread& thread, TrapFrame& f) {
  return space_of(thread).advise(f.rdi, f.rsi, static_cast<int>(f.rdx));
}
std::int64_t resident_memory(Thread& thread, TrapFrame& f) {
  return space_of(thread).resident(f.rdi, f.rsi, f.rdx);
}
std::int64_t set_break(Thread& thread, TrapFrame& f) {
  return static_cast<std::int64_t>(space_of(thread).set_break(f.rdi));
}
// Nothing is ever written back or swapped out.
std::int64_t nothing_to_do(Thread&, TrapFrame&) { return 0; }
std::int64_t not_known(Thread&, TrapFrame&) { return -ENOSYS; }

// ---- identity, time ----

std::int64_t process_id(Thread& thread, TrapFrame&) { return thread.process->pid; }
std::int64_t thread_id(Thread& thread, TrapFrame&) {
  return __atomic_load_n(&thread.call->thread, __ATOMIC_ACQUIRE);
}

std::int64_t clock_time(Thread& thread, TrapFrame& f) {
  std::uint64_t ns;
  switch (static_cast<std::int32_t>(f.rdi)) {
    case 0:
    case 5:
    case 11:
      ns = wall_ns();
      break;
    case 1:
    case 4:
    case 6:
    case 7:
      ns = monotonic_ns();
      break;
    case 2:
    case 3:  // a program has its core to itself
      ns = uptime_ns() - thread.process->begin_ns;
      break;
    default:
      return forward(thread, f);
  }
  return give(thread, f.rsi,
              TimeSpec{static_cast<std::int64_t>(ns / ns_per_second),
                       static_cast<std::int64_t>(ns % ns_per_second)});
}

std::int64_t clock_resolution(Thread& thread, TrapFrame& f) {
  if (f.rdi > 11) return forward(thread, f);
  return f.rsi == 0 ? 0 : give(thread, f.rsi, TimeSpec{0, 1});
}

std::int64_t time_of_day(Thread& thread, TrapFrame& f) {
  std::uint64_t us = wall_ns() / 1000;
  const std::int64_t out[2] = {static_cast<std::int64_t>(us / 1'000'000),
                               static_cast<std::int64_t>(us % 1'000'000)};
  if (f.rdi != 0)
    if (std::int64_t bad = give(thread, f.rdi, out); bad != 0) return bad;
  const std::int32_t zone[2] = {0, 0};
  return f.rsi == 0 ? 0 : give(thread, f.rsi, zone);
}

std::int64_t seconds(Thread& thread, TrapFrame& f) {
  auto now = static_cast<std::int64_t>(wall_ns() / ns_per_second);
  if (f.rdi != 0)
    if (std::int64_t bad = give(thread, f.rdi, now); bad != 0) return bad;
  return now;
}

// ---- threads and processes ----

enum CloneFlag : std::uint64_t {
  clone_memory = 0x100,
  clone_files_and_more = 0xe00 | 0x40000 | 0x200,  // FS, FILES, SIGHAND, SYSVSEM
  clone_vfork = 0x4000,
  clone_thread = 0x10000,
  clone_set_tls = 0x80000,
  clone_parent_tid = 0x100000,
  clone_clear_child_tid = 0x200000,
  clone_detached = 0x400000,
  clone_set_child_tid = 0x1000000,
  clone_clear_handlers = 0x100000000,
  exit_signal_bits = 0xff
};

struct CloneWish {
  std::uint64_t flags, stack, tls, parent_tid, child_tid;
};

// In `saved`: the new thread, flags, tls, parent_tid, child_tid, stack.
void remember(Thread& thread, const CloneWish& wish, Thread* made) {
  const std::uint64_t values[6] = {reinterpret_cast<std::uint64_t>(made), wish.flags, wish.tls,
                                   wish.parent_tid, wish.child_tid, wish.stack};
  for (unsigned i = 0; i < 6; ++i) thread.saved[i] = values[i];
}

// The child begins where its parent is, with its own stack and thread pointer.
void begin_like(Thread& child, Thread& parent, const TrapFrame& frame) {
  const std::uint64_t flags = parent.saved[1];
  if (this_core().loaded == &parent) save_context(parent);
  __builtin_memcpy(child.extended(), parent.extended(), Thread::extended_size);
  child.fresh = false;
  child.frame = frame;
  child.frame.rax = 0;
  if (parent.saved[5] != 0) child.frame.rsp = parent.saved[5];
  child.fs_base = (flags & clone_set_tls) != 0 ? parent.saved[2] : parent.fs_base;
  child.gs_base = parent.gs_base;
  child.mask = parent.mask;
  child.stack.flags = signal_stack_disabled;
  if ((flags & clone_memory) == 0 || (flags & clone_vfork) != 0) child.stack = parent.stack;
  if ((flags & clone_clear_child_tid) != 0) child.clear_child_tid = parent.saved[4];
  child.state = ThreadState::runnable;
}

std::int64_t thread_was_cloned(Thread& thread, TrapFrame& frame, std::int64_t answer) {
  auto& made = *reinterpret_cast<Thread*>(thread.saved[0]);
  if (answer <= 0) {
    discard_thread(made);
    return answer < 0 ? answer : -EAGAIN;
  }
  const auto id = static_cast<std::uint32_t>(answer);
  const std::uint64_t flags = thread.saved[1];
  if ((flags & clone_parent_tid) != 0) (void)give(thread, thread.saved[3], id);
  if ((flags & clone_set_child_tid) != 0) (void)give(thread, thread.saved[4], id);
  begin_like(made, thread, frame);
  place(made);
  return answer;
}

std::int64_t process_was_forked(Thread& thread, TrapFrame& frame, std::int64_t answer) {
  if (answer < 0) return answer;
  const std::uint64_t flags = thread.saved[1];
  const auto view = static_cast<unsigned>(thread.call->argument[5]);
  const auto id = static_cast<std::uint32_t>(answer);
  Thread* child = make_child(thread, view, id, (flags & clone_memory) != 0);
  if (child == nullptr) {
    // Without an address space its proxy ends by itself.
    withdraw_view(view % HOBBES_VIEWS);
    return -ENOMEM;
  }
  if ((flags & clone_clear_handlers) != 0)
    for (SignalAction& action : child->process->actions)
      if (action.handler != signal_ignored) action = {};
  begin_like(*child, thread, frame);
  if ((flags & clone_parent_tid) != 0) (void)give(thread, thread.saved[3], id);
  if ((flags & clone_set_child_tid) != 0)
    (void)child->process->space->write(thread.saved[4], &id, sizeof id);
  if ((flags & clone_vfork) != 0) {
    child->process->vfork_parent = &thread;
    thread.child = child->process;
    frame.rax = id;
    thread.deadline_ns = 0;
    thread.futex_address = 0;
    thread.state = ThreadState::waiting;
    place(*child);
    return pending;
  }
  place(*child);
  return answer;
}

std::int64_t clone_with(Thread& thread, const CloneWish& wish) {
  constexpr std::uint64_t bookkeeping = clone_parent_tid | clone_set_child_tid |
                                        clone_clear_child_tid | clone_set_tls | clone_detached |
                                        clone_clear_handlers | exit_signal_bits;
  const bool sets_tls = (wish.flags & clone_set_tls) != 0;
  if ((sets_tls && wish.tls >= HOBBES_PROGRAM_HIGH) || wish.stack >= HOBBES_PROGRAM_HIGH)
    return -EPERM;
  if ((wish.flags & clone_thread) != 0) {
    constexpr std::uint64_t needed = clone_memory | 0xe00, allowed = needed | 0x40000;
    if ((wish.flags & needed) != needed ||
        (wish.flags & ~(allowed | clone_thread | bookkeeping)) != 0)
      return -EINVAL;
    Thread* made = make_thread(*thread.process);
    if (made == nullptr) return -EAGAIN;
    remember(thread, wish, made);
    return ask(thread, HOBBES_FORWARD_CLONE, {made->slot}, thread_was_cloned);
  }
  const std::uint64_t sharing = wish.flags & ~bookkeeping;
  if (sharing != 0 && sharing != (clone_memory | clone_vfork)) return -EINVAL;
  remember(thread, wish, nullptr);
  return ask(thread, HOBBES_FORWARD_FORK, {wish.flags & exit_signal_bits}, process_was_forked);
}

std::int64_t clone_call(Thread& thread, TrapFrame& f) {
  return clone_with(thread, {f.rdi, f.rsi, f.r8, f.rdx, f.r10});
}
std::int64_t fork_call(Thread& thread, TrapFrame&) { return clone_with(thread, {17, 0, 0, 0, 0}); }
std::int64_t vfork_call(Thread& thread, TrapFrame&) {
  return clone_with(thread, {clone_memory | clone_vfork | 17, 0, 0, 0, 0});
}

std::int64_t clone3_call(Thread& thread, TrapFrame& f) {
  // linux/sched.h, struct clone_args.
  struct {
    std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
  } given{};
  if (f.rsi < 64 || f.rsi > sizeof given) return f.rsi > sizeof given ? -E2BIG : -EINVAL;
  if (!space_of(thread).read(&given, f.rdi, f.rsi)) return -EFAULT;
  if ((given.flags & exit_signal_bits) != 0 || given.exit_signal > exit_signal_bits ||
      given.set_tid_size != 0)
    return -EINVAL;
  std::uint64_t top = given.stack == 0 ? 0 : given.stack + given.stack_size;
  return clone_with(thread, {given.flags | given.exit_signal, top, given.tls, given.parent_tid,
                             given.child_tid});
}

std::int64_t exit_thread(Thread& thread, TrapFrame& f) {
  release_on_exit(thread);
  tell(thread, 60, f.rdi);
  end_current();
}

std::int64_t exit_process(Thread& thread, TrapFrame& f) {
  begin_stop(*thread.process, &thread);
  // As at the end of any thread; the word may be another process's in a vfork.
  if (thread.process->threads == 1) release_on_exit(thread);
  return ask(thread, 231, {f.rdi}, as_answered);
}

std::int64_t set_child_tid(Thread& thread, TrapFrame& f) {
  thread.clear_child_tid = f.rdi;
  return thread_id(thread, f);
}

std::int64_t set_robust_list(Thread& thread, TrapFrame& f) {
  if (f.rsi != 24) return -EINVAL;
  thread.robust_list = f.rdi;
  return 0;
}

std::int64_t processor_control(Thread& thread, TrapFrame& f) {
  enum : std::uint64_t { set_gs = 0x1001, set_fs = 0x1002, get_fs = 0x1003, get_gs = 0x1004 };
  switch (f.rdi) {
    case set_fs:
    case set_gs:
      if (f.rsi >= HOBBES_PROGRAM_HIGH) return -EPERM;
      cpu::write_msr(f.rdi == set_fs ? cpu::msr_fs_base : cpu::msr_kernel_gs_base, f.rsi);
      return 0;
    case get_fs:
      return give(thread, f.rsi, cpu::read_msr(cpu::msr_fs_base));
    case get_gs:
      return give(thread, f.rsi, cpu::read_msr(cpu::msr_kernel_gs_base));
    default:
      return -EINVAL;
  }
}

// ---- cores ----

std::int64_t processor_number(Thread& thread, TrapFrame& f) {
  const std::uint32_t cpu = core(thread.core).cpu, node = 0;
  if (f.rdi != 0)
    if (std::int64_t bad = give(thread, f.rdi, cpu); bad != 0) return bad;
  return f.rsi == 0 ? 0 : give(thread, f.rsi, node);
}

constexpr std::size_t mask_bytes = 128;

std::int64_t get_affinity(Thread& thread, TrapFrame& f) {
  if (f.rsi % 8 != 0 || f.rsi < 8) return -EINVAL;
  std::uint8_t mask[mask_bytes] = {};
  for (unsigned i = 0; i < core_limit; ++i)
    if (takes_threads(core(i)) && core(i).cpu / 8 < mask_bytes)
      mask[core(i).cpu / 8] = static_cast<std::uint8_t>(mask[core(i).cpu / 8] | 1U << core(i).cpu % 8);
  // A thread that has chosen sees its choice.
  if (thread.bound) {
    __builtin_memset(mask, 0, sizeof mask);
    mask[core(thread.core).cpu / 8] = static_cast<std::uint8_t>(1U << core(thread.core).cpu % 8);
  }
  std::uint64_t size = f.rsi < mask_bytes ? f.rsi : mask_bytes;
  return space_of(thread).write(f.rdx, mask, size) ? static_cast<std::int64_t>(size) : -EFAULT;
}

std::int64_t set_affinity(Thread& thread, TrapFrame& f) {
  std::uint8_t mask[mask_bytes] = {};
  std::uint64_t size = f.rsi < mask_bytes ? f.rsi : mask_bytes;
  if (!space_of(thread).read(mask, f.rdx, size)) return -EFAULT;
  auto has = [&](const Core& one) {
    return one.cpu / 8 < mask_bytes && (mask[one.cpu / 8] >> one.cpu % 8 & 1U) != 0;
  };
  unsigned allowed = 0, all = 0;
  const Core* best = nullptr;
  for (unsigned i = core_limit; i-- > 0;) {
    if (!takes_threads(core(i))) continue;
    ++all;
    if (!has(core(i))) continue;
    ++allowed;
    if (best == nullptr || core(i).thread_count < best->thread_count) best = &core(i);
  }
  if (best == nullptr) return -EINVAL;
  if (f.rdi != 0 && f.rdi != thread.call->thread) return 0;  // others choose for themselves
  thread.bound = allowed < all;
  if (has(core(thread.core))) return 0;
  f.rax = 0;
  move_current(f, best->number);
}

std::int64_t yield(Thread& thread, TrapFrame& f) {
  if (this_core().thread_count < 2) return 0;
  f.rax = 0;
  thread.state = ThreadState::runnable;
  leave_thread(f);
}

// ---- files ----

// /proc/self/exe is the proxy's own.
bool is_program_link(Thread& thread, std::uint64_t path) {
  static constexpr char link[] = "/proc/self/exe";
  char name[sizeof link];
  return space_of(thread).read(name, path, sizeof name) &&
         __builtin_memcmp(name, link, sizeof link) == 0;
}
std::int64_t read_link(Thread& thread, TrapFrame& f) {
  if (!is_program_link(thread, f.rdi)) return forward(thread, f);
  return ask(thread, HOBBES_FORWARD_PROGRAM_PATH, {f.rsi, f.rdx}, as_answered);
}
std::int64_t read_link_at(Thread& thread, TrapFrame& f) {
  if (!is_program_link(thread, f.rsi)) return forward(thread, f);
  return ask(thread, HOBBES_FORWARD_PROGRAM_PATH, {f.rdx, f.r10}, as_answered);
}

// ---- sleeping ----

std::int64_t sleep_for(Thread& thread, TrapFrame& f, std::uint64_t from, std::uint64_t remaining,
                       bool absolute, bool wall) {
  TimeSpec wanted;
  if (!space_of(thread).read(&wanted, from, sizeof wanted)) return -EFAULT;
  if (wanted.seconds < 0 || wanted.ns < 0 ||
      static_cast<std::uint64_t>(wanted.ns) >= ns_per_second)
    return -EINVAL;
  constexpr std::int64_t long_time = 100'000'000;
  if (wanted.seconds > long_time && !absolute) wanted.seconds = long_time;
  std::uint64_t ns = static_cast<std::uint64_t>(wanted.seconds) * ns_per_second +
                     static_cast<std::uint64_t>(wanted.ns);
  std::uint64_t now = !absolute ? 0 : wall ? wall_ns() : monotonic_ns();
  if (ns <= now) return 0;
  thread.saved[0] = absolute ? 0 : remaining;
  return sleep_until(thread, f, uptime_ns() + (ns - now));
}

std::int64_t sleep_call(Thread& thread, TrapFrame& f) {
  return sleep_for(thread, f, f.rdi, f.rsi, false, false);
}

std::int64_t clock_sleep(Thread& thread, TrapFrame& f) {
  constexpr std::uint64_t absolute = 1;
  if (f.rdi > 1) return forward(thread, f);
  return sleep_for(thread, f, f.rdx, f.r10, (f.rsi & absolute) != 0, f.rdi == 0);
}

// ---- the table ----

struct Entry {
  std::uint16_t number;
  Serve serve;
};
constexpr Entry served[] = {
    {9, map_memory},         {10, protect_memory},  {11, unmap_memory},
    {12, set_break},         {13, signal_action},   {14, signal_mask},
    {15, signal_return},     {24, yield},           {25, remap_memory},
    {26, nothing_to_do},     {27, resident_memory}, {28, advise_memory},
    {35, sleep_call},        {39, process_id},      {56, clone_call},
    {57, fork_call},         {58, vfork_call},      {60, exit_thread},
    {89, read_link},         {267, read_link_at},
    {96, time_of_day},       {131, signal_stack},   {149, nothing_to_do},
    {150, nothing_to_do},    {151, nothing_to_do},  {152, nothing_to_do},
    {158, processor_control},{186, thread_id},      {201, seconds},
    {202, futex},            {203, set_affinity},   {204, get_affinity},
    {218, set_child_tid},    {228, clock_time},     {229, clock_resolution},
    {230, clock_sleep},      {231, exit_process},   {273, set_robust_list},
    {309, processor_number}, {324, not_known},      {325, nothing_to_do},
    {334, not_known},        {435, clone3_call},
    // They would need frames of this memory that Linux manages (userfaultfd, aio, io_uring, keys).
    {206, not_known},        {323, not_known},      {329, not_known},
    {330, not_known},        {425, not_known},      {449, not_known},
};

Serve server_of(std::uint64_t number) {
  for (const Entry& entry : served)
    if (entry.number == number) return entry.serve;
  return nullptr;
}

}  // namespace

bool served_here(std::uint64_t number) { return server_of(number) != nullptr; }

}  // namespace kitten

using namespace kitten;

// From entry.S: a program's call, in its frame on the core's stack.
extern "C" void system_call(TrapFrame* frame) {
  Thread& thread = current();
  const std::uint64_t number = frame->rax;
  thread.call_number = static_cast<std::int64_t>(number);
  Serve serve = server_of(number);
  std::int64_t result = serve != nullptr ? serve(thread, *frame) : forward(thread, *frame);
  if (result == pending && thread.state == ThreadState::asking) {
    // A proxy that is awake answers sooner than this thread could leave and come back.
    std::uint64_t begin = uptime_ns();
    while (!proxy_spoke(thread) && uptime_ns() - begin < answer_poll_ns()) {
      serve_while_waiting();
      cpu::relax();
    }
    if (proxy_spoke(thread)) {
      thread.frame = *frame;
      result = take_answer(thread, *frame);
    }
  }
  if (result == pending) {
    if (thread.state == ThreadState::runnable) reschedule();  // a new program
    leave_thread(*frame);
  } else {
    frame->rax = static_cast<std::uint64_t>(result);
  }
  thread.state = ThreadState::running;
  before_program(*frame);
}

// From `restart_core`.
extern "C" void run_this_core() { run_core(); }
