#include "partition/placement.h"

#include <algorithm>

#include "core/size.h"

namespace hobbes {
namespace {

std::string holders(const std::vector<Lease>& leases, const Limits& limits) {
  std::string out;
  for (const Lease& lease : leases)
    if (!lease.cpus.empty())
      out += (out.empty() ? "" : ", ") + ("'" + lease.holder + "' holds " + lease.cpus.text());
  if (!limits.reserved.empty())
    out += (out.empty() ? "" : ", ") + ("the host keeps " + limits.reserved.text());
  return out.empty() ? "nothing is held" : out;
}

std::string quoted(const CpuSet& cpus) { return cpus.empty() ? "none" : cpus.text(); }

CpuSet candidates(const Inventory& inventory, const std::vector<Lease>& leases,
                  const Limits& limits, bool shared) {
  CpuSet cpus = inventory.usable - limits.reserved;
  if (!limits.permitted.empty()) cpus = cpus & limits.permitted;
  for (const Lease& lease : leases)
    if (!(shared && lease.shared)) cpus = cpus - lease.cpus;
  return cpus;
}

// Cores in groups by `key`, groups ordered as first met.
template <class Key>
std::vector<std::vector<const Core*>> grouped(const std::vector<const Core*>& cores, Key key) {
  std::vector<std::pair<unsigned, std::vector<const Core*>>> groups;
  for (const Core* core : cores) {
    auto at = std::find_if(groups.begin(), groups.end(),
                           [&](const auto& g) { return g.first == key(core); });
    if (at == groups.end()) at = groups.insert(groups.end(), {key(core), {}});
    at->second.push_back(core);
  }
  std::vector<std::vector<const Core*>> out;
  for (auto& group : groups) out.push_back(std::move(group.second));
  return out;
}

unsigned by_numa(const Core* core) { return core->numa; }
unsigned by_l3(const Core* core) { return core->l3; }

// The smallest group that holds `count` first (best fit), otherwise the largest ones.
std::vector<const Core*> pack(const std::vector<const Core*>& cores, unsigned count, bool by_node) {
  auto groups = by_node ? grouped(cores, by_numa) : grouped(cores, by_l3);
  std::stable_sort(groups.begin(), groups.end(), [&](const auto& a, const auto& b) {
    bool a_fits = a.size() >= count, b_fits = b.size() >= count;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a.size() < b.size() : a.size() > b.size();
  });
  std::vector<const Core*> out;
  for (const auto& group : groups) {
    auto wanted = static_cast<unsigned>(std::min<std::size_t>(count - out.size(), group.size()));
    if (wanted == 0) break;
    auto chosen = by_node ? pack(group, wanted, false)
                          : std::vector<const Core*>(group.begin(), group.begin() + wanted);
    out.insert(out.end(), chosen.begin(), chosen.end());
  }
  return out;
}

// One from each group in turn; inside a group, again one from each cache in turn.
std::vector<const Core*> interleave(std::vector<std::vector<const Core*>> groups) {
  std::vector<const Core*> out;
  for (std::size_t i = 0, added = 1; added > 0; ++i) {
    added = 0;
    for (const auto& group : groups) {
      if (i >= group.size()) continue;
      out.push_back(group[i]);
      ++added;
    }
  }
  return out;
}

std::vector<const Core*> spread(const std::vector<const Core*>& cores, unsigned count) {
  auto nodes = grouped(cores, by_numa);
  for (auto& node : nodes) node = interleave(grouped(node, by_l3));
  auto order = interleave(std::move(nodes));
  order.resize(std::min<std::size_t>(order.size(), count));
  return order;
}

Result<CpuSet> choose_list(const Inventory& inventory, const CpuSet& free, const CpuSet& wanted,
                           const std::vector<Lease>& leases, const Limits& limits) {
  CpuSet unknown = wanted - inventory.all_cpus();
  if (!unknown.empty())
    return Error{Code::invalid, "place cores " + wanted.text(),
                 "this node has no CPU " + unknown.text(), "it has " + inventory.all_cpus().text()};
  CpuSet taken = wanted - free;
  if (!taken.empty())
    return Error{Code::exhausted, "place cores " + wanted.text(), taken.text() + " are not free",
                 "free are " + quoted(free) + "; " + holders(leases, limits)};
  return wanted;
}

Result<CpuSet> choose_count(const Inventory& inventory, const CpuSet& free,
                            const CoreRequest& request, std::optional<unsigned> only_node,
                            const std::vector<Lease>& leases, const Limits& limits) {
  std::vector<const Core*> available;
  for (const Core& core : inventory.cores) {
    bool whole = (core.threads - free).empty() && !core.threads.empty();
    if (whole && (!only_node || core.numa == *only_node)) available.push_back(&core);
  }
  if (available.size() < request.count) {
    std::string where = only_node ? " on NUMA node " + std::to_string(*only_node) : "";
    return Error{Code::exhausted, "place " + std::to_string(request.count) + " core(s)" + where,
                 std::to_string(available.size()) + " whole core(s) free" + where + " (CPUs " +
                     quoted(free) + ")",
                 holders(leases, limits) + "; ask for fewer or delete an enclave"};
  }
  auto chosen = request.policy == Policy::spread ? spread(available, request.count)
                                                 : pack(available, request.count, true);
  CpuSet cpus;
  for (const Core* core : chosen) cpus = cpus | core->threads;
  return cpus;
}

Result<std::map<unsigned, std::uint64_t>> choose_memory(const Inventory& inventory,
                                                        const std::vector<Lease>& leases,
                                                        const Limits& limits,
                                                        const MemoryRequest& request,
                                                        const CpuSet& near, bool single) {
  std::map<unsigned, std::uint64_t> out;
  if (request.size == 0) return out;
  // Rounded up to whole pages of the size asked for.
  std::uint64_t size =
      (request.size + request.page_size - 1) / request.page_size * request.page_size;
  std::vector<std::pair<const NumaNode*, std::uint64_t>> order;  // preferred nodes first
  for (const NumaNode& node : inventory.nodes)
    if (!request.numa || node.id == *request.numa)
      order.emplace_back(&node, free_memory(node, leases, limits, request.detached));
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    bool a_near = near.has(a.first->id), b_near = near.has(b.first->id);
    if (a_near != b_near) return a_near;
    return (a.second >= size) > (b.second >= size);
  });
  std::uint64_t missing = size;
  for (const auto& [node, available] : order) {
    if (missing == 0) break;
    if (single && !near.has(node->id)) continue;
    std::uint64_t part = std::min(missing, available / request.page_size * request.page_size);
    if (part == 0) continue;
    out[node->id] = part;
    missing -= part;
  }
  if (missing == 0) return out;
  std::string free_text;
  for (const auto& [node, available] : order)
    free_text += (free_text.empty() ? "" : ", ") + format_size(available) + " on NUMA node " +
                 std::to_string(node->id);
  std::string held;
  for (const Lease& lease : leases) {
    std::uint64_t sum = 0;
    for (const auto& [node, bytes] : lease.memory) sum += bytes;
    if (sum > 0) held += "'" + lease.holder + "' holds " + format_size(sum) + "; ";
  }
  return Error{Code::exhausted, "place " + format_size(size) + " of memory",
               (request.detached ? "Linux can give up " : "free are ") + free_text,
               held + (request.detached ? "ask for less, or keep memory removable (movable_node) "
                                          "or from Linux (memmap=) at boot: docs/KMOD.md"
                                        : "ask for less or delete an enclave")};
}

}  // namespace

