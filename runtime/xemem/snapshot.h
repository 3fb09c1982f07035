// Snapshots of segments (XASM): new, read-only segments that show one instant, while the maker of
// the old one goes on writing. docs/DATA.md.
#pragma once
#include <chrono>
#include <string>

#include "xemem/segment.h"

namespace hobbes {

struct SnapshotOptions {
  std::string name;    ///< of the new segment; "": one made from the old one's
  mode_t mode = 0400;  ///< who else may read it
  bool copy = false;   ///< copies without the maker's help: nobody may write meanwhile
  std::chrono::milliseconds timeout{10000};
};

/// Takes a snapshot of segment `handle`. The memory is the caller's, as large as the segment's, and
/// mapped read-only. Its content is that of one instant during the call. Errors: Code::unsupported
/// (its maker does not allow snapshots), Code::busy (somebody else may write to it, or takes one
/// until the time is over), Code::denied, Code::not_found, Code::timeout, Code::unavailable (its
/// maker has ended), and those of Segment::make.
Result<Segment> take_snapshot(std::uint64_t handle, const SnapshotOptions& options = {});

}  // namespace hobbes
