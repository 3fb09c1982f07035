#include "topology/inventory.h"

namespace hobbes {

CpuSet Inventory::all_cpus() const {
  CpuSet all;
  for (const Core& core : cores) all = all | core.threads;
  return all;
}

const Core* Inventory::core_of(unsigned cpu) const {
  for (const Core& core : cores)
    if (core.threads.has(cpu)) return &core;
  return nullptr;
}

const NumaNode* Inventory::node(unsigned id) const {
  for (const NumaNode& node : nodes)
    if (node.id == id) return &node;
  return nullptr;
}

Json to_json(const Inventory& inventory) {
  Json cores = Json::array(), nodes = Json::array(), caches = Json::array();
  for (const Core& core : inventory.cores)
    cores.push_back({{"core", core.id},
                     {"package", core.package},
                     {"numa", core.numa},
                     {"l3", core.l3},
                     {"cpus", core.threads.text()}});
  for (const NumaNode& node : inventory.nodes)
    nodes.push_back({{"numa", node.id},
                     {"package", node.package},
                     {"memory", node.memory},
                     {"cpus", node.cpus.text()}});
  for (const Cache& cache : inventory.caches)
    caches.push_back({{"level", cache.level}, {"size", cache.size}, {"cpus", cache.cpus.text()}});
  return {{"name", inventory.name},
          {"packages", inventory.packages},
          {"usable", inventory.usable.text()},
          {"cores", cores},
          {"nodes", nodes},
          {"caches", caches}};
}

}  // namespace hobbes
