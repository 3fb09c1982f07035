// Two streams joined into one.
#pragma once
#include "core/fd.h"

namespace hobbes {

/// Carries bytes both ways until one of the two has ended, what it had sent has arrived, or 10 s
/// have passed in which the other one did not take it. Blocks; shutdown(2) of either ends it.
/// Both are stream sockets, and become non-blocking.
void relay_bytes(const Fd& one, const Fd& other);

}  // namespace hobbes
