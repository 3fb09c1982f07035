// Memory in the blocks by which Linux can give it up
// (Documentation/admin-guide/mm/memory-hotplug.rst).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"

namespace hobbes {

/// One block as sysfs shows it.
struct MemoryBlock {
  unsigned number = 0, node = 0;
  bool online = false;
  bool movable =
      false;  ///< in a movable zone, or free to be put in one: it can be offlined in practice
};

/// Every block of this node. `root`: "/sys" or a copy of it for tests. Empty where memory cannot be
/// hotplugged.
std::vector<MemoryBlock> memory_blocks(const Files& files, const std::string& root = "/sys");
/// Bytes of one block, 0: unknown.
std::uint64_t memory_block_size(const Files& files, const std::string& root = "/sys");

}  // namespace hobbes
