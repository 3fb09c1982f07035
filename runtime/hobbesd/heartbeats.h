// Signs of life: which enclaves have promised some and are silent.
#pragma once
#include <cstdint>
#include <vector>

#include "nis/nis.h"

namespace hobbes {

/// Part of the manager.
class Heartbeats {
 public:
  explicit Heartbeats(const Nis& nis) : nis_(nis) {}
  /// The running enclaves whose last sign of life is longer ago than their bundle's "heartbeat", at
  /// `now` (ns of CLOCK_BOOTTIME). Called at least once a second; after a longer pause of the
  /// caller's (it was just started or stopped, or the node was suspended) nobody counts as silent
  /// before his time has passed anew.
  std::vector<hobbes_record> silent(std::uint64_t now);

 private:
  const Nis& nis_;
  std::uint64_t last_check_ = 0, listening_since_ = 0;
};

}  // namespace hobbes
