// Memory of another process, taken without trusting that process.
#pragma once
#include <sys/types.h>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Memory that process `pid` has open as descriptor `number`, opened for reading and writing.
/// Anything but a memfd sealed against shrinking is refused before it is opened, looked into or
/// closed, since each of these may wait for ever: what stands behind a foreign descriptor may be a
/// file whose server is its owner. The check is the kernel's own mount that all memfds are on.
/// Errors: Code::invalid, it is no such memory; Code::denied, the caller may not look into that
/// process.
Result<Fd> open_memory_of(pid_t pid, int number);

}  // namespace hobbes
