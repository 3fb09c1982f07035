// What this kernel shares with Linux: the first 2 MiB of its memory (abi/kitten.h).
#pragma once
#include "abi/kitten.h"
#include "ipc/ring.h"
#include "layout.h"

extern "C" std::uint32_t alone;  // 1: booted without Linux, see entry.S

namespace kitten {

inline hobbes_status& status() { return *reinterpret_cast<hobbes_status*>(SHARED_ADDRESS); }
/// The boot parameters as Linux wrote them; validated once by `main.cpp`, which keeps what is
/// needed.
inline hobbes_boot& boot_parameters() {
  return *reinterpret_cast<hobbes_boot*>(SHARED_ADDRESS + HOBBES_BOOT_OFFSET);
}
inline void* shared_at(std::uint64_t offset) {
  return reinterpret_cast<void*>(SHARED_ADDRESS + offset);
}

}  // namespace kitten
