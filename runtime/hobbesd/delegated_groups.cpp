#include "hobbesd/delegated_groups.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "core/identity.h"
#include "core/paths.h"
#include "core/process.h"
#include "hobbesd/enclave_document.h"
#include "partition/batch_step.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

// Several managers may serve one machine (tests do): each sweeps only what bears its own mark.
std::string group_prefix() { return "user-" + hex(hash_of(run_directory()), 8) + "-"; }

std::string group_name(const hobbes_record& enclave) {
  return group_prefix() + std::to_string(enclave.uid) + "-" + hex(enclave.id);
}

Result<Cgroup> group_at(const std::string& path) {
  HOBBES_TRY(layout, CgroupLayout::detect());
  return Cgroup(std::move(layout), path);
}

std::optional<std::int64_t> wish(const Json& limits, const char* key) {
  if (!limits.contains(key)) return std::nullopt;
  return number_at(limits, key);
}

// The lease's limits. Without leased cores: those the caller may use that nobody has to himself.
oci::Resources limits_of(const Placement& placement, const CpuSet& shared) {
  oci::Resources out;
  out.cpus = placement.cpus.empty() ? shared.text() : placement.cpus.text();
  out.mems = placement.nodes().text();
  std::int64_t lease = 0;
  for (const auto& [node, bytes] : placement.memory) lease += static_cast<std::int64_t>(bytes);
  if (lease > 0) out.memory_limit = out.memory_swap = lease;
  return out;
}

std::vector<std::string> mounts_of(const CgroupLayout& layout) {
  std::set<std::string> out;  // controllers may share a hierarchy
  if (!layout.v2.empty()) out.insert(layout.v2);
  for (const auto& [controller, mount] : layout.v1) out.insert(mount);
  return {out.begin(), out.end()};
}

// With v1 Slurm gives a step's group to the job's user, who may make groups in it himself.
// hobbesd's belong to root and have the user's number in their names.
bool is_of_manager(const std::string& folder, const std::string& step) {
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::geteuid())
    return false;
  const std::size_t uid = step.find("/uid_");
  if (uid == std::string::npos) return true;
  const std::string user = step.substr(uid + 5, step.find('/', uid + 1) - uid - 5);
  const std::string name = folder.substr(folder.rfind('/') + 1);
  return name.rfind(group_prefix() + user + "-", 0) == 0;
}

// The paths of all groups of this manager, in every hierarchy; those in steps only where there may
// be any. With v1 a group in a step may have several paths, one for each hierarchy.
std::set<std::string> delegated(const std::vector<std::string>& mounts, bool steps) {
  std::set<std::string> out;
  auto look = [&](const std::string& mount, const std::string& place, const std::string& step) {
    for (const std::string& name : Files::system().list(mount + place).value_or({}))
      if (name.rfind(group_prefix(), 0) == 0 && is_of_manager(mount + place + "/" + name, step))
        out.insert(place + "/" + name);
  };
  for (const std::string& mount : mounts) {
    look(mount, "/hobbes", "");
    if (!steps) continue;
    for (const std::string& step : batch_steps(mount)) look(mount, step, step);
  }
  return out;
}

// Whether a group has processes, of its own or in groups below it that are none of ours.
bool has_others(const std::string& folder) {
  auto own = Files::system().read(folder + "/cgroup.procs");
  if (!own) return own.error().code != Code::not_found;
  if (!own->empty()) return true;
  for (const std::string& name : Files::system().list(folder).value_or({}))
    if (name.find('.') == std::string::npos && name.rfind(group_prefix(), 0) != 0 &&
        Files::system().exists(folder + "/" + name + "/cgroup.procs") &&
        has_others(folder + "/" + name))
      return true;
  return false;
}

// Whether nothing runs in a step any more but what is in delegated groups.
bool is_over(const std::vector<std::string>& mounts, const std::string& step) {
  return std::none_of(mounts.begin(), mounts.end(), [&](const std::string& mount) {
    return has_others(mount + without_task(step));
  });
}

