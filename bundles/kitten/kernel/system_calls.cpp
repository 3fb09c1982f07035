// The system calls of programs: those served here, and all others by the proxy.
#include <asm/unistd.h>

#include <cerrno>

#include "clock.h"
#include "cores.h"
#include "cpu.h"
#include "forward.h"
#include "futex.h"
#include "memory.h"
#include "schedule.h"
#include "shared_memory.h"
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
  const std::uint64_t done = thread.saved[2];
  return ask(
      thread, __NR_pread64 | HOBBES_FORWARD_ALWAYS,
      {thread.saved[4], thread.saved[0] + done, thread.saved[1] - done, thread.saved[5] + done},
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

// The same call once more, from its beginning.
std::int64_t from_the_beginning(Thread&, TrapFrame&, std::int64_t) { return HOBBES_CALL_NOT_BEGUN; }

std::uint64_t whole_pages(std::uint64_t size) {
  return (size + frame_size - 1) & ~(frame_size - 1);
}

// Room for the runs of frames that Linux pins: a page, or 2 MiB for what may be in many pieces.
constexpr std::uint64_t runs_in_page = frame_size / sizeof(hobbes_view_run);

bool runs_fit_in_page(std::uint64_t size) { return size / frame_size <= runs_in_page; }
std::uint64_t room_for(std::uint64_t size) {
  return runs_fit_in_page(size) ? runs_in_page : block_size / sizeof(hobbes_view_run);
}

// In `saved`: as for `read_file`.
std::int64_t memory_was_shared(Thread& thread, TrapFrame&, std::int64_t answer) {
  const Process& process = *thread.process;
  AddressSpace& space = *process.space;
  const hobbes_view& entry = view_table().view[process.view];
  const std::uint64_t address = thread.saved[0], size = thread.saved[1];
  const auto protection = static_cast<std::uint8_t>(thread.saved[3]);
  bool pinned = __atomic_load_n(&entry.pin_done, __ATOMIC_ACQUIRE) != process.pins_before;
  bool shown = false;
  if (pinned) {
    // What the module has pinned must be what was asked for; its proxy may say anything.
    bool expected = answer >= 0 && entry.pin_address == address && entry.pin_size == size &&
                    entry.pin_runs <= room_for(size) && entry.pin_slot < HOBBES_KITTEN_SLOTS;
    if (expected)
      shown = space.show_shared(address, size, protection, entry.pin_slot,
                                static_cast<const hobbes_view_run*>(at_physical(process.pin_list)),
                                entry.pin_runs);
    else
      release_unused(entry.pin_slot);
  }
  end_sharing(*thread.process);
  if (shown) return static_cast<std::int64_t>(address);
  if (answer == -ENODEV && (protection & protect_write) == 0) {
    // A file on a disk that is only read: its content, as it is now.
    if (std::int64_t bad = space.protect(address, size, protect_read | protect_write); bad < 0)
      return bad;
    thread.saved[2] = 0;
    return read_file(thread);
  }
  (void)space.unmap(address, size);
  return answer < 0 ? answer : -ENOMEM;
}

// Linux maps `number`'s memory in the proxy, where this kernel has reserved room, and pins it.
std::int64_t share(Thread& thread, TrapFrame& f, std::uint64_t number, std::uint64_t hint,
                   std::uint64_t size, std::uint32_t protection, std::uint32_t flags,
                   std::uint64_t descriptor, std::uint64_t offset) {
  Process& process = *thread.process;
  AddressSpace& space = *process.space;
  if (__atomic_exchange_n(&process.sharing, true, __ATOMIC_ACQ_REL)) {
    f.rip -= 2;  // another thread of the process is at it
    thread.state = ThreadState::runnable;
    leave_thread(f);
  }
  size = whole_pages(size);
  constexpr std::uint32_t fixed = map_fixed | map_fixed_no_replace;
  std::int64_t at =
      space.map(hint, size, 0, (flags & fixed) | map_private | map_anonymous | map_no_reserve);
  std::uint64_t list = 0;
  if (at >= 0) list = runs_fit_in_page(size) ? take_frame(Use::kernel) : take_block(Use::kernel);
  if (list == 0) {
    if (at >= 0) (void)space.unmap(static_cast<std::uint64_t>(at), size);
    __atomic_store_n(&process.sharing, false, __ATOMIC_RELEASE);
    return at < 0 ? at : -ENOMEM;
  }
  hobbes_view& entry = view_table().view[process.view];
  const std::uint64_t values[6] = {
      static_cast<std::uint64_t>(at), size, 0, protection, descriptor, offset};
  for (unsigned i = 0; i < 6; ++i) thread.saved[i] = values[i];
  process.pin_list = list;
  process.pin_list_is_block = !runs_fit_in_page(size);
  process.pins_before = entry.pin_done;
  entry.pin_room = static_cast<std::uint32_t>(room_for(size));
  __atomic_store_n(&entry.pin_list, list, __ATOMIC_RELEASE);
  return ask(thread, number | HOBBES_FORWARD_ALWAYS,
             {values[0], size, protection, flags, descriptor, offset}, memory_was_shared);
}

std::int64_t map_memory(Thread& thread, TrapFrame& f) {
  AddressSpace& space = space_of(thread);
  const auto protection = static_cast<std::uint32_t>(f.rdx),
             flags = static_cast<std::uint32_t>(f.r10);
  const std::uint32_t sharing = flags & 3U;
  if (sharing == 0 || f.r9 % frame_size != 0 || f.rsi == 0) return -EINVAL;
  if (f.rsi > HOBBES_PROGRAM_HIGH) return -ENOMEM;
  const std::uint64_t size = whole_pages(f.rsi);
  if ((flags & map_fixed) != 0 && space.has_shared(f.rdi, size)) {
    // Its proxy shows the view there again before anything else comes.
    if (std::int64_t bad = space.unmap(f.rdi, size); bad < 0) return bad;
    return ask(thread, HOBBES_FORWARD_UNSHARE | HOBBES_FORWARD_ALWAYS, {f.rdi, size},
               from_the_beginning);
  }
  if (sharing != map_private)
    return share(thread, f, HOBBES_FORWARD_SHARE, f.rdi, size, protection, flags, f.r8, f.r9);
  if ((flags & map_anonymous) != 0) return space.map(f.rdi, f.rsi, protection, flags);
  std::int64_t at = space.map(f.rdi, f.rsi, protect_read | protect_write, flags | map_anonymous);
  if (at < 0) return at;
  const std::uint64_t values[6] = {static_cast<std::uint64_t>(at), size, 0, protection, f.r8, f.r9};
  for (unsigned i = 0; i < 6; ++i) thread.saved[i] = values[i];
  return read_file(thread);
}

std::int64_t unmap_memory(Thread& thread, TrapFrame& f) {
  AddressSpace& space = space_of(thread);
  const bool shared = f.rsi <= HOBBES_PROGRAM_HIGH && space.has_shared(f.rdi, whole_pages(f.rsi));
  std::int64_t result = space.unmap(f.rdi, f.rsi);
  if (!shared || result < 0) return result;
  return ask(thread, HOBBES_FORWARD_UNSHARE | HOBBES_FORWARD_ALWAYS, {f.rdi, whole_pages(f.rsi)},
             as_answered);
}

// Linux knows whether shared memory may be written to.
std::int64_t protection_was_allowed(Thread& thread, TrapFrame& f, std::int64_t answer) {
  return answer < 0 ? answer
                    : space_of(thread).protect(f.rdi, f.rsi, static_cast<std::uint32_t>(f.rdx));
}

std::int64_t protect_memory(Thread& thread, TrapFrame& f) {
  AddressSpace& space = space_of(thread);
  if ((f.rdx & protect_write) != 0 && f.rsi <= HOBBES_PROGRAM_HIGH &&
      space.has_shared(f.rdi, whole_pages(f.rsi)))
    return forward(thread, f, protection_was_allowed);
  return space.protect(f.rdi, f.rsi, static_cast<std::uint32_t>(f.rdx));
}

// shmat(2): id, address, flags.
std::int64_t segment_has_size(Thread& thread, TrapFrame& f, std::int64_t answer) {
  if (answer <= 0) return answer < 0 ? answer : -EINVAL;
  constexpr std::uint64_t read_only = 010000, round = 020000, remap = 040000;
  std::uint64_t address = f.rsi;
  if ((f.rdx & round) != 0) address &= ~(frame_size - 1);
  if (address % frame_size != 0) return -EINVAL;
  const std::uint32_t place = address == 0           ? 0U
                              : (f.rdx & remap) != 0 ? std::uint32_t{map_fixed}
                                                     : std::uint32_t{map_fixed_no_replace};
  const std::uint32_t protection =
      (f.rdx & read_only) != 0 ? std::uint32_t{protect_read} : protect_read | protect_write;
  return share(thread, f, HOBBES_FORWARD_ATTACH, address, static_cast<std::uint64_t>(answer),
               protection, place | map_shared, f.rdi, 0);
}
std::int64_t attach_segment(Thread& thread, TrapFrame& f) {
  return ask(thread, HOBBES_FORWARD_SEGMENT_SIZE, {f.rdi}, segment_has_size);
}
std::int64_t detach_segment(Thread& thread, TrapFrame& f) {
  AddressSpace& space = space_of(thread);
  const std::uint64_t size = space.shared_piece(f.rdi);
  if (size == 0) return -EINVAL;
  std::int64_t result = space.unmap(f.rdi, size);
  if (result < 0) return result;
  return ask(thread, HOBBES_FORWARD_UNSHARE | HOBBES_FORWARD_ALWAYS, {f.rdi, size}, as_answered);
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

// A clock of processor time that is named by a process or a thread (clock_getcpuclockid(3)): ~id in
// its upper bits, 4 for a thread, and how it counts. The program's own count as clocks 2 and 3.
std::int32_t own_clock(const Thread& thread, std::int32_t clock) {
  constexpr std::uint32_t of_thread = 4, counting = 3, by_descriptor = 3;
  const auto bits = static_cast<std::uint32_t>(clock);
  if (clock >= 0 || (bits & counting) == by_descriptor) return clock;
  const auto id = static_cast<std::uint32_t>(~(clock >> 3));
  const bool own = id == 0 || id == thread.call->thread;
  if ((bits & of_thread) != 0) return own ? 3 : clock;
  return own || id == thread.process->pid ? 2 : clock;
}

std::int64_t clock_time(Thread& thread, TrapFrame& f) {
  std::uint64_t ns;
  switch (own_clock(thread, static_cast<std::int32_t>(f.rdi))) {
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
      ns = ran_ns(*thread.process);
      break;
    case 3:
      ns = ran_ns_here();
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

// getrusage(2). All of a program's time is its own: what Linux does for it is the proxy's.
std::int64_t resource_usage(Thread& thread, TrapFrame& f) {
  enum : std::int32_t { children = -1, self = 0, of_thread = 1 };
  std::uint64_t ns = 0;
  switch (static_cast<std::int32_t>(f.rdi)) {
    case self:
      ns = ran_ns(*thread.process);
      break;
    case of_thread:
      ns = ran_ns_here();
      break;
    case children:
      ns = __atomic_load_n(&thread.process->children_ns, __ATOMIC_RELAXED);
      break;
    default:
      return -EINVAL;
  }
  const std::uint64_t usage[18] = {ns / ns_per_second, ns % ns_per_second / 1000};
  return give(thread, f.rsi, usage);
}

// times(2), in hundredths of a second.
std::int64_t process_times(Thread& thread, TrapFrame& f) {
  constexpr std::uint64_t tick_ns = 10'000'000;
  const std::uint64_t out[4] = {
      ran_ns(*thread.process) / tick_ns, 0,
      __atomic_load_n(&thread.process->children_ns, __ATOMIC_RELAXED) / tick_ns, 0};
  if (f.rdi != 0)
    if (std::int64_t bad = give(thread, f.rdi, out); bad != 0) return bad;
  return static_cast<std::int64_t>(monotonic_ns() / tick_ns);
}

// sysinfo(2): the enclave's memory and programs.
std::int64_t system_facts(Thread& thread, TrapFrame& f) {
  struct {
    std::int64_t uptime;
    std::uint64_t loads[3], total, free, shared, buffers, swap, free_swap;
    std::uint16_t processes, pad;
    std::uint32_t more_pad;
    std::uint64_t high, free_high;
    std::uint32_t unit, end;
  } out{};
  static_assert(sizeof out == 112);
  out.uptime = static_cast<std::int64_t>(monotonic_ns() / ns_per_second);
  out.total = total_memory();
  out.free = free_memory();
  out.processes = static_cast<std::uint16_t>(process_count());
  out.unit = 1;
  return give(thread, f.rdi, out);
}

// ---- threads and processes ----

enum CloneFlag : std::uint64_t {
  clone_memory = 0x100,
  clone_of_threads = 0xe00,  // what threads share: FS, FILES, SIGHAND
  clone_semaphores = 0x40000,
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

// In `saved`: stack, flags, tls, parent_tid, child_tid.
void remember(Thread& thread, const CloneWish& wish) {
  const std::uint64_t values[5] = {wish.stack, wish.flags, wish.tls, wish.parent_tid,
                                   wish.child_tid};
  for (unsigned i = 0; i < 5; ++i) thread.saved[i] = values[i];
}

// The child begins where its parent is, with its own stack and thread pointer.
void begin_like(Thread& child, Thread& parent, const TrapFrame& frame) {
  const std::uint64_t flags = parent.saved[1];
  if (this_core().loaded == &parent) save_context(parent);
  __builtin_memcpy(child.extended(), parent.extended(), Thread::extended_size);
  child.fresh = false;
  child.frame = frame;
  child.frame.rax = 0;
  if (parent.saved[0] != 0) child.frame.rsp = parent.saved[0];
  child.fs_base = (flags & clone_set_tls) != 0 ? parent.saved[2] : parent.fs_base;
  child.gs_base = parent.gs_base;
  child.mask = parent.mask;
  child.stack.flags = signal_stack_disabled;
  if ((flags & clone_memory) == 0 || (flags & clone_vfork) != 0) child.stack = parent.stack;
  if ((flags & clone_clear_child_tid) != 0) child.clear_child_tid = parent.saved[4];
  child.state = ThreadState::runnable;
}

std::int64_t thread_was_cloned(Thread& thread, TrapFrame& frame, std::int64_t answer) {
  Thread& made = *thread.cloning;
  thread.cloning = nullptr;
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
  if (child == nullptr)  // its proxy is there already
    return ask(thread, HOBBES_FORWARD_UNFORK | HOBBES_FORWARD_ALWAYS, {id}, as_answered);
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
    constexpr std::uint64_t needed = clone_memory | clone_of_threads,
                            allowed = needed | clone_semaphores;
    if ((wish.flags & needed) != needed ||
        (wish.flags & ~(allowed | clone_thread | bookkeeping)) != 0)
      return -EINVAL;
    Thread* made = make_thread(*thread.process);
    if (made == nullptr) return -EAGAIN;
    remember(thread, wish);
    thread.cloning = made;
    return ask(thread, HOBBES_FORWARD_CLONE, {made->slot}, thread_was_cloned);
  }
  const std::uint64_t sharing = wish.flags & ~bookkeeping;
  if (sharing != 0 && sharing != (clone_memory | clone_vfork)) return -EINVAL;
  remember(thread, wish);
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
  return clone_with(
      thread, {given.flags | given.exit_signal, top, given.tls, given.parent_tid, given.child_tid});
}

std::int64_t exit_thread(Thread& thread, TrapFrame& f) {
  if (thread.process->threads == 1) report_time(*thread.process);
  release_on_exit(thread);
  tell(thread, __NR_exit, f.rdi);
  end_current();
}

std::int64_t exit_process(Thread& thread, TrapFrame& f) {
  report_time(*thread.process);
  (void)begin_stop(*thread.process, thread);
  if (thread.process->threads == 1) release_on_exit(thread);
  return ask(thread, __NR_exit_group, {f.rdi}, as_answered);
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

// prctl(2): what would bind the proxy's own calls is refused, as by a kernel without it.
std::int64_t control_process(Thread& thread, TrapFrame& f) {
  enum : std::uint64_t { set_seccomp = 22, set_tsc = 26, set_memory = 35, user_dispatch = 59 };
  if (f.rdi == set_seccomp || f.rdi == set_tsc || f.rdi == set_memory || f.rdi == user_dispatch)
    return -EINVAL;
  return forward(thread, f);
}

// membarrier(2): cores that run the program pass a translation shootdown, which orders their
// memory.
std::int64_t barrier(Thread& thread, TrapFrame& f) {
  enum : std::uint64_t { query = 0, global = 1, expedited = 2, of_process = 8, of_code = 32 };
  constexpr std::uint64_t known = 0x7f, registrations = 4 | 16 | 64;
  if (f.rsi != 0) return -EINVAL;
  switch (f.rdi) {
    case query:
      return known;
    case global:
    case expedited:
      shoot_down();
      return 0;
    case of_process:
    case of_code:
      shoot_down(space_of(thread).root());
      return 0;
    default:
      return (f.rdi & registrations) == f.rdi && (f.rdi & (f.rdi - 1)) == 0 ? 0 : -EINVAL;
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
    if (takes_threads(core(i)) && core(i).cpu / 8 < mask_bytes &&
        (thread.process->cores.none() || thread.process->cores.has(core(i).cpu)))
      mask[core(i).cpu / 8] =
          static_cast<std::uint8_t>(mask[core(i).cpu / 8] | 1U << core(i).cpu % 8);
  // A thread that has chosen sees its choice.
  if (thread.bound) {
    __builtin_memset(mask, 0, sizeof mask);
    mask[core(thread.core).cpu / 8] = static_cast<std::uint8_t>(1U << core(thread.core).cpu % 8);
  }
  std::uint64_t size = f.rsi < mask_bytes ? f.rsi : mask_bytes;
  return space_of(thread).write(f.rdx, mask, size) ? static_cast<std::int64_t>(size) : -EFAULT;
}

std::int64_t set_affinity(Thread& thread, TrapFrame& f) {
  // Threads move themselves only.
  if (f.rdi != 0 && f.rdi != thread.call->thread) return -EPERM;
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
  if (wanted.seconds < 0 || wanted.ns < 0 || static_cast<std::uint64_t>(wanted.ns) >= ns_per_second)
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

// Newer than the headers of Debian 12 may be.
constexpr std::uint16_t nr_futex_waitv = 449;

struct Entry {
  std::uint16_t number;
  Serve serve;
};
constexpr Entry served[] = {
    {__NR_mmap, map_memory},
    {__NR_mprotect, protect_memory},
    {__NR_munmap, unmap_memory},
    {__NR_brk, set_break},
    {__NR_rt_sigaction, signal_action},
    {__NR_rt_sigprocmask, signal_mask},
    {__NR_rt_sigreturn, signal_return},
    {__NR_sched_yield, yield},
    {__NR_mremap, remap_memory},
    {__NR_shmat, attach_segment},
    {__NR_shmdt, detach_segment},
    {__NR_msync, nothing_to_do},
    {__NR_mincore, resident_memory},
    {__NR_madvise, advise_memory},
    {__NR_nanosleep, sleep_call},
    {__NR_getpid, process_id},
    {__NR_clone, clone_call},
    {__NR_fork, fork_call},
    {__NR_vfork, vfork_call},
    {__NR_exit, exit_thread},
    {__NR_readlink, read_link},
    {__NR_readlinkat, read_link_at},
    {__NR_gettimeofday, time_of_day},
    {__NR_getrusage, resource_usage},
    {__NR_sysinfo, system_facts},
    {__NR_times, process_times},
    {__NR_sigaltstack, signal_stack},
    {__NR_mlock, nothing_to_do},
    {__NR_munlock, nothing_to_do},
    {__NR_mlockall, nothing_to_do},
    {__NR_munlockall, nothing_to_do},
    {__NR_arch_prctl, processor_control},
    {__NR_gettid, thread_id},
    {__NR_time, seconds},
    {__NR_futex, futex},
    {__NR_sched_setaffinity, set_affinity},
    {__NR_sched_getaffinity, get_affinity},
    {__NR_set_tid_address, set_child_tid},
    {__NR_clock_gettime, clock_time},
    {__NR_clock_getres, clock_resolution},
    {__NR_clock_nanosleep, clock_sleep},
    {__NR_exit_group, exit_process},
    {__NR_set_robust_list, set_robust_list},
    {__NR_getcpu, processor_number},
    {__NR_membarrier, barrier},
    {__NR_mlock2, nothing_to_do},
    {__NR_clone3, clone3_call},
    {__NR_prctl, control_process},
    // They would show or change the proxy instead of the program.
    {__NR_ptrace, not_known},
    {__NR_modify_ldt, not_known},
    {__NR_remap_file_pages, not_known},
    {__NR_seccomp, not_known},
    // They need a Linux that manages the program's own memory, or knows its threads' cores.
    {__NR_io_setup, not_known},
    {__NR_userfaultfd, not_known},
    {__NR_io_uring_setup, not_known},
    {__NR_pkey_mprotect, not_known},
    {__NR_pkey_alloc, not_known},
    {nr_futex_waitv, not_known},
    {__NR_rseq, not_known},
};

Serve server_of(std::uint64_t number) {
  for (const Entry& entry : served)
    if (entry.number == number) return entry.serve;
  return nullptr;
}

}  // namespace

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
  share_core(*frame, false);
  before_program(*frame);
}

// From `restart_core`.
extern "C" void run_this_core() { run_core(); }
