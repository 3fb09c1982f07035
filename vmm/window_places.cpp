#include "vmm/window_places.h"

#include <sys/mman.h>

namespace hobbes::vmm {

Result<WindowPlaces::Place> WindowPlaces::show(void* host, std::uint64_t size, bool read_only,
                                               const std::string& attempt) {
  unsigned slot = GuestMemoryMap::first_free_slot + 1;
  while (taken_.count(slot) != 0) ++slot;
  if (slot >= GuestMemoryMap::slot_limit)
    return Error{Code::exhausted, attempt, "too much memory of the node is shown to the guest",
                 "let programs of the guest end, or give up segments and channels"};
  if (size > window_stride) return Error{Code::exhausted, attempt, "it is larger than 4 GiB", ""};
  const Place place{slot, host, size};
  HOBBES_CHECK(memory_.show(slot, place.address(), size, host, read_only));
  taken_.insert(slot);
  return place;
}

Result<void> WindowPlaces::hide(const Place& place) {
  HOBBES_CHECK(memory_.hide(place.slot));
  taken_.erase(place.slot);
  unmap(place);
  return {};
}

void WindowPlaces::unmap(const Place& place) { ::munmap(place.host, place.size); }

}  // namespace hobbes::vmm
