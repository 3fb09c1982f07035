// Choosing cores and memory: a pure function of what the node has, what is held and what is asked.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "topology/inventory.h"

namespace hobbes {

/// What one enclave holds.
struct Lease {
  std::string holder;  ///< for the text of a refusal
  CpuSet cpus;
  bool shared = false;
  bool detached = false;                     ///< its memory is taken from Linux altogether
  std::map<unsigned, std::uint64_t> memory;  ///< NUMA node -> bytes
};

/// What may be given out at all.
struct Limits {
  CpuSet reserved;                        ///< the host's own cores
  CpuSet permitted;                       ///< the caller's cpuset; empty: no further limit
  std::uint64_t host_memory_percent = 5;  ///< of every node, never leased
  /// NUMA node -> bytes that were kept from Linux when it booted: as good as offline.
  std::map<unsigned, std::uint64_t> set_aside;
};

struct Placement {
  CpuSet cpus;                               ///< empty when no cores were asked for
  std::map<unsigned, std::uint64_t> memory;  ///< NUMA node -> bytes
  [[nodiscard]] CpuSet nodes() const;  ///< where memory was taken, else every node next to the cpus
  CpuSet cpu_nodes;
};

/// Places a request or refuses it whole. Whole cores (all hardware threads) are given, except for
/// an explicit list.
///  - compact: the fewest last-level caches and NUMA nodes, next to each other;
///  - spread:  round robin over NUMA nodes, then caches: the most bandwidth per core;
///  - local:   cores and memory of one single NUMA node.
/// Errors: Code::exhausted, saying what is free and who holds the rest; Code::invalid for a CPU or
/// node that does not exist.
Result<Placement> place(const Inventory& inventory, const std::vector<Lease>& leases,
                        const Limits& limits, const CoreRequest& cores,
                        const MemoryRequest& memory);

/// Bytes of a node that may still be leased; `detached`: to an enclave that owns its memory, which
/// can also have what is offline for Linux.
std::uint64_t free_memory(const NumaNode& node, const std::vector<Lease>& leases,
                          const Limits& limits, bool detached = false);
/// CPUs that an exclusive request could get.
CpuSet free_cpus(const Inventory& inventory, const std::vector<Lease>& leases,
                 const Limits& limits);

}  // namespace hobbes
