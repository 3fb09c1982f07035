// A program that makes, attaches and watches segments by the C interface (tests/programs).
#pragma once
#include <string>

namespace hobbes::test {

inline const std::string segment_peer = HOBBES_BUILD_DIR "/tests/programs/segment-peer";

}  // namespace hobbes::test
