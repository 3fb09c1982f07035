#include "signal_catcher.h"

#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/ucontext.h>
#include <asm/unistd.h>

#include "system.h"
#include "thread.h"

extern "C" {
extern const char window_begin[], window_end[], not_begun[];
void restorer();
}

namespace proxy {
namespace {

struct KernelAction {
  std::uint64_t handler, flags, restorer, mask;
};
struct Wanted {
  std::uint64_t flags, mask;
} wanted[65];

std::uint64_t bit_of(unsigned number) { return 1ULL << (number - 1); }

// With every signal blocked.
void on_signal(int number, siginfo_t* info, ucontext* context) {
  const unsigned slot = this_slot();
  hobbes_call& frame = frame_of(slot);
  const Wanted& action = wanted[number];
  const std::uint32_t caught = __atomic_load_n(&frame.caught, __ATOMIC_RELAXED);
  // A queue that is full has this signal, or as many others before it: it is one of those that
  // merge.
  if (caught - __atomic_load_n(&frame.delivered, __ATOMIC_ACQUIRE) < HOBBES_CALL_SIGNALS) {
    hobbes_call_signal& to = frame.signal[caught % HOBBES_CALL_SIGNALS];
    to.number = static_cast<std::uint32_t>(number);
    const auto* from = reinterpret_cast<const std::uint8_t*>(info);
    for (unsigned i = 0; i < sizeof to.info; ++i) to.info[i] = from[i];
    __atomic_store_n(&frame.caught, caught + 1, __ATOMIC_SEQ_CST);
  }
  // While the program's handler runs, this is blocked as it would be on Linux.
  auto* mask = reinterpret_cast<std::uint64_t*>(&context->uc_sigmask);
  *mask |= action.mask;
  if ((action.flags & SA_NODEFER) == 0) *mask |= bit_of(static_cast<unsigned>(number));
  if ((action.flags & SA_RESETHAND) != 0) (void)set_action(static_cast<unsigned>(number), 0, 0, 0);
  auto& instruction = context->uc_mcontext.rip;
  if (instruction >= reinterpret_cast<std::uint64_t>(window_begin) &&
      instruction < reinterpret_cast<std::uint64_t>(window_end))
    instruction = reinterpret_cast<std::uint64_t>(not_begun);
  (void)call(__NR_ioctl, view, static_cast<long>(HOBBES_VIEW_RING), as_long(&frame.core));
}

}  // namespace

long set_action(unsigned number, std::uint64_t kind, std::uint64_t flags, std::uint64_t mask) {
  if (number == 0 || number > 64) return -22;
  wanted[number] = {flags, mask};
  KernelAction action{kind, SA_RESTORER | (flags & (SA_NOCLDSTOP | SA_NOCLDWAIT)),
                      reinterpret_cast<std::uint64_t>(restorer), 0};
  if (kind == 2) {
    action.handler = reinterpret_cast<std::uint64_t>(on_signal);
    action.flags |= SA_SIGINFO;
    action.mask = ~0ULL;
  }
  return call(__NR_rt_sigaction, number, as_long(&action), 0, 8);
}

}  // namespace proxy
