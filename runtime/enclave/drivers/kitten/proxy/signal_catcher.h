// Signals that the program handles: a thread of the proxy takes them from Linux and writes them to
// its call frame, from where the co-kernel delivers them.
#pragma once
#include <cstdint>

namespace proxy {

/// As rt_sigaction of the program: `kind` 0 default, 1 ignore, 2 caught.
long set_action(unsigned number, std::uint64_t kind, std::uint64_t flags, std::uint64_t mask);

}  // namespace proxy
