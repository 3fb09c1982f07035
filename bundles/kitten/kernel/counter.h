// What this kernel does with segments until it loads programs: `count=N` on its command line adds 1
// to the first word of each writable segment N times, once that is shown to it. Core 0 only.
#pragma once

namespace kitten {

/// The window has all of a writable segment now, or has it no more.
void begin_counting(unsigned window);
void stop_counting(unsigned window);
/// Does a slice of it, so that commands are answered meanwhile. False: there is nothing to count.
bool count();

}  // namespace kitten
