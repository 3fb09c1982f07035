#include "hobbesd/leases.h"

#include <algorithm>

#include "bundle/bundle.h"
#include "enclave/describe.h"
#include "hobbesd/enclave_document.h"
#include "partition/module.h"

namespace hobbes {
namespace {

CoreRequest core_request(const Json& json) {
  CoreRequest out;
  out.count = static_cast<unsigned>(std::max<std::int64_t>(0, number_at(json, "count")));
  if (json.contains("list"))
    if (auto list = CpuSet::parse(text_at(json, "list"))) out.list = *list;
  if (json.contains("numa")) out.numa = static_cast<unsigned>(number_at(json, "numa"));
  std::string policy = text_at(json, "policy", "compact");
  out.policy = policy == "spread"  ? Policy::spread
               : policy == "local" ? Policy::local
                                   : Policy::compact;
  out.shared = json.value("shared", false);
  return out;
}

MemoryRequest memory_request(const Json& json) {
  MemoryRequest out;
  out.size = static_cast<std::uint64_t>(std::max<std::int64_t>(0, number_at(json, "size")));
  if (json.contains("numa")) out.numa = static_cast<unsigned>(number_at(json, "numa"));
  std::int64_t page = number_at(json, "pageSize", 4096);
  out.page_size = page == 2 << 20 || page == 1 << 30 ? static_cast<std::uint64_t>(page) : 4096U;
  return out;
}

}  // namespace

bool owns_memory(const hobbes_record& record) {
  return record.body.enclave.kind == static_cast<std::uint32_t>(Kind::kitten);
}

Json to_json(const Placement& placement) {
  Json memory = Json::object();
  std::uint64_t total = 0;
  for (const auto& [node, bytes] : placement.memory) {
    memory[std::to_string(node)] = bytes;
    total += bytes;
  }
  return {{"cpus", placement.cpus.text()},
          {"mems", placement.nodes().text()},
          {"memory", memory},
          {"memoryTotal", total}};
}

void set_placement(hobbes_enclave& body, const Placement& placement) {
  set_cpus(body.cpus, placement.cpus);
  std::fill(std::begin(body.memory), std::end(body.memory), 0);
  for (const auto& [node, bytes] : placement.memory)
    if (node < HOBBES_NUMA_NODES) body.memory[node] = bytes;
}

Placement placement_of(const hobbes_enclave& body) {
  Placement out;
  out.cpus = cpus_of(body.cpus);
  for (unsigned node = 0; node < HOBBES_NUMA_NODES; ++node)
    if (body.memory[node] != 0) out.memory[node] = body.memory[node];
  return out;
}

std::vector<Lease> Leases::held(std::uint64_t except) const {
  std::vector<Lease> out;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE)) {
    if (record->id == except || has_ended(*record)) continue;
    Lease lease{record->name,
                cpus_of(record->body.enclave.cpus),
                (record->body.enclave.flags & 1U) != 0,
                owns_memory(*record),
                {}};
    for (unsigned node = 0; node < HOBBES_NUMA_NODES; ++node)
      if (record->body.enclave.memory[node] != 0)
        lease.memory[node] = record->body.enclave.memory[node];
    out.push_back(std::move(lease));
  }
  return out;
}

Limits Leases::limits_for(const Session& session, bool detached) const {
  Limits out;
  out.reserved = policies_.reserved;
  if (detached) out.reserved.add(0);  // Linux cannot give up its first CPU
  // Cores whose co-kernel would not stop are nobody's any more.
  if (auto report = ModuleReport::read()) {
    out.reserved = out.reserved | report->quarantined;
    for (const auto& chunk : report->chunks)
      if (chunk.reserved) out.set_aside[chunk.node] += chunk.size;
  }
  // A batch job's processes are confined to its cpuset: what they ask for comes from there.
  if (!session.allowed.empty() && !(inventory_.usable - session.allowed).empty())
    out.permitted = session.allowed & inventory_.usable;
  return out;
}

