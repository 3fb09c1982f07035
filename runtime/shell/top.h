// `hobbes top`: what enclaves and the processes in them use now.
#pragma once
#include <chrono>

#include "core/result.h"
#include "shell/views.h"

namespace hobbes {

struct TopOptions {
  std::chrono::milliseconds interval{2000};
  int rounds = 0;         ///< how often to print; 0: until interrupted
  bool terminal = false;  ///< each round begins on a cleared screen
  Style style;
};

/// Prints, after each interval, what was used in it. Control groups say it of enclaves, their
/// kernels of co-kernels and virtual machines, /proc of processes; "-" is not known, or not the
/// caller's to know. Errors: Code::unavailable without a mirror.
Result<void> show_top(const TopOptions& options);

}  // namespace hobbes
