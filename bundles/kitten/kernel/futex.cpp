#include "futex.h"

#include <cerrno>

#include "clock.h"
#include "schedule.h"

namespace kitten {
namespace {

enum Operation : std::uint32_t {
  wait_op = 0,
  wake_op = 1,
  requeue_op = 3,
  compare_requeue_op = 4,
  wake_and_change_op = 5,
  wait_bits_op = 9,
  wake_bits_op = 10
};
constexpr std::uint32_t private_flag = 128, realtime_flag = 256;
constexpr std::uint32_t owner_died = 0x40000000, waiters = 0x80000000, thread_mask = 0x3fffffff;
constexpr unsigned buckets = 256, robust_limit = 2048;

struct Bucket {
  SpinLock lock;
  Thread* first;
};
constinit Bucket table[buckets]{};

using Key = AddressSpace::WordKey;

Bucket& bucket_of(const Key& key) {
  return table[(key.address / 4 + key.space / 4096 * 31) % buckets];
}
Key key_of(const Thread& thread) { return {thread.futex_root, thread.futex_address}; }

// Under the bucket's lock. False: it is not there.
bool unlink(Bucket& bucket, Thread& thread) {
  for (Thread** at = &bucket.first; *at != nullptr; at = &(*at)->next_waiter)
    if (*at == &thread) {
      *at = thread.next_waiter;
      thread.next_waiter = nullptr;
      thread.futex_address = 0;
      return true;
    }
  return false;
}

// In the order in which they came.
void append(Bucket& bucket, Thread& thread) {
  Thread** at = &bucket.first;
  while (*at != nullptr) at = &(*at)->next_waiter;
  thread.next_waiter = nullptr;
  *at = &thread;
}

unsigned wake_in(Bucket& bucket, const Key& key, unsigned count, std::uint32_t bits) {
  unsigned woken = 0;
  for (Thread** at = &bucket.first; *at != nullptr && woken < count;) {
    Thread& one = **at;
    if (key_of(one) != key || (one.futex_bits & bits) == 0) {
      at = &one.next_waiter;
      continue;
    }
    *at = one.next_waiter;
    one.next_waiter = nullptr;
    one.futex_address = 0;
    ++woken;
    wake(one);
  }
  return woken;
}

// A thread leaves its queue, whichever that is by now: it may be requeued meanwhile.
bool leave_queue(Thread& thread) {
  for (;;) {
    std::uint64_t address = __atomic_load_n(&thread.futex_address, __ATOMIC_ACQUIRE);
    if (address == 0) return false;
    Bucket& bucket = bucket_of({thread.futex_root, address});
    Locked locked(bucket.lock);
    if (thread.futex_address == address) return unlink(bucket, thread);
  }
}

std::int64_t wait_for(Thread& thread, TrapFrame& frame, std::uint32_t value, std::uint32_t bits,
                      std::uint64_t deadline) {
  AddressSpace& space = *thread.process->space;
  const std::uint64_t address = frame.rdi;
  if (bits == 0) return -EINVAL;
  const Key key = space.key_of(address);
  Bucket& bucket = bucket_of(key);
  Locked locked(bucket.lock);
  std::uint32_t now = 0;
  if (!space.with_word<std::uint32_t>(address, false, [&](std::uint32_t* word) {
        now = __atomic_load_n(word, __ATOMIC_SEQ_CST);
      }))
    return address % 4 != 0 ? -EINVAL : -EFAULT;
  if (now != value) return -EAGAIN;
  thread.futex_root = key.space;
  thread.futex_address = key.address;
  thread.futex_bits = bits;
  thread.deadline_ns = deadline;
  frame.rax = 0;
  thread.state = ThreadState::waiting;
  append(bucket, thread);
  return pending;
}

std::int64_t requeue(Thread& thread, TrapFrame& frame, bool compare) {
  AddressSpace& space = *thread.process->space;
  const std::uint64_t from = frame.rdi, to = frame.r8;
  const auto wakes = static_cast<std::int32_t>(frame.rdx),
             moves = static_cast<std::int32_t>(frame.r10);
  if (wakes < 0 || moves < 0) return -EINVAL;
  const Key here = space.key_of(from), there = space.key_of(to);
  Bucket &first = bucket_of(here), &second = bucket_of(there);
  // In one order, so that two requeues cannot wait for each other.
  Locked one(&first < &second ? first.lock : second.lock);
  SpinLock unused;
  Locked two(&first == &second ? unused : (&first < &second ? second.lock : first.lock));
  std::uint32_t now = 0;
  if (!space.with_word<std::uint32_t>(
          from, false, [&](std::uint32_t* word) { now = __atomic_load_n(word, __ATOMIC_SEQ_CST); }))
    return -EFAULT;
  if (compare && now != static_cast<std::uint32_t>(frame.r9)) return -EAGAIN;
  unsigned woken = wake_in(first, here, static_cast<unsigned>(wakes), ~0U), moved = 0;
  for (Thread** at = &first.first; *at != nullptr && moved < static_cast<unsigned>(moves);) {
    Thread& waiter = **at;
    if (key_of(waiter) != here || here == there) {
      at = &waiter.next_waiter;
      continue;
    }
    *at = waiter.next_waiter;
    waiter.futex_root = there.space;
    __atomic_store_n(&waiter.futex_address, there.address, __ATOMIC_RELEASE);
    append(second, waiter);
    ++moved;
  }
  return woken + (compare ? moved : 0);
}

// FUTEX_WAKE_OP: changes the second word, wakes waiters of the first, and of the second if its old
// value says so.
std::int64_t wake_and_change(Thread& thread, TrapFrame& frame) {
  AddressSpace& space = *thread.process->space;
  const auto encoded = static_cast<std::uint32_t>(frame.r9);
  std::uint32_t operation = encoded >> 28U & 7U, comparison = encoded >> 24U & 15U;
  auto sign_extend = [](std::uint32_t value) {
    return static_cast<std::int32_t>(value << 20U) >> 20U;
  };
  std::int32_t argument = sign_extend(encoded >> 12U & 0xfffU),
               limit = sign_extend(encoded & 0xfffU);
  if ((encoded >> 31U) != 0) {
    if (argument < 0 || argument > 31) return -EINVAL;
    argument = static_cast<std::int32_t>(1U << static_cast<unsigned>(argument));
  }
  if (operation > 4 || comparison > 5) return -ENOSYS;
  std::int32_t old = 0;
  if (!space.with_word<std::int32_t>(frame.r8, true, [&](std::int32_t* word) {
        old = __atomic_load_n(word, __ATOMIC_RELAXED);
        std::int32_t changed;
        do {
          changed = operation == 0 ? argument
                    : operation == 1
                        ? static_cast<std::int32_t>(static_cast<std::uint32_t>(old) +
                                                    static_cast<std::uint32_t>(argument))
                    : operation == 2 ? old | argument
                    : operation == 3 ? old & ~argument
                                     : old ^ argument;
        } while (!__atomic_compare_exchange_n(word, &old, changed, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_RELAXED));
      }))
    return -EFAULT;
  bool second = comparison == 0   ? old == limit
                : comparison == 1 ? old != limit
                : comparison == 2 ? old < limit
                : comparison == 3 ? old <= limit
                : comparison == 4 ? old > limit
                                  : old >= limit;
  unsigned woken = futex_wake(space, frame.rdi, static_cast<unsigned>(frame.rdx));
  if (second) woken += futex_wake(space, frame.r8, static_cast<unsigned>(frame.r10));
  return woken;
}

// The deadline, in uptime, of a timespec. False: it cannot be read or makes no sense.
std::int64_t deadline_of(Thread& thread, std::uint64_t address, bool absolute, bool realtime,
                         std::uint64_t* out) {
  struct {
    std::int64_t seconds, ns;
  } time;
  *out = 0;
  if (address == 0) return 0;
  if (!thread.process->space->read(&time, address, sizeof time)) return -EFAULT;
  if (time.seconds < 0 || time.ns < 0 || time.ns >= 1'000'000'000) return -EINVAL;
  if (time.seconds > 1'000'000'000'000) return 0;
  std::uint64_t ns = static_cast<std::uint64_t>(time.seconds) * 1'000'000'000ULL +
                     static_cast<std::uint64_t>(time.ns);
  std::uint64_t now = !absolute ? 0 : realtime ? wall_ns() : monotonic_ns();
  *out = uptime_ns() + (ns > now ? ns - now : 0) + 1;
  return 0;
}

}  // namespace

unsigned futex_wake(AddressSpace& space, std::uint64_t address, unsigned count,
                    std::uint32_t bits) {
  const Key key = space.key_of(address);
  Bucket& bucket = bucket_of(key);
  Locked locked(bucket.lock);
  return wake_in(bucket, key, count, bits);
}

std::int64_t futex(Thread& thread, TrapFrame& frame) {
  const auto given = static_cast<std::uint32_t>(frame.rsi);
  const std::uint32_t operation = given & ~(private_flag | realtime_flag);
  const auto value = static_cast<std::uint32_t>(frame.rdx);
  std::uint64_t deadline = 0;
  switch (operation) {
    case wait_op:
    case wait_bits_op: {
      bool bits = operation == wait_bits_op;
      std::int64_t bad =
          deadline_of(thread, frame.r10, bits, (given & realtime_flag) != 0, &deadline);
      if (bad != 0) return bad;
      return wait_for(thread, frame, value, bits ? static_cast<std::uint32_t>(frame.r9) : ~0U,
                      deadline);
    }
    case wake_op:
    case wake_bits_op: {
      std::uint32_t bits = operation == wake_bits_op ? static_cast<std::uint32_t>(frame.r9) : ~0U;
      if (bits == 0 || frame.rdi % 4 != 0) return -EINVAL;
      return futex_wake(*thread.process->space, frame.rdi, value == 0 ? 1 : value, bits);
    }
    case requeue_op:
      return requeue(thread, frame, false);
    case compare_requeue_op:
      return requeue(thread, frame, true);
    case wake_and_change_op:
      return wake_and_change(thread, frame);
    default:
      return -ENOSYS;  // priority inheritance among them
  }
}

std::int64_t sleep_until(Thread& thread, TrapFrame& frame, std::uint64_t deadline_ns) {
  thread.futex_address = 0;
  thread.deadline_ns = deadline_ns;
  frame.rax = 0;
  thread.state = ThreadState::waiting;
  return pending;
}

bool futex_time_out(Thread& thread) {
  bool queued = thread.futex_address != 0;
  if (queued && !leave_queue(thread)) return false;
  if (queued) thread.frame.rax = static_cast<std::uint64_t>(-ETIMEDOUT);
  thread.deadline_ns = 0;
  thread.state = ThreadState::runnable;
  return true;
}

void interrupt_wait(Thread& thread) {
  if (thread.state != ThreadState::waiting || thread.child != nullptr) return;
  if (thread.futex_address != 0) {
    if (!leave_queue(thread)) return;
  } else if (thread.saved[0] != 0) {
    std::uint64_t now = uptime_ns(), left = thread.deadline_ns > now ? thread.deadline_ns - now : 0;
    const std::uint64_t remaining[2] = {left / 1'000'000'000, left % 1'000'000'000};
    (void)thread.process->space->write(thread.saved[0], remaining, sizeof remaining);
  }
  thread.frame.rax = static_cast<std::uint64_t>(-EINTR);
  thread.state = ThreadState::runnable;
}

void futex_forget(Thread& thread) { (void)leave_queue(thread); }

// What Linux does in exit_robust_list (Documentation/locking/robust-futexes).
void release_on_exit(Thread& thread) {
  AddressSpace& space = *thread.process->space;
  struct Head {
    std::uint64_t next;
    std::int64_t offset;
    std::uint64_t in_work;
  } head;
  auto release = [&](std::uint64_t entry) {
    std::uint64_t word = (entry & ~1ULL) + static_cast<std::uint64_t>(head.offset);
    bool wake_one = false;
    (void)space.with_word<std::uint32_t>(word, true, [&](std::uint32_t* value) {
      std::uint32_t old = __atomic_load_n(value, __ATOMIC_SEQ_CST);
      while ((old & thread_mask) == thread.call->thread) {
        wake_one = (old & waiters) != 0;
        if (__atomic_compare_exchange_n(value, &old, (old & waiters) | owner_died, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
          break;
      }
    });
    if (wake_one) (void)futex_wake(space, word, 1);
  };
  if (thread.robust_list != 0 && space.read(&head, thread.robust_list, sizeof head)) {
    std::uint64_t entry = head.next;
    for (unsigned i = 0; i < robust_limit && (entry & ~1ULL) != thread.robust_list; ++i) {
      std::uint64_t next;
      if (!space.read(&next, entry & ~1ULL, sizeof next)) break;
      if (entry != head.in_work) release(entry);
      entry = next;
    }
    if (head.in_work != 0) release(head.in_work);
  }
  if (thread.clear_child_tid == 0 || space.users() == 0) return;
  std::uint32_t none = 0;
  if (space.write(thread.clear_child_tid, &none, sizeof none))
    (void)futex_wake(space, thread.clear_child_tid, 1);
}

}  // namespace kitten
