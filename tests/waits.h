// How long tests wait for what they ask of a channel, a segment or a doorbell.
#pragma once
#include <chrono>

namespace hobbes::test {

inline constexpr std::chrono::milliseconds no_wait(0);
inline constexpr std::chrono::milliseconds soon(10'000);  ///< longer than anything takes that comes

}  // namespace hobbes::test
