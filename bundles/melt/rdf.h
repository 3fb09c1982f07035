// The radial distribution function of one frame: how many neighbours at each distance, relative to
// a gas of the same density.
#pragma once
#include <array>
#include <cstdint>

#include "frame.h"

namespace melt {

struct Structure {
  std::array<double, rdf_bins> rdf{};
  std::uint64_t bonds = 0;  ///< pairs closer than bond_length
};

/// Minimum-image distances in the frame's periodic box; every box side must be at least 2 *
/// rdf_range.
Structure analyse(const Frame& frame, std::uint32_t atoms);

}  // namespace melt
