// Who this kernel is: what it has kept of the boot parameters.
#pragma once
#include <cstdint>

namespace kitten {

struct Identity {
  std::uint64_t enclave;  ///< id in the NIS
  char name[128];
  char command_line[1024];
};
const Identity& identity();

}  // namespace kitten