CpuSet Placement::nodes() const {
  CpuSet out;
  for (const auto& [node, bytes] : memory) out.add(node);
  return out.empty() ? cpu_nodes : out;
}

std::uint64_t free_memory(const NumaNode& node, const std::vector<Lease>& leases,
                          const Limits& limits, bool detached) {
  std::uint64_t online = node.memory - node.memory / 100 * limits.host_memory_percent,
                offline = node.detached, removable = node.removable;
  if (auto set_aside = limits.set_aside.find(node.id); set_aside != limits.set_aside.end())
    offline += set_aside->second;
  for (const Lease& lease : leases) {
    auto at = lease.memory.find(node.id);
    if (at == lease.memory.end()) continue;
    std::uint64_t from_offline = lease.detached ? std::min(offline, at->second) : 0;
    offline -= from_offline;
    online -= std::min(online, at->second - from_offline);
    if (lease.detached) removable -= std::min(removable, at->second - from_offline);
  }
  return detached ? offline + std::min(online, removable) : online;
}

CpuSet free_cpus(const Inventory& inventory, const std::vector<Lease>& leases,
                 const Limits& limits) {
  return candidates(inventory, leases, limits, false);
}

Result<Placement> place(const Inventory& inventory, const std::vector<Lease>& leases,
                        const Limits& limits, const CoreRequest& cores,
                        const MemoryRequest& memory) {
  for (const auto& numa : {cores.numa, memory.numa})
    if (numa && inventory.node(*numa) == nullptr)
      return Error{
          Code::invalid, "place on NUMA node " + std::to_string(*numa),
          "this node has no such NUMA node",
          "it has " + std::to_string(inventory.nodes.size()) + " of them; see `hobbes topology`"};

  CpuSet free = candidates(inventory, leases, limits, cores.shared);
  auto finish = [&](const CpuSet& cpus, bool single) -> Result<Placement> {
    Placement out;
    out.cpus = cpus;
    for (unsigned cpu : cpus.members())
      if (const Core* core = inventory.core_of(cpu)) out.cpu_nodes.add(core->numa);
    HOBBES_TRY(bytes, choose_memory(inventory, leases, limits, memory, out.cpu_nodes, single));
    out.memory = bytes;
    return out;
  };

  if (!cores.wanted()) return finish({}, false);
  if (cores.list) {
    HOBBES_TRY(cpus, choose_list(inventory, free, *cores.list, leases, limits));
    return finish(cpus, false);
  }
  if (cores.policy != Policy::local || cores.numa) {
    HOBBES_TRY(cpus, choose_count(inventory, free, cores, cores.numa, leases, limits));
    return finish(cpus, cores.policy == Policy::local);
  }
  // local without a node named: the first node that has everything, else the refusal of the best
  // one.
  std::optional<Error> refusal;
  for (const NumaNode& node : inventory.nodes) {
    if (node.cpus.empty()) continue;
    auto cpus = choose_count(inventory, free, cores, node.id, leases, limits);
    if (!cpus) {
      if (!refusal) refusal = std::move(cpus).error();
      continue;
    }
    auto whole = finish(*cpus, true);
    if (whole) return whole;
    refusal = std::move(whole).error();
  }
  return refusal.value_or(
      Error{Code::exhausted, "place cores", "no NUMA node has cores", "see `hobbes topology`"});
}

}  // namespace hobbes
