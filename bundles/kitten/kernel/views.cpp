#include "views.h"

#include "clock.h"
#include "commands.h"
#include "cores.h"
#include "cpu.h"
#include "exceptions.h"
#include "process.h"

namespace kitten {
namespace {

constexpr std::uint64_t forget_limit_ns = 60'000'000'000, ring_again_ns = 20'000'000;

hobbes_view& entry_of(unsigned view) { return view_table().view[view]; }

bool touched(const hobbes_view& entry, std::uint64_t begin, std::uint64_t end) {
  std::uint64_t first = begin / block_size, last = (end - 1) / block_size;
  if (last - first >= HOBBES_VIEW_GRANULES) last = first + HOBBES_VIEW_GRANULES - 1;
  for (std::uint64_t granule = first; granule <= last; ++granule) {
    std::uint64_t bit = granule % HOBBES_VIEW_GRANULES;
    if ((__atomic_load_n(&entry.touched[bit / 64], __ATOMIC_SEQ_CST) >> (bit % 64) & 1U) != 0)
      return true;
  }
  return false;
}

}  // namespace

void publish_view(unsigned view, std::uint64_t root, std::uint64_t calls) {
  hobbes_view& entry = entry_of(view);
  __atomic_store_n(&entry.calls, calls, __ATOMIC_RELEASE);
  __atomic_store_n(&entry.root, root, __ATOMIC_SEQ_CST);
  ring_view(view);
  // Its proxy may have ended before anybody could have been told.
  if (__atomic_load_n(&entry.state, __ATOMIC_SEQ_CST) == HOBBES_VIEW_GONE) {
    __atomic_or_fetch(&view_table().to_kernel[view / 64], 1ULL << (view % 64), __ATOMIC_SEQ_CST);
    ring_core(core(0));
  }
}

void withdraw_view(unsigned view) {
  hobbes_view& entry = entry_of(view);
  __atomic_store_n(&entry.root, std::uint64_t{0}, __ATOMIC_RELEASE);
  __atomic_store_n(&entry.calls, std::uint64_t{0}, __ATOMIC_RELEASE);
}

void ring_view(unsigned view) {
  __atomic_or_fetch(&view_table().to_linux[view / 64], 1ULL << (view % 64), __ATOMIC_SEQ_CST);
  ring_for_views();
}

void forget_in_view(unsigned view, std::uint64_t begin, std::uint64_t end) {
  hobbes_view& entry = entry_of(view);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // the entries are cleared; Linux marks, then looks
  if (!touched(entry, begin, end)) return;
  entry.zap_low = begin;
  entry.zap_high = end;
  std::uint32_t asked = entry.zap_asked + 1;
  __atomic_store_n(&entry.zap_asked, asked, __ATOMIC_RELEASE);
  std::uint64_t begin_ns = uptime_ns(), rung = 0;
  while (__atomic_load_n(&entry.zap_done, __ATOMIC_ACQUIRE) != asked &&
         __atomic_load_n(&entry.state, __ATOMIC_ACQUIRE) != HOBBES_VIEW_GONE) {
    std::uint64_t waited = uptime_ns() - begin_ns;
    if (rung == 0 || waited > rung * ring_again_ns) {
      ++rung;
      ring_view(view);
    }
    if (waited > forget_limit_ns) panic("Linux does not forget a program's memory");
    show_life();
    serve_while_waiting();
    cpu::relax();
  }
}

bool views_wait() {
  for (std::uint64_t& word : view_table().to_kernel)
    if (__atomic_load_n(&word, __ATOMIC_ACQUIRE) != 0) return true;
  return false;
}

void serve_views() {
  for (unsigned word = 0; word < HOBBES_VIEWS / 64; ++word) {
    std::uint64_t bits =
        __atomic_exchange_n(&view_table().to_kernel[word], std::uint64_t{0}, __ATOMIC_ACQ_REL);
    for (; bits != 0; bits &= bits - 1) {
      unsigned view = word * 64 + static_cast<unsigned>(__builtin_ctzll(bits));
      hobbes_view& entry = entry_of(view);
      std::uint32_t asked = __atomic_load_n(&entry.fill_asked, __ATOMIC_ACQUIRE);
      if (asked != entry.fill_done) {
        fill_for_proxy(view, entry.fill_address);
        __atomic_store_n(&entry.fill_done, asked, __ATOMIC_RELEASE);
        ring_view(view);
      }
      switch (__atomic_load_n(&entry.state, __ATOMIC_ACQUIRE)) {
        case HOBBES_VIEW_OPENED:
          if (entry.parent == 0 && entry.root == 0) begin_process(view);
          break;
        case HOBBES_VIEW_GONE:
          end_process(view);
          break;
        default:
          break;
      }
    }
  }
}

}  // namespace kitten
