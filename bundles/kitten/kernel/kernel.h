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
/// The number behind a key such as "poll=" on the command line.
std::uint64_t number_in_command_line(const char* key, std::uint64_t otherwise);

}  // namespace kitten
