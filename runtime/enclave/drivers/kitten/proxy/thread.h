// One thread of the proxy: it executes the calls of the program's thread with the same number.
#pragma once
#include "abi/forward.h"

namespace proxy {

/// Places of the proxy's own, above all of the program's.
constexpr std::uint64_t stacks = 0x7e9000000000, stack_size = 0x10000;
constexpr std::uint64_t frames = 0x7ea000000000;

inline hobbes_call& frame_of(unsigned slot) {
  return *reinterpret_cast<hobbes_call*>(frames + slot * 4096ULL);
}
/// The number of the thread whose stack this is on.
unsigned this_slot();

/// Descriptors that the program does not get to close.
extern int view, self;

/// Maps the view, once for each process and program.
void open_view();
/// Asks the kernel; its answer.
long request(hobbes_call& call, unsigned slot, std::uint64_t number, std::uint64_t a = 0,
             std::uint64_t b = 0, std::uint64_t c = 0, std::uint64_t d = 0);
/// Executes calls until the thread ends.
[[noreturn]] void serve(unsigned slot);
/// The process ends as it does by that signal.
[[noreturn]] void die_of(int signal);

}  // namespace proxy