// With v2 a step's group may be without the controllers that a lease needs: Slurm limits nothing by
// them, and nothing is escaped elsewhere.
std::string usable_step(const CgroupLayout& layout, const std::string& step) {
  if (step.empty() || layout.v2.empty()) return step;
  auto controllers = Files::system().read(layout.v2 + step + "/cgroup.controllers");
  if (!controllers) return "";
  std::istringstream words(*controllers);
  const std::set<std::string> names(std::istream_iterator<std::string>(words), {});
  return names.count("cpuset") != 0 && names.count("memory") != 0 ? step : "";
}

}  // namespace

Result<std::string> DelegatedGroups::delegate(const hobbes_record& record,
                                              const std::string& callers_step,
                                              const Placement& placement, const CpuSet& shared,
                                              const Json& limits) {
  HOBBES_TRY(layout, CgroupLayout::detect());
  const std::string step = usable_step(layout, callers_step);
  may_be_in_steps_ = may_be_in_steps_ || !step.empty();
  std::string path = (step.empty() ? "/hobbes" : step) + "/" + group_name(record);
  HOBBES_TRY(group, group_at(path));
  oci::Resources resources = limits_of(placement, shared);
  // A wish may only narrow what the lease, the user's quota and fairness allow.
  Quota quota = policies_.of(record.uid);
  if (!resources.memory_limit && quota.memory < static_cast<std::uint64_t>(INT64_MAX))
    resources.memory_limit = resources.memory_swap = static_cast<std::int64_t>(quota.memory);
  if (auto memory = wish(limits, "memory");
      memory && *memory > 0 && (!resources.memory_limit || *memory < *resources.memory_limit))
    resources.memory_limit = resources.memory_swap = memory;
  constexpr std::int64_t processes_limit = 32768;
  std::int64_t processes = wish(limits, "pids").value_or(0);
  resources.pids_limit = processes > 0 ? std::min(processes, processes_limit) : processes_limit;
  resources.cpu_quota = wish(limits, "cpuQuota");
  if (auto period = wish(limits, "cpuPeriod"); period && *period > 0)
    resources.cpu_period = static_cast<std::uint64_t>(*period);
  if (auto shares = wish(limits, "cpuShares"); shares && *shares > 0)
    resources.cpu_shares = static_cast<std::uint64_t>(std::min<std::int64_t>(*shares, 1024));
  HOBBES_CHECK(group.create());
  // The job's own limit of processes holds where its step has none for parts of it.
  if (!step.empty() && !Files::system().exists(group.directory("pids") + "/pids.max"))
    resources.pids_limit.reset();
  if (auto applied = group.apply(resources); !applied) {
    (void)group.remove(milliseconds(100));
    return std::move(applied).error();
  }
  return path;
}

Result<void> DelegatedGroups::limit(const std::string& path, const Placement& placement,
                                    const CpuSet& shared) {
  HOBBES_TRY(group, group_at(path));
  return group.apply(limits_of(placement, shared));
}

Result<std::string> DelegatedGroups::path_of(const hobbes_record& record) const {
  std::string path = text_at(enclave_document(nis_, record.id), "lent");
  if (path.empty())
    return Error{Code::unsupported,
                 "act on the control group of enclave '" + std::string(record.name) + "'",
                 "none was delegated to it", "its owner manages it"};
  return path;
}

