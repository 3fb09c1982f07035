// What analysis and tool have in common: the simulation's segment, attached read-only and checked.
#pragma once
#include "frame.h"

namespace melt {

/// Attaches segment "melt" for the rest of the program. Prints why and aborts the job when it
/// cannot.
const Segment& attach_frames(const char* program);
/// Whether an announced frame is what the segment shows.
bool is_there(const Segment& segment, const Announcement& announcement);

}  // namespace melt
