// The places of the window: 4 GiB of guest-physical address space each, for memory of the node.
#pragma once
#include <set>

#include "core/fd.h"
#include "core/result.h"
#include "vmm/guest_memory_map.h"

namespace hobbes::vmm {

/// On the loop's thread. The first place is the mirror's and not given here.
class WindowPlaces {
 public:
  struct Place {
    unsigned slot = 0;
    void* host = nullptr;
    std::uint64_t size = 0;  ///< bytes, whole pages
    [[nodiscard]] Gpa address() const {
      return window_at + (slot - GuestMemoryMap::first_free_slot) * window_stride;
    }
  };
  explicit WindowPlaces(GuestMemoryMap& memory) : memory_(memory) {}

  /// Shows memory that is mapped at `host`, which is the place's from then on. Errors:
  /// Code::exhausted; what GuestMemoryMap::show tells. `host` stays the caller's then.
  Result<Place> show(void* host, std::uint64_t size, bool read_only, const std::string& attempt);
  /// The guest does not see it any more, and it is unmapped. On an error both stay.
  Result<void> hide(const Place& place);
  /// For the end of the machine: unmapped, and still the guest's.
  static void unmap(const Place& place);
  [[nodiscard]] GuestMemoryMap& memory() { return memory_; }

 private:
  GuestMemoryMap& memory_;
  std::set<unsigned> taken_;
};

}  // namespace hobbes::vmm
