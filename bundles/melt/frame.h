// What the melt simulation shows to the programs that attach its segment "melt": two frames,
// written in turn. Version 1.
#pragma once
#include <cstdint>

namespace melt {

constexpr std::uint32_t frame_magic = 0x746c656d;  // "melt"
constexpr std::uint32_t frame_version = 1;
constexpr std::uint32_t atom_limit = 100000;

struct Frame {
  std::uint64_t number;  ///< 0, 1, 2, ...
  std::int64_t step;
  double low[3], high[3];  ///< the periodic box; positions may lie slightly outside
  double position[atom_limit][3];
};

struct Segment {
  std::uint32_t magic, version;
  std::uint32_t atoms;
  std::uint32_t pad;
  Frame frame[2];  ///< frame n is in frame[n % 2] until frame n+2 is announced
};
static_assert(sizeof(Frame) == 64 + 24 * atom_limit);

/// Sent over MPI_COMM_UNIVERSE from rank 0 of the simulation to analysis and tool; they answer with
/// an acknowledgement when they no longer need the frame.
struct Announcement {
  std::uint64_t number;
  std::int64_t step, last_step;
  std::int32_t last;  ///< 1: nothing follows
  std::int32_t pad;
};

enum Tag { announcement_tag = 1, acknowledgement_tag = 2, result_tag = 3 };

constexpr int rdf_bins = 100;
constexpr double rdf_range =
    2.5;  ///< sigma; the force's cut-off, as far as LAMMPS's own compute rdf looks
constexpr double bond_length = 1.5;  ///< sigma

/// Sent from analysis to tool for every frame.
struct Result {
  std::uint64_t number;
  std::int64_t step;
  std::uint64_t bonds;
  double rdf[rdf_bins];
};

}  // namespace melt
