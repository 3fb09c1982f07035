#include "topology/discover.h"

#include <hwloc.h>

#include <map>
#include <memory>

#include "core/file.h"
#include "topology/memory_blocks.h"

namespace hobbes {
namespace {

using Topology = std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)>;

CpuSet cpus_of(hwloc_const_bitmap_t bitmap) {
  CpuSet out;
  if (bitmap == nullptr) return out;
  for (int cpu = hwloc_bitmap_first(bitmap); cpu >= 0 && cpu < static_cast<int>(CpuSet::capacity);
       cpu = hwloc_bitmap_next(bitmap, cpu))
    out.add(static_cast<unsigned>(cpu));
  return out;
}

unsigned package_of(hwloc_topology_t topology, hwloc_obj_t object) {
  hwloc_obj_t package = object->type == HWLOC_OBJ_PACKAGE
                            ? object
                            : hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_PACKAGE, object);
  return package != nullptr ? package->logical_index : 0;
}

// The nearest node with memory: the first local one, since a memory-only node (HBM, CXL) comes
// after its DRAM sibling.
unsigned numa_of(hwloc_obj_t core) {
  return core->nodeset != nullptr && hwloc_bitmap_first(core->nodeset) >= 0
             ? static_cast<unsigned>(hwloc_bitmap_first(core->nodeset))
             : 0;
}

std::string model_of(hwloc_topology_t topology) {
  hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
  const char* model =
      package != nullptr ? hwloc_obj_get_info_by_name(package, "CPUModel") : nullptr;
  return model != nullptr ? model : "unnamed processor";
}

}  // namespace

Result<Inventory> discover(const std::string& source) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return os_error("discover the topology", errno);
  Topology topology(raw, &hwloc_topology_destroy);
  auto bad = [&](const char* why) {
    return Error{Code::invalid, "discover the topology from '" + source + "'", why,
                 "use synthetic:<hwloc synthetic description> or xml:<file>"};
  };
  if (source.rfind("synthetic:", 0) == 0) {
    if (hwloc_topology_set_synthetic(raw, source.c_str() + 10) != 0)
      return bad("hwloc does not understand it");
  } else if (source.rfind("xml:", 0) == 0) {
    if (hwloc_topology_set_xml(raw, source.c_str() + 4) != 0)
      return bad("hwloc cannot read the file");
  } else if (!source.empty()) {
    return bad("the source is unknown");
  }
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  if (hwloc_topology_load(raw) != 0) return bad("hwloc cannot load it");

  Inventory out;
  out.name = model_of(raw);
  out.packages =
      static_cast<unsigned>(std::max(1, hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_PACKAGE)));
  out.usable = cpus_of(hwloc_topology_get_allowed_cpuset(raw));
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_CORE, core)) != nullptr;) {
    hwloc_obj_t l3 = hwloc_get_ancestor_obj_by_type(raw, HWLOC_OBJ_L3CACHE, core);
    out.cores.push_back({static_cast<unsigned>(out.cores.size()), package_of(raw, core),
                         numa_of(core), l3 != nullptr ? l3->logical_index : package_of(raw, core),
                         cpus_of(core->cpuset)});
  }
  if (out.cores.empty()) {  // some virtual machines and synthetic descriptions have no core level
    for (hwloc_obj_t pu = nullptr;
         (pu = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_PU, pu)) != nullptr;)
      out.cores.push_back({static_cast<unsigned>(out.cores.size()), package_of(raw, pu),
                           numa_of(pu), package_of(raw, pu), cpus_of(pu->cpuset)});
  }
  if (out.cores.empty())
    return Error{Code::unavailable, "discover the topology", "hwloc reports no cores",
                 "check `lstopo`"};
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    NumaNode found{
        node->os_index, package_of(raw, node), node->attr->numanode.local_memory, 0, 0, {}};
    for (const Core& core : out.cores)
      if (core.numa == found.id) found.cpus = found.cpus | core.threads;
    out.nodes.push_back(found);
  }
  if (source.empty())
    for (const MemoryBlock& block : memory_blocks(Files::system()))
      for (NumaNode& node : out.nodes)
        if (node.id == block.node && (!block.online || block.movable))
          (block.online ? node.removable : node.detached) += memory_block_size(Files::system());
  for (hwloc_obj_type_t type : {HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE})
    for (hwloc_obj_t cache = nullptr;
         (cache = hwloc_get_next_obj_by_type(raw, type, cache)) != nullptr;)
      out.caches.push_back(
          {cache->attr->cache.depth, cache->attr->cache.size, cpus_of(cache->cpuset)});
  return out;
}

}  // namespace hobbes
