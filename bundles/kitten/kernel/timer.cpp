#include "timer.h"

#include <cerrno>

#include "apic.h"
#include "clock.h"
#include "cores.h"
#include "futex.h"
#include "process.h"

namespace kitten {

bool wake_sleepers(std::uint64_t now_ns) {
  bool woken = false;
  for (Thread* at = this_core().threads; at != nullptr; at = at->next)
    if (__atomic_load_n(&at->state, __ATOMIC_ACQUIRE) == ThreadState::waiting &&
        at->deadline_ns != 0 && at->deadline_ns <= now_ns)
      woken |= futex_time_out(*at);
  return woken;
}

void arm_timer_for_sleepers() {
  constexpr std::uint64_t look_again_ns = 50'000'000;
  std::uint64_t first = 0;
  for (Thread* at = this_core().threads; at != nullptr; at = at->next) {
    if (at->state == ThreadState::asking && at->moved &&
        (first == 0 || first > uptime_ns() + look_again_ns))
      first = uptime_ns() + look_again_ns;
    if (at->state == ThreadState::waiting && at->deadline_ns != 0 &&
        (first == 0 || at->deadline_ns < first))
      first = at->deadline_ns;
  }
  if (first == 0) return;
  std::uint64_t now = uptime_ns();
  apic::arm_timer(first > now ? first - now : 1, vector_timer);
}

}  // namespace kitten
