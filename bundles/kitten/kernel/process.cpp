#include "process.h"

#include <cerrno>

#include "clock.h"
#include "commands.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "exceptions.h"
#include "forward.h"
#include "schedule.h"
#include "shared_memory.h"
#include "signals.h"
#include "views.h"

namespace kitten {
namespace {

SpinLock process_lock;  // inside of nothing else but core lists
Process* processes[HOBBES_VIEWS];
unsigned count = 0;

std::uint64_t physical_of(const void* address) {
  return reinterpret_cast<std::uint64_t>(address) - physical_map;
}
std::uint64_t* frames_of(const Process& process) {
  return static_cast<std::uint64_t*>(at_physical(process.calls));
}

// Nobody else frees it before `finish_making`.
Process* make_process(unsigned view, AddressSpace* space) {
  std::uint64_t frame = take_frame(Use::kernel), calls = take_frame(Use::kernel);
  if (frame == 0 || calls == 0) {
    if (frame != 0) give_frame(frame, Use::kernel);
    if (calls != 0) give_frame(calls, Use::kernel);
    return nullptr;
  }
  auto* out = static_cast<Process*>(at_physical(frame));
  out->view = view;
  out->space = space;
  out->calls = calls;
  out->making = true;
  space->join(view);
  Locked locked(process_lock);
  space->share_kernel_half();  // which may have changed since the space was made
  static std::uint64_t made = 0;
  out->number = ++made;
  processes[view] = out;
  ++count;
  return out;
}

void free_process(Process& process) {
  release_vfork_parent(process);
  report_time(process);
  if (process.sharing) {  // its proxy has ended in the middle of it
    const hobbes_view& entry = view_table().view[process.view];
    if (entry.pin_done != process.pins_before) release_unused(entry.pin_slot);
    end_sharing(process);
  }
  {
    Locked locked(process_lock);
    processes[process.view] = nullptr;
    --count;
  }
  process.space->leave(process.view);
  for (unsigned i = 0; i < HOBBES_PROCESS_THREADS; ++i)
    if (frames_of(process)[i] != 0) give_frame(frames_of(process)[i], Use::kernel);
  unsigned view = process.view;
  give_frame(process.calls, Use::kernel);
  give_frame(physical_of(&process), Use::kernel);
  withdraw_view(view);
}

// From here on a process that is gone is freed with its last thread, or here when it has none.
void finish_making(Process& process, bool good) {
  bool last;
  {
    Locked locked(process_lock);
    process.making = false;
    if (!good) process.gone = true;
    last = process.gone && process.threads == 0;
  }
  if (last) free_process(process);
}

// The number of a call frame that no living thread of the proxy's uses.
int take_slot(Process& process) {
  std::uint64_t* frames = frames_of(process);
  for (unsigned i = 0; i < HOBBES_PROCESS_THREADS; ++i) {
    if (frames[i] == 0) {
      std::uint64_t frame = take_frame(Use::kernel);
      if (frame == 0) return -1;
      __atomic_store_n(&frames[i], frame, __ATOMIC_RELEASE);
      return static_cast<int>(i);
    }
    auto* call = static_cast<hobbes_call*>(at_physical(frames[i]));
    if (__atomic_load_n(&call->thread, __ATOMIC_ACQUIRE) == 0 &&
        __atomic_load_n(&call->state, __ATOMIC_ACQUIRE) == HOBBES_CALL_ASKED) {
      *call = {};
      return static_cast<int>(i);
    }
  }
  return -1;
}

Thread* thread_in(Process& process, unsigned slot) {
  std::uint64_t frame = take_frame(Use::kernel);
  if (frame == 0) return nullptr;
  auto* out = static_cast<Thread*>(at_physical(frame));
  out->process = &process;
  out->slot = slot;
  out->call = static_cast<hobbes_call*>(at_physical(frames_of(process)[slot]));
  out->call_number = -1;
  out->fresh = true;
  __atomic_add_fetch(&process.threads, 1U, __ATOMIC_ACQ_REL);
  return out;
}

void clear_program(Thread& thread, std::uint64_t instruction, std::uint64_t stack) {
  thread.frame = {};
  thread.frame.rip = instruction;
  thread.frame.rsp = stack;
  thread.frame.cs = program_code;
  thread.frame.ss = program_data;
  thread.frame.rflags = 0x202;
  thread.fs_base = thread.gs_base = 0;
  thread.fresh = true;
  thread.clear_child_tid = thread.robust_list = 0;
  thread.stack = {};
  thread.stack.flags = signal_stack_disabled;
  thread.call_number = -1;
  Process& process = *thread.process;
  for (SignalAction& action : process.actions)
    if (action.handler != signal_ignored) action = {};
}

// A new program begins in this process: memory and threads of the old one go.
std::int64_t reset(Thread& thread) {
  Process& process = *thread.process;
  if (!stop_others(thread)) return -EBUSY;
  forget_context(thread);
  if (process.space->users() > 1) {
    AddressSpace* own = AddressSpace::make();
    if (own == nullptr) return -ENOMEM;
    own->join(process.view);
    AddressSpace* old = process.space;
    {
      Locked locked(process_lock);
      process.space = own;
      own->share_kernel_half();
    }
    publish_view(process.view, own->root(), process.calls);
    old->leave(process.view);
  } else {
    process.space->clear();
  }
  release_vfork_parent(process);
  process.pid = thread.call->thread;
  // The proxy's other threads are no more, whatever their calls were.
  for (unsigned i = 0; i < HOBBES_PROCESS_THREADS; ++i) {
    if (frames_of(process)[i] == 0 || i == thread.slot) continue;
    auto* call = static_cast<hobbes_call*>(at_physical(frames_of(process)[i]));
    *call = {};
    call->state = HOBBES_CALL_ASKED;
  }
  return 0;
}

}  // namespace

unsigned process_count() { return __atomic_load_n(&count, __ATOMIC_ACQUIRE); }

// Linux counts it once the parent has waited for the child; here it counts when the child ends.
void report_time(Process& process) {
  const std::uint64_t own = ran_ns(process);
  Locked locked(process_lock);
  const std::uint64_t all = own + process.children_ns;
  if (all <= process.reported_ns) return;
  const std::uint64_t more = all - process.reported_ns;
  process.reported_ns = all;
  Process* parent = process.parent_number != 0 ? processes[process.parent_view] : nullptr;
  if (parent != nullptr && parent->number == process.parent_number) parent->children_ns += more;
}

bool must_end(const Thread& thread) {
  const Process& process = *thread.process;
  return __atomic_load_n(&process.gone, __ATOMIC_ACQUIRE) ||
         (__atomic_load_n(&process.stopping, __ATOMIC_ACQUIRE) && process.survivor != &thread);
}

void begin_process(unsigned view) {
  if (processes[view] != nullptr) return;
  AddressSpace* space = AddressSpace::make();
  Process* process = space != nullptr ? make_process(view, space) : nullptr;
  int slot = process != nullptr ? take_slot(*process) : -1;
  Thread* thread = slot >= 0 ? thread_in(*process, static_cast<unsigned>(slot)) : nullptr;
  if (thread == nullptr) {
    print(Line() << "a program does not begin: no memory");
    if (process != nullptr)
      finish_making(*process, false);
    else if (space != nullptr) {
      space->join(view);
      space->leave(view);
    }
    return;
  }
  thread->state = ThreadState::asking;
  clear_program(*thread, 0, 0);
  finish_making(*process, true);
  place(*thread);
  publish_view(view, space->root(), process->calls);
}

void end_process(unsigned view) {
  Process* process;
  bool last;
  {
    Locked locked(process_lock);
    process = processes[view];
    // If it is gone already, its last thread or its maker frees it.
    if (process == nullptr || process->gone) return;
    __atomic_store_n(&process->gone, true, __ATOMIC_RELEASE);
    last = process->threads == 0 && !process->making;
  }
  if (last)
    free_process(*process);
  else
    wake_cores();
}

void fill_for_proxy(unsigned view, std::uint64_t address) {
  AddressSpace* space = nullptr;
  {
    Locked locked(process_lock);
    if (const Process* process = processes[view]) space = process->space;
    if (space != nullptr) space->hold();
  }
  if (space == nullptr) return;
  (void)space->fill(address, false, false);
  space->release();
}

Thread* make_thread(Process& process) {
  Locked locked(process_lock);
  int slot = take_slot(process);
  return slot < 0 ? nullptr : thread_in(process, static_cast<unsigned>(slot));
}

void end_sharing(Process& process) {
  hobbes_view& entry = view_table().view[process.view];
  entry.pin_list = 0;
  entry.pin_room = 0;
  if (process.pin_list_is_block)
    give_block(process.pin_list, Use::kernel);
  else
    give_frame(process.pin_list, Use::kernel);
  __atomic_store_n(&process.sharing, false, __ATOMIC_RELEASE);
}

void discard_thread(Thread& thread) {
  Process& process = *thread.process;
  // As a thread that has ended: the frame can be taken again.
  thread.call->thread = 0;
  __atomic_store_n(&thread.call->state, std::uint32_t{HOBBES_CALL_ASKED}, __ATOMIC_RELEASE);
  give_frame(physical_of(&thread), Use::kernel);
  __atomic_sub_fetch(&process.threads, 1U, __ATOMIC_ACQ_REL);
}

Thread* make_child(Thread& parent, unsigned view, std::uint32_t pid, bool share_memory) {
  const hobbes_view& entry = view_table().view[view % HOBBES_VIEWS];
  const std::uint32_t state = __atomic_load_n(&entry.state, __ATOMIC_ACQUIRE);
  if (view >= HOBBES_VIEWS || processes[view] != nullptr ||
      (state != HOBBES_VIEW_MADE && state != HOBBES_VIEW_OPENED) ||
      entry.parent != parent.process->view + 1)
    return nullptr;
  AddressSpace* space = share_memory ? parent.process->space : AddressSpace::make();
  if (space == nullptr) return nullptr;
  Process* process = make_process(view, space);
  if (process == nullptr) {
    if (!share_memory) {
      space->join(view);
      space->leave(view);
    }
    return nullptr;
  }
  for (unsigned i = 0; i <= signal_count; ++i) process->actions[i] = parent.process->actions[i];
  process->cores = parent.process->cores;
  int slot = take_slot(*process);
  Thread* thread = slot >= 0 ? thread_in(*process, static_cast<unsigned>(slot)) : nullptr;
  if (thread == nullptr || (!share_memory && !space->copy(*parent.process->space))) {
    if (thread != nullptr) discard_thread(*thread);
    finish_making(*process, false);
    return nullptr;
  }
  thread->call->thread = process->pid = pid;
  process->parent_view = parent.process->view;
  process->parent_number = parent.process->number;
  finish_making(*process, true);
  publish_view(view, space->root(), process->calls);
  return thread;
}

void release_vfork_parent(Process& child) {
  Locked locked(process_lock);
  Thread* parent = child.vfork_parent;
  if (parent == nullptr) return;
  child.vfork_parent = nullptr;
  parent->child = nullptr;
  wake(*parent);
}

void bury(Thread& thread) {
  Process& process = *thread.process;
  if (thread.cloning != nullptr) discard_thread(*thread.cloning);
  bool last;
  {
    Locked locked(process_lock);
    if (thread.child != nullptr) thread.child->vfork_parent = nullptr;
    last = __atomic_sub_fetch(&process.threads, 1U, __ATOMIC_ACQ_REL) == 0 && process.gone &&
           !process.making;
  }
  give_frame(physical_of(&thread), Use::kernel);
  if (last) free_process(process);
}

bool begin_stop(Process& process, Thread& survivor) {
  // Two that would wait for each other's end: the second one ends.
  Thread* before = nullptr;
  if (!__atomic_compare_exchange_n(&process.survivor, &before, &survivor, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE) &&
      before != &survivor)
    return false;
  __atomic_store_n(&process.stopping, true, __ATOMIC_RELEASE);
  if (process.threads > 1) wake_cores();
  return true;
}

bool stop_others(Thread& survivor) {
  Process& process = *survivor.process;
  if (!begin_stop(process, survivor)) return false;
  constexpr std::uint64_t limit_ns =
      120'000'000'000;  // longer than Linux may take to forget memory
  const std::uint64_t begin = uptime_ns();
  while (__atomic_load_n(&process.threads, __ATOMIC_ACQUIRE) > 1) {
    if (uptime_ns() - begin > limit_ns) panic("a program's threads do not end");
    end_threads_here();
    show_life();
    serve_while_waiting();
    cpu::relax();
  }
  __atomic_store_n(&process.stopping, false, __ATOMIC_RELEASE);
  __atomic_store_n(&process.survivor, nullptr, __ATOMIC_RELEASE);
  return true;
}

void share_kernel_half() {
  Locked locked(process_lock);
  for (Process* process : processes)
    if (process != nullptr) process->space->share_kernel_half();
}

void serve_request(Thread& thread) {
  hobbes_call& call = *thread.call;
  AddressSpace& space = *thread.process->space;
  const std::uint64_t a = call.argument[0], b = call.argument[1], c = call.argument[2],
                      d = call.argument[3];
  std::int64_t result = -ENOSYS;
  switch (call.number) {
    case HOBBES_REQUEST_RESET:
      result = reset(thread);
      break;
    case HOBBES_REQUEST_MAP:
      result = space.map(a, b, static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(d));
      break;
    case HOBBES_REQUEST_PROTECT:
      result = space.protect(a, b, static_cast<std::uint32_t>(c));
      break;
    case HOBBES_REQUEST_START:
      if (a >= HOBBES_PROGRAM_HIGH || b >= HOBBES_PROGRAM_HIGH) {
        result = -EINVAL;
        break;
      }
      clear_program(thread, a, b);
      space.begin_break(c);
      thread.mask = d;
      thread.then = nullptr;
      __atomic_store_n(&call.state, std::uint32_t{HOBBES_CALL_IDLE}, __ATOMIC_RELEASE);
      thread.state = ThreadState::runnable;
      return;
    case HOBBES_REQUEST_BIND:
      // Only before anything of the program has run.
      if (thread.frame.rip == 0 && bind_process(thread, {{a, b, c, d}})) return;
      result = thread.frame.rip != 0 ? -EPERM : -EINVAL;
      break;
    case HOBBES_REQUEST_CLOCK: {
      const ClockEpoch epoch = clock_epoch();
      __builtin_memcpy(call.copy, &epoch, sizeof epoch);
      result = 0;
      break;
    }
    case HOBBES_REQUEST_READ:
      result = b <= HOBBES_CALL_COPY && space.read(call.copy, a, b) ? 0 : -EFAULT;
      break;
    default:
      break;
  }
  grant(thread, result);
}

}  // namespace kitten