// {"op":"enclave.enter","handle":H,"pid":P,"startTicks":T}
Result<Reply> DelegatedGroups::enter(const hobbes_record& enclave,
                                     const Authorization& authorization,
                                     const Json& request) const {
  HOBBES_TRY(path, path_of(enclave));
  if (has_ended(enclave))
    return Error{Code::busy, "move a process into enclave '" + std::string(enclave.name) + "'",
                 "it has ended", ""};
  std::string attempt = "move a process into enclave '" + std::string(enclave.name) + "'";
  ProcessId process{static_cast<pid_t>(number_at(request, "pid")),
                    static_cast<std::uint64_t>(number_at(request, "startTicks"))};
  pid_t pid = process.pid;
  auto held = process.open();
  if (!held)
    return Error{Code::invalid, attempt, "the request names no living process",
                 "give its pid and the time it started"};
  // Of each of its users: a set-user-id program is not its caller's to move about.
  if (!process_has_user(pid, enclave.uid, true))
    return Error{
        Code::denied, attempt,
        "process " + std::to_string(pid) + " is not of user " + std::to_string(enclave.uid), ""};
  // Not the way out of somebody else's limits: a process in another enclave stays there.
  if (std::uint64_t now = authorization.enclave_containing(pid); now != 0 && now != enclave.id)
    return Error{Code::denied, attempt, "process " + std::to_string(pid) + " is in another enclave",
                 ""};
  // Nor out of those of a batch job.
  HOBBES_TRY(layout, CgroupLayout::detect());
  auto groups = Files::system().read("/proc/" + std::to_string(pid) + "/cgroup");
  const std::string step = groups ? without_task(usable_step(layout, batch_step_of(*groups))) : "";
  if (!step.empty() && path.rfind(step + "/", 0) != 0)
    return Error{Code::denied, attempt,
                 "process " + std::to_string(pid) +
                     " is in a step of a batch job, which the "
                     "enclave is not in",
                 "make an enclave in that step"};
  HOBBES_TRY(group, group_at(path));
  // A recycled number is noticed right before it is written.
  if (!process.alive()) return Error{Code::not_found, attempt, "the process has ended", ""};
  HOBBES_CHECK(group.enter(pid));
  return Reply{Json::object(), {}};
}

// {"op":"enclave.freeze","handle":H,"frozen":B}
Result<Reply> DelegatedGroups::freeze(const hobbes_record& enclave, const Json& request) const {
  HOBBES_TRY(path, path_of(enclave));
  HOBBES_TRY(group, group_at(path));
  // Only begun here: the caller looks when the kernel has finished.
  auto begun = group.freeze(request.value("frozen", true), milliseconds(0));
  if (!begun && begun.error().code != Code::timeout) return std::move(begun).error();
  return Reply{Json::object(), {}};
}

// The enclave that a group was made for: its name holds the user's number and the enclave's, and
// the enclave knows it by that name. With v1 a user may rename a group in his own step.
const hobbes_record* DelegatedGroups::owner_of(const std::string& path) const {
  const std::string name = path.substr(path.rfind('/') + 1);
  const hobbes_record* record =
      nis_.by_id(std::strtoull(name.c_str() + name.rfind('-') + 1, nullptr, 16));
  if (record == nullptr || record->type != HOBBES_ENCLAVE) return nullptr;
  const std::string lent = text_at(enclave_document(nis_, record->id), "lent");
  const bool same = name == group_name(*record) && lent.substr(lent.rfind('/') + 1) == name;
  return same ? record : nullptr;
}

// Empties delegated groups whose enclave has ended and takes away those that no enclave has any
// more; a few at a time, and never waiting: what is not gone is met again at the next tick. Groups
// in a step that is over go all at once, whatever their enclaves are, or the batch system would
// wait for them, and drain the node in the end.
bool DelegatedGroups::sweep(unsigned most) {
  auto layout = CgroupLayout::detect();
  if (!layout) return false;
  const std::vector<std::string> mounts = mounts_of(*layout);
  const std::set<std::string> groups = delegated(mounts, may_be_in_steps_);
  may_be_in_steps_ = std::any_of(groups.begin(), groups.end(), [](const std::string& group) {
    return !batch_step_in(group).empty();
  });
  std::map<std::string, bool> over;
  std::set<std::string> seen;
  bool found = false;
  for (const std::string& group : groups) {
    const hobbes_record* record = owner_of(group);
    const bool known = record != nullptr;
    // By the path that its enclave knows, which leads to it in every hierarchy.
    const std::string path =
        known ? text_at(enclave_document(nis_, record->id), "lent", group) : group;
    if (!seen.insert(path).second) continue;
    const std::string step = batch_step_in(path);
    bool ended = false;
    if (!step.empty()) {
      auto [at, added] = over.try_emplace(without_task(step));
      if (added) at->second = is_over(mounts, step);
      ended = at->second;
    }
    if (known && !has_ended(*record) && !ended) continue;
    if (most == 0 && !ended) continue;
    Cgroup there(*layout, path);
    auto inside = there.processes();
    if (known && !ended && inside && inside->empty()) continue;
    found = true;
    if (!ended) --most;
    (void)there.kill_all(milliseconds(0));
    if (!known || ended) (void)there.remove(milliseconds(0));
  }
  return found;
}

}  // namespace hobbes
