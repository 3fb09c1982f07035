#include "shared_memory.h"

#include "commands.h"
#include "lock.h"
#include "shared.h"
#include "views.h"

namespace kitten {
namespace {

SpinLock slots_lock;
std::uint16_t holders[HOBBES_KITTEN_SLOTS];

}  // namespace

void hold_shared(unsigned slot) {
  Locked locked(slots_lock);
  ++holders[slot];
}

void drop_shared(unsigned slot) {
  Locked locked(slots_lock);
  if (--holders[slot] != 0) return;
  __atomic_or_fetch(&status().released[slot / 64], 1ULL << (slot % 64), __ATOMIC_ACQ_REL);
  __atomic_store_n(&view_table().released, 1U, __ATOMIC_RELEASE);
  ring_for_views();
}

void release_unused(unsigned slot) {
  if (slot >= HOBBES_KITTEN_SLOTS) return;
  hold_shared(slot);
  drop_shared(slot);
}

}  // namespace kitten
