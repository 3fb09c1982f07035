// Programs: processes and their threads. A process is one view with its proxy in Linux; a thread is
// pinned to one core until it asks for another.
#pragma once
#include <cstdint>

#include "abi/forward.h"
#include "address_space.h"
#include "trap_frame.h"

namespace kitten {

struct Process;
struct Thread;

enum class ThreadState : std::uint32_t {
  running,  ///< on its core, or next there
  runnable,
  asking,   ///< until its proxy answers, or asks in turn
  waiting,  ///< until a futex or a child wakes it
  finished
};

/// What a system call returns when its result comes later.
constexpr std::int64_t pending = INT64_MIN;
/// Continues a call with its proxy's answer: the call's result, or `pending` again.
using Then = std::int64_t (*)(Thread&, TrapFrame&, std::int64_t answer);

struct SignalAction {
  std::uint64_t handler, flags, restorer, mask;
};
/// Of Linux's numbers.
struct CoreMask {
  std::uint64_t words[HOBBES_KITTEN_CORES / 64];
  [[nodiscard]] bool has(std::uint32_t cpu) const {
    return cpu < HOBBES_KITTEN_CORES && (words[cpu / 64] >> cpu % 64 & 1U) != 0;
  }
  [[nodiscard]] bool none() const { return (words[0] | words[1] | words[2] | words[3]) == 0; }
};
static_assert(HOBBES_KITTEN_CORES == 256);

struct SignalStack {
  std::uint64_t address;
  std::uint32_t flags, pad;
  std::uint64_t size;
};

/// One page frame; the processor's extended state fills its second part.
struct Thread {
  TrapFrame frame;  ///< while it does not run
  std::uint64_t fs_base, gs_base;
  Process* process;
  Thread* next;  ///< of its core's
  hobbes_call* call;
  std::uint32_t core, slot;
  ThreadState state;
  bool fresh;                ///< begins a program: its extended state is the initial one
  bool bound;                ///< has chosen its core
  bool moved;                ///< from a core that left: its proxy may have rung in vain
  std::int64_t call_number;  ///< of the call it came in with, -1 otherwise
  Then then;
  std::uint64_t saved[6];  ///< what a continuation needs
  std::uint64_t clear_child_tid, robust_list;
  std::uint64_t mask;    ///< blocked signals
  std::uint64_t ran_ns;  ///< counted so far
  SignalStack stack;
  // futex.cpp
  Thread* next_waiter;
  std::uint64_t futex_root, futex_address, deadline_ns;
  std::uint32_t futex_bits;
  Process* child;   ///< it waits for in vfork
  Thread* cloning;  ///< the one it is making: on no core before the proxy has made its own
  static constexpr std::size_t extended_offset = 1024, extended_size = 4096 - extended_offset;
  [[nodiscard]] void* extended() { return reinterpret_cast<std::uint8_t*>(this) + extended_offset; }
};
static_assert(sizeof(Thread) <= Thread::extended_offset);

constexpr unsigned signal_count = 64;

struct Process {
  unsigned view;
  std::uint32_t pid;
  AddressSpace* space;
  std::uint64_t calls;  ///< physical: the page with the addresses of the call frames
  unsigned threads;
  bool stopping;  ///< its threads end, all but `survivor`
  bool gone;      ///< its proxy has ended
  bool making;    ///< its maker uses it still
  Thread* survivor;
  CoreMask cores;  ///< where its threads may be put; none: everywhere
  // Processor time: counted of its threads, the most that was told, of children that have ended,
  // and what its parent knows of.
  std::uint64_t ran_ns, told_ns, children_ns, reported_ns;
  std::uint64_t number;         ///< of no other process, ever
  unsigned parent_view;         ///< of the process that forked it
  std::uint64_t parent_number;  ///< and that one's; 0: none
  bool sharing;  ///< a thread waits for memory to be pinned; the next three belong to that
  bool pin_list_is_block;
  std::uint32_t pins_before;
  std::uint64_t pin_list;  ///< physical: where the module writes runs of frames
  Thread* vfork_parent;
  SignalAction actions[signal_count + 1];
};
static_assert(sizeof(Process) <= frame_size);

// views.cpp calls these, on core 0.
/// A proxy has opened a view that nobody derived: a process begins, in its proxy's hands.
void begin_process(unsigned view);
/// A proxy has ended, and its process with it.
void end_process(unsigned view);
void fill_for_proxy(unsigned view, std::uint64_t address);

/// A further thread, or the first of a forked process: its call frame is ready, and it runs nowhere
/// yet. Null: no memory or no number.
Thread* make_thread(Process& process);
/// The memory is pinned, or will not be: the room for its runs goes.
void end_sharing(Process& process);
/// What was made and is not wanted.
void discard_thread(Thread& thread);
/// Copies a process into the derived view `view`. Null: that view is not for this, or no memory.
Thread* make_child(Thread& parent, unsigned view, std::uint32_t pid, bool share_memory);
/// The thread is not on any core's list any more. Frees it, and its process if it was the last.
void bury(Thread& thread);
/// Every other thread of its process ends; returns once none runs. False: another thread is to
/// survive, and this one ends with the others.
bool stop_others(Thread& survivor);
/// The same without waiting: they end as soon as they are noticed.
bool begin_stop(Process& process, Thread& survivor);
/// The child of a vfork has its own memory now, or has ended.
void release_vfork_parent(Process& child);
/// Whether a thread must not run any more.
bool must_end(const Thread& thread);
/// After the kernel's half has changed.
void share_kernel_half();

/// Its processor time so far counts as a child's time of its parent, if that is still there.
void report_time(Process& process);

/// Serves a request of the proxy of a thread that asks.
void serve_request(Thread& thread);

unsigned process_count();

}  // namespace kitten