Result<Placement> Leases::placement_for(const Session& session, const Json& request,
                                        std::uint64_t except,
                                        const std::vector<Lease>& planned) const {
  CoreRequest cores = core_request(request.value("cores", Json::object()));
  MemoryRequest memory = memory_request(request.value("memory", Json::object()));
  const hobbes_record* changed = except != 0 ? nis_.by_id(except) : nullptr;
  memory.detached = changed != nullptr ? owns_memory(*changed)
                                       : kind_named(text_at(request, "kind")) == Kind::kitten;
  std::vector<Lease> all = held(except);
  all.insert(all.end(), planned.begin(), planned.end());
  HOBBES_TRY(placement,
             place(inventory_, all, limits_for(session, memory.detached), cores, memory));
  HOBBES_CHECK(check_quota(session.peer.uid, placement, except, planned));
  return std::move(placement);
}

Result<void> Leases::check_quota(uid_t uid, const Placement& placement, std::uint64_t except,
                                 const std::vector<Lease>& planned) const {
  Quota quota = policies_.of(uid);
  std::uint64_t cores = placement.cpus.count(), memory = 0, enclaves = 1 + planned.size();
  for (const Lease& lease : planned) {
    cores += lease.cpus.count();
    for (const auto& [node, bytes] : lease.memory) memory += bytes;
  }
  for (const auto& [node, bytes] : placement.memory) memory += bytes;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE)) {
    if (record->uid != uid || record->id == except) continue;
    ++enclaves;
    if (has_ended(*record)) continue;
    cores += cpus_of(record->body.enclave.cpus).count();
    for (std::uint64_t bytes : record->body.enclave.memory) memory += bytes;
  }
  auto refuse = [&](const std::string& what, std::uint64_t would, std::uint64_t limit) {
    return Error{Code::exhausted, "grant resources to user " + std::to_string(uid),
                 "it would hold " + std::to_string(would) + " " + what + ", the quota is " +
                     std::to_string(limit),
                 "delete an enclave, or ask the administrator to raise the quota in "
                 "/etc/hobbes/hobbesd.json"};
  };
  if (enclaves > quota.enclaves) return refuse("enclaves", enclaves, quota.enclaves);
  if (cores > quota.cores) return refuse("CPUs", cores, quota.cores);
  if (memory > quota.memory) return refuse("bytes of memory", memory, quota.memory);
  return {};
}

Result<Reply> Leases::plan(const Session& session, const Json& request) const {
  if (!request.contains("plans")) {
    HOBBES_TRY(placement, placement_for(session, request, 0, {}));
    return Reply{to_json(placement), {}};
  }
  // Several that are to be there at once: each has what those before it leave.
  constexpr std::size_t most = 1024;
  if (!request["plans"].is_array() || request["plans"].size() > most)
    return Error{Code::invalid, "plan enclaves",
                 "\"plans\" is not a list of at most " + std::to_string(most),
                 "see docs/CONTROL.md"};
  std::vector<Lease> planned;
  Json placements = Json::array();
  for (const Json& one : request["plans"]) {
    std::string id = one.is_object() ? text_at(one, "id") : "";
    auto kind = one.is_object() ? kind_named(text_at(one, "kind")) : std::nullopt;
    if (!kind)
      return Error{Code::invalid, "plan enclave '" + id + "'", "the kind is unknown",
                   "see docs/CONTROL.md"};
    auto placement = placement_for(session, one, 0, planned);
    if (!placement)
      return std::move(placement.error())
          .within("plan enclave '" + id + "' beside " + std::to_string(planned.size()) + " others");
    bool shared = one.value("cores", Json::object()).value("shared", false);
    planned.push_back({id, placement->cpus, shared, *kind == Kind::kitten, placement->memory});
    placements.push_back(to_json(*placement));
  }
  return Reply{Json{{"placements", placements}}, {}};
}

