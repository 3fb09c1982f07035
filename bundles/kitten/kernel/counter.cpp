#include "counter.h"

#include "abi/kitten.h"
#include "console.h"
#include "kernel.h"
#include "memory.h"

namespace kitten {
namespace {

constexpr std::uint64_t limit = 1'000'000'000, slice = 100'000;

std::uint64_t to_count[HOBBES_WINDOWS];

std::uint64_t times() {
  std::uint64_t wanted = number_in_command_line("count=", 0);
  return wanted < limit ? wanted : limit;
}

}  // namespace

void begin_counting(unsigned window) { to_count[window] = times(); }
void stop_counting(unsigned window) { to_count[window] = 0; }

bool count() {
  for (unsigned window = HOBBES_WINDOW_SEGMENT; window < HOBBES_WINDOWS; ++window) {
    std::uint64_t& left = to_count[window];
    if (left == 0) continue;
    std::uint64_t now = 0;
    for (std::uint64_t i = 0; i < slice && left != 0; ++i, --left)
      now = __atomic_add_fetch(window_at(window), 1, __ATOMIC_SEQ_CST);
    if (left == 0)
      print(Line() << "counted " << times() << " times in segment window " << window
                   << ", the number is " << now);
    return true;
  }
  return false;
}

}  // namespace kitten
