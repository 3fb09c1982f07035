// What the node has: packages, cores with their hardware threads, NUMA nodes with their memory.
// Plain values, no hwloc, so that programs which only read an inventory do not link it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/cpu_set.h"
#include "core/json.h"

namespace hobbes {

struct Core {
  unsigned id = 0;       ///< position in Inventory::cores, in topology order
  unsigned package = 0;  ///< socket
  unsigned numa = 0;     ///< nearest NUMA node with memory
  unsigned l3 = 0;       ///< group of cores that share the last-level cache
  CpuSet threads;        ///< operating-system CPU numbers
};

struct NumaNode {
  unsigned id = 0;  ///< operating-system node number
  unsigned package = 0;
  std::uint64_t memory = 0;     ///< bytes that Linux has
  std::uint64_t removable = 0;  ///< of these, bytes that Linux can give up: blocks of movable zones
  std::uint64_t detached =
      0;  ///< bytes of blocks that are offline for Linux: only for kinds that own their memory
  CpuSet cpus;  ///< empty for a memory-only node
};

struct Cache {
  unsigned level = 0;
  std::uint64_t size = 0;  ///< bytes
  CpuSet cpus;
};

/// The node as it is at discovery; a value type.
struct Inventory {
  std::string name;  ///< model, for people
  unsigned packages = 0;
  std::vector<Core> cores;
  std::vector<NumaNode> nodes;
  std::vector<Cache> caches;  ///< levels 2 and above
  CpuSet usable;              ///< CPUs that are online and allowed to this process

  [[nodiscard]] CpuSet all_cpus() const;
  [[nodiscard]] const Core* core_of(unsigned cpu) const;
  [[nodiscard]] const NumaNode* node(unsigned id) const;
};

Json to_json(const Inventory& inventory);

}  // namespace hobbes
