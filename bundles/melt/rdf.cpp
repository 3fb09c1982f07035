#include "rdf.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace melt {

// Cells at least rdf_range wide, so that all neighbours of an atom are in its own and the adjacent
// cells.
Structure analyse(const Frame& frame, std::uint32_t atoms) {
  double side[3];
  int cells[3];
  for (int d = 0; d < 3; ++d) {
    side[d] = frame.high[d] - frame.low[d];
    cells[d] = std::max(1, static_cast<int>(side[d] / rdf_range));
  }
  auto cell_at = [&](const double* position, int d) {
    double inside = (position[d] - frame.low[d]) / side[d];
    inside -= std::floor(inside);  // atoms drift out of the box between two neighbour list builds
    return std::min(cells[d] - 1, static_cast<int>(inside * cells[d]));
  };
  auto index = [&](int x, int y, int z) {
    return static_cast<std::size_t>((z * cells[1] + y) * cells[0] + x);
  };
  std::vector<std::vector<std::uint32_t>> members(static_cast<std::size_t>(cells[0]) *
                                                  static_cast<std::size_t>(cells[1]) *
                                                  static_cast<std::size_t>(cells[2]));
  for (std::uint32_t i = 0; i < atoms; ++i) {
    const double* p = frame.position[i];
    members[index(cell_at(p, 0), cell_at(p, 1), cell_at(p, 2))].push_back(i);
  }
  std::array<std::uint64_t, rdf_bins> pairs{};
  Structure out;
  auto count = [&](std::uint32_t i, std::uint32_t j) {
    double squared = 0;
    for (int d = 0; d < 3; ++d) {
      double distance = frame.position[i][d] - frame.position[j][d];
      distance -= side[d] * std::nearbyint(distance / side[d]);
      squared += distance * distance;
    }
    if (squared >= rdf_range * rdf_range) return;
    double r = std::sqrt(squared);
    ++pairs[std::min<std::size_t>(rdf_bins - 1,
                                  static_cast<std::size_t>(r / rdf_range * rdf_bins))];
    if (r < bond_length) ++out.bonds;
  };
  for (int z = 0; z < cells[2]; ++z)
    for (int y = 0; y < cells[1]; ++y)
      for (int x = 0; x < cells[0]; ++x) {
        std::vector<std::size_t>
            near;  // each once, also where the box is fewer than three cells wide
        for (int dz = -1; dz <= 1; ++dz)
          for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx)
              near.push_back(index((x + dx + cells[0]) % cells[0], (y + dy + cells[1]) % cells[1],
                                   (z + dz + cells[2]) % cells[2]));
        std::sort(near.begin(), near.end());
        near.erase(std::unique(near.begin(), near.end()), near.end());
        for (std::uint32_t i : members[index(x, y, z)])
          for (std::size_t cell : near)
            for (std::uint32_t j : members[cell])
              if (i < j) count(i, j);
      }
  double volume = side[0] * side[1] * side[2];
  double width = rdf_range / rdf_bins;
  for (int bin = 0; bin < rdf_bins; ++bin) {
    double inner = bin * width, outer = inner + width;
    double shell = 4.0 / 3.0 * std::numbers::pi * (outer * outer * outer - inner * inner * inner);
    double ideal = static_cast<double>(atoms) * (atoms - 1.0) / 2.0 * shell / volume;
    out.rdf[static_cast<std::size_t>(bin)] =
        static_cast<double>(pairs[static_cast<std::size_t>(bin)]) / ideal;
  }
  return out;
}

}  // namespace melt
