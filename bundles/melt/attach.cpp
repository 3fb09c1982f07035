#include "attach.h"

#include <mpi.h>

#include <cstdio>

#include "hobbes.h"

namespace melt {

const Segment& attach_frames(const char* program) {
  hobbes_segid id = hobbes_segment_search("melt");
  hobbes_apid access = id < 0 ? -1 : hobbes_segment_get(id, HOBBES_RDONLY);
  void* place = access < 0 ? nullptr : hobbes_segment_attach(access, 0, 0);
  const auto* segment = static_cast<const Segment*>(place);
  bool sound = segment != nullptr &&
               hobbes_segment_size(access) >= static_cast<int64_t>(sizeof(Segment)) &&
               segment->magic == frame_magic && segment->version == frame_version &&
               segment->atoms <= atom_limit;
  if (!sound) {
    std::fprintf(
        stderr, "%s: %s\n", program,
        segment == nullptr ? hobbes_error() : "segment \"melt\" is not a melt simulation's");
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  return *segment;
}

bool is_there(const Segment& segment, const Announcement& announcement) {
  const Frame& frame = segment.frame[announcement.number % 2];
  return frame.number == announcement.number && frame.step == announcement.step;
}

}  // namespace melt
