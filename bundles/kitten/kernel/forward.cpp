#include "forward.h"

#include "cores.h"
#include "views.h"

namespace kitten {
namespace {

ForwardCounts counts;
std::uint64_t by_number[counted_numbers];

void wake_proxy(const Thread& thread) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (__atomic_load_n(&thread.call->proxy_sleeps, __ATOMIC_SEQ_CST) == 0) return;
  __atomic_add_fetch(&counts.rings, 1U, __ATOMIC_RELAXED);
  ring_view(thread.process->view);
}

void post(Thread& thread, std::uint64_t number, const std::uint64_t (&arguments)[6]) {
  hobbes_call& call = *thread.call;
  call.number = number;
  for (unsigned i = 0; i < 6; ++i) call.argument[i] = arguments[i];
  call.core = core(thread.core).apic_id;
  call.kernel_sleeps = 1;
  __atomic_store_n(&call.state, std::uint32_t{HOBBES_CALL_ASKED}, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&counts.calls, 1U, __ATOMIC_RELAXED);
  if (std::uint64_t plain = number & ~HOBBES_FORWARD_ALWAYS; plain < counted_numbers)
    __atomic_add_fetch(&by_number[plain], 1U, __ATOMIC_RELAXED);
  wake_proxy(thread);
}

}  // namespace

std::int64_t as_answered(Thread&, TrapFrame&, std::int64_t answer) { return answer; }

std::int64_t ask(Thread& thread, std::uint64_t number, const std::uint64_t (&arguments)[6],
                 Then then) {
  thread.then = then;
  thread.state = ThreadState::asking;
  post(thread, number, arguments);
  return pending;
}

void tell(Thread& thread, std::uint64_t number, std::uint64_t argument) {
  post(thread, number, {argument});
}

bool proxy_spoke(const Thread& thread) {
  std::uint32_t state = __atomic_load_n(&thread.call->state, __ATOMIC_ACQUIRE);
  return state == HOBBES_CALL_ANSWERED || state == HOBBES_CALL_REQUEST;
}

std::int64_t take_answer(Thread& thread, TrapFrame& frame) {
  hobbes_call& call = *thread.call;
  if (__atomic_load_n(&call.state, __ATOMIC_ACQUIRE) == HOBBES_CALL_REQUEST) {
    serve_request(thread);
    return pending;
  }
  thread.moved = false;
  std::int64_t result = call.result;
  __atomic_store_n(&call.state, std::uint32_t{HOBBES_CALL_IDLE}, __ATOMIC_RELEASE);
  Then then = thread.then;
  if (then == nullptr) return pending;  // nothing was asked
  thread.then = nullptr;
  return then(thread, frame, result);
}

void grant(Thread& thread, std::int64_t result) {
  hobbes_call& call = *thread.call;
  call.core = core(thread.core).apic_id;
  call.kernel_sleeps = 1;
  call.result = result;
  __atomic_store_n(&call.state, std::uint32_t{HOBBES_CALL_GRANTED}, __ATOMIC_SEQ_CST);
  wake_proxy(thread);
}

ForwardCounts forward_counts() { return counts; }
const std::uint64_t* forwarded_by_number() { return by_number; }

}  // namespace kitten
