// Some file systems want the struct pages of a caller's buffer (direct transfers, 9p), which the
// co-kernel's memory has not: Linux then answers EFAULT. Such calls go through a buffer of the
// proxy's.
#pragma once
#include <cstdint>

#include "abi/forward.h"

namespace proxy {

/// Whether a call that was answered with EFAULT may be tried with `bounce`.
bool can_bounce(std::uint64_t number);
/// The call with a buffer of the proxy's, perhaps with fewer bytes than asked for. EFAULT where the
/// program's buffer is not there.
long bounce(const hobbes_call& frame);
/// As pread64 into the program's memory.
long read_bounced(long file, void* to, std::uint64_t size, std::uint64_t offset);
/// Copies between the proxy's and the program's memory; Linux finds out what is not there. 0 or
/// EFAULT.
long copy(void* to, const void* from, std::uint64_t size);

}  // namespace proxy
