// The analysis: for every frame the radial distribution function and the bonds, read in place from
// the simulation's memory.
#include <mpi.h>

#include <algorithm>
#include <cstdio>

#include "attach.h"
#include "rdf.h"
#include "remora.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  MPI_Barrier(MPI_COMM_UNIVERSE);  // the segment is there
  const melt::Segment& segment = melt::attach_frames("melt-analysis");
  int number = 0, simulation = 0, tool = 0, ranks = 0;
  if (remora_app("simulation", &number, &simulation, &ranks) != 0) MPI_Abort(MPI_COMM_WORLD, 1);
  bool with_tool = remora_app("tool", &number, &tool, &ranks) == 0;

  for (bool last = false; !last;) {
    melt::Announcement announcement{};
    MPI_Recv(&announcement, sizeof announcement, MPI_BYTE, simulation, melt::announcement_tag,
             MPI_COMM_UNIVERSE, MPI_STATUS_IGNORE);
    last = announcement.last == 1;
    if (!melt::is_there(segment, announcement)) {
      std::fprintf(stderr, "melt-analysis: frame %llu was overwritten\n",
                   static_cast<unsigned long long>(announcement.number));
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
    melt::Structure structure =
        melt::analyse(segment.frame[announcement.number % 2], segment.atoms);
    MPI_Send(&announcement.number, 1, MPI_UINT64_T, simulation, melt::acknowledgement_tag,
             MPI_COMM_UNIVERSE);
    melt::Result result{announcement.number, announcement.step, structure.bonds, {}};
    std::copy(structure.rdf.begin(), structure.rdf.end(), result.rdf);
    if (with_tool)
      MPI_Send(&result, sizeof result, MPI_BYTE, tool, melt::result_tag, MPI_COMM_UNIVERSE);
    if (last) {
      auto peak = std::max_element(structure.rdf.begin(), structure.rdf.end());
      double r = (static_cast<double>(peak - structure.rdf.begin()) + 0.5) * melt::rdf_range /
                 melt::rdf_bins;
      std::printf(
          "%llu frames analysed; at the last step the first peak is at r = %.3f sigma, height "
          "%.2f, %.2f bonds per atom\n",
          static_cast<unsigned long long>(announcement.number + 1), r, *peak,
          2.0 * static_cast<double>(structure.bonds) / segment.atoms);
    }
  }
  MPI_Finalize();
  return 0;
}