// Core and NUMA records follow the lease, so that a reader of the mirror sees who owns what.
void Leases::show(Transition& transition, const hobbes_record& enclave, bool held) const {
  CpuSet cpus = cpus_of(enclave.body.enclave.cpus);
  for (const hobbes_record* core : nis_.all(HOBBES_CORE)) {
    if ((cpus_of(core->body.core.cpus) & cpus).empty()) continue;
    const hobbes_record* earlier = transition.pending(core->id);
    hobbes_record changed = earlier != nullptr ? *earlier : *core;
    changed.state = !held                  ? HOBBES_CORE_FREE
                    : owns_memory(enclave) ? HOBBES_CORE_DETACHED
                                           : HOBBES_CORE_LEASED;
    changed.enclave = held ? enclave.id : 0;
    if (!held)  // a shared core may still have another holder
      for (const hobbes_record* other : nis_.all(HOBBES_ENCLAVE))
        if (other->id != enclave.id && !has_ended(*other) &&
            !(cpus_of(other->body.enclave.cpus) & cpus_of(core->body.core.cpus)).empty()) {
          changed.state = HOBBES_CORE_LEASED;
          changed.enclave = other->id;
        }
    transition.put(changed);
  }
  for (const hobbes_record* numa : nis_.all(HOBBES_NUMA)) {
    unsigned number = numa->body.numa.number;
    if (number >= HOBBES_NUMA_NODES || enclave.body.enclave.memory[number] == 0) continue;
    const hobbes_record* earlier = transition.pending(numa->id);
    hobbes_record changed = earlier != nullptr ? *earlier : *numa;
    std::uint64_t bytes = enclave.body.enclave.memory[number];
    changed.body.numa.leased =
        held ? changed.body.numa.leased + bytes
             : changed.body.numa.leased - std::min(bytes, changed.body.numa.leased);
    transition.put(changed);
  }
}

CpuSet Leases::shared_cpus(const Session& session) const {
  Limits limits = limits_for(session, false);
  CpuSet out = inventory_.usable - limits.reserved;
  if (!limits.permitted.empty()) out = out & limits.permitted;
  for (const Lease& lease : held())
    if (!lease.shared) out = out - lease.cpus;
  return out.empty() ? inventory_.usable - limits.reserved : out;
}

// What is not mentioned stays as it is; a count keeps the cores already held where it can.
Result<Placement> Leases::resized(const Session& session, const hobbes_record& record,
                                  const Json& request) const {
  const hobbes_enclave& body = record.body.enclave;
  Json wanted = request;
  CpuSet own = cpus_of(body.cpus);
  if (!request.contains("cores")) {
    if (!own.empty()) wanted["cores"] = {{"list", own.text()}};
  } else if (auto count = static_cast<unsigned>(number_at(request["cores"], "count")); count > 0) {
    std::vector<const Core*> mine;
    for (const Core& core : inventory_.cores)
      if (!core.threads.empty() && (core.threads - own).empty()) mine.push_back(&core);
    if (mine.size() >= count) {
      CpuSet keep;
      for (unsigned i = 0; i < count; ++i) keep = keep | mine[i]->threads;
      wanted["cores"] = {{"list", keep.text()}};
    } else {
      Json more = {{"cores", request["cores"]}};
      more["cores"]["count"] = count - mine.size();
      HOBBES_TRY(added, place(inventory_, held(), limits_for(session, owns_memory(record)),
                              core_request(more["cores"]), {}));
      wanted["cores"] = {{"list", (own | added.cpus).text()}};
    }
  }
  if (!request.contains("memory")) {
    std::uint64_t total = 0;
    for (std::uint64_t bytes : body.memory) total += bytes;
    wanted["memory"] = {{"size", total}};
  }
  wanted["cores"]["shared"] = (body.flags & 1U) != 0;
  return placement_for(session, wanted, record.id, {});
}

CpuSet Leases::exclusive() const {
  CpuSet out;
  for (const Lease& lease : held())
    if (!lease.shared) out = out | lease.cpus;
  return out & inventory_.usable;
}

CpuSet Leases::free() const {
  Limits limits;
  limits.reserved = policies_.reserved;
  return free_cpus(inventory_, held(), limits);
}

}  // namespace hobbes
