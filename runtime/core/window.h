// What a virtual machine is shown of its node's memory: places in its own physical memory, told by
// its agent. Document: docs/PALACIOS.md.
#pragma once
#include <cstdint>
#include <optional>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

struct Window {
  std::uint64_t address = 0, size = 0;  ///< guest-physical
};

/// Where the mirror is, when this is a guest that is shown one.
std::optional<Window> mirror_window();
/// Told by the agent to libhobbes. Replaces what was there.
Result<void> note_mirror_window(const Window& window);
/// Physical memory, to be mapped at a window's address. Errors: Code::denied, only root of the
/// guest may.
Result<Fd> open_physical_memory(bool writable);

}  // namespace hobbes
