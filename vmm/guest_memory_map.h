// Showing memory of this process to the guest.
#pragma once
#include <cstdint>

#include "core/result.h"
#include "vmm/layout.h"

namespace hobbes::vmm {

/// The part of a machine that shows memory of this process to its guest.
class GuestMemoryMap {
 public:
  virtual ~GuestMemoryMap() = default;
  /// The slot number is the caller's to keep. `host` must stay mapped.
  virtual Result<void> show(unsigned slot, Gpa address, std::uint64_t size, void* host,
                            bool read_only) = 0;
  virtual Result<void> hide(unsigned slot) = 0;
  static constexpr unsigned first_free_slot = 8, slot_limit = 64;
  static constexpr unsigned first_dax_slot = slot_limit;  ///< one per shared folder
  static_assert(window_at + (slot_limit - first_free_slot) * window_stride <= dax_at);
};

}  // namespace hobbes::vmm
