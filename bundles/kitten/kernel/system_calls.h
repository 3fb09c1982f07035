// The system calls of programs: those served here, and all others by the proxy.
#pragma once
#include "process.h"

namespace kitten {

/// 0: forwarded. Else what this kernel does itself.
bool served_here(std::uint64_t number);

}  // namespace kitten
