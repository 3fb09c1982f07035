// What hobbesd lends to users who have no privilege of their own: a folder for their enclaves, and
// a control group per enclave, made and limited with the lease. Its processes enter and freeze
// through here, and only their owner's.
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "hobbesd/manager.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

// Several managers may serve one machine (tests do): each sweeps only what bears its own mark.
std::string group_prefix() { return "user-" + hex(hash_of(run_directory()), 8) + "-"; }

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

}  // namespace

CpuSet Manager::shared_cpus(const Session& session) const {
  Limits limits = limits_for(session, false);
  CpuSet out = inventory_.usable - limits.reserved;
  if (!limits.permitted.empty()) out = out & limits.permitted;
  for (const Lease& lease : leases())
    if (!lease.shared) out = out - lease.cpus;
  return out.empty() ? inventory_.usable - limits.reserved : out;
}

// {"op":"root.make"}: the caller's default root.
Result<Reply> Manager::make_root(Session& session, const Json&) {
  std::string path = default_root(session.peer.uid);
  if (session.peer.uid == 0) return Reply{{{"root", path}}, {}};
  HOBBES_CHECK(make_directories(run_directory() + "/users", 0711));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return os_error("make " + path, errno);
  if (::lchown(path.c_str(), session.peer.uid, session.peer.gid) != 0)
    return os_error("give " + path + " to its user", errno);
  return Reply{{{"root", path}}, {}};
}

Result<std::string> Manager::delegate_group(const hobbes_record& record, const Placement& placement,
                                            const CpuSet& shared, const Json& limits) {
  std::string path =
      "/hobbes/" + group_prefix() + std::to_string(record.uid) + "-" + hex(record.id);
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
  if (auto applied = group.apply(resources); !applied) {
    (void)group.remove(milliseconds(100));
    return std::move(applied).error();
  }
  return path;
}

Result<void> Manager::limit_delegated_group(const std::string& path, const Placement& placement,
                                            const CpuSet& shared) {
  HOBBES_TRY(group, group_at(path));
  return group.apply(limits_of(placement, shared));
}

Result<std::string> Manager::delegated_group_of(const hobbes_record& record) const {
  std::string path = text_at(
      nis_->document("volatile/enclave/" + hex(record.id)).value_or(Json::object()), "lent");
  if (path.empty())
    return Error{Code::unsupported,
                 "act on the control group of enclave '" + std::string(record.name) + "'",
                 "none was delegated to it", "its owner manages it"};
  return path;
}

// {"op":"enclave.enter","handle":H,"pid":P,"startTicks":T}
Result<Reply> Manager::enter_enclave(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  HOBBES_CHECK(check_grant(session, found->id));
  HOBBES_TRY(path, delegated_group_of(*found));
  bool ended = found->state == HOBBES_STOPPED || found->state == HOBBES_CRASHED;
  if (ended)
    return Error{Code::busy, "move a process into enclave '" + std::string(found->name) + "'",
                 "it has ended", ""};
  std::string attempt = "move a process into enclave '" + std::string(found->name) + "'";
  ProcessId process{static_cast<pid_t>(number_at(request, "pid")),
                    static_cast<std::uint64_t>(number_at(request, "startTicks"))};
  pid_t pid = process.pid;
  auto held = process.open();
  if (!held)
    return Error{Code::invalid, attempt, "the request names no living process",
                 "give its pid and the time it started"};
  // Of each of its users: a set-user-id program is not its caller's to move about.
  if (!process_has_user(pid, found->uid, true))
    return Error{Code::denied, attempt,
                 "process " + std::to_string(pid) + " is not of user " + std::to_string(found->uid),
                 ""};
  // Not the way out of somebody else's limits: a process in another enclave stays there.
  if (std::uint64_t now = enclave_containing(pid); now != 0 && now != found->id)
    return Error{Code::denied, attempt, "process " + std::to_string(pid) + " is in another enclave",
                 ""};
  HOBBES_TRY(group, group_at(path));
  // A recycled number is noticed right before it is written.
  if (!process.alive()) return Error{Code::not_found, attempt, "the process has ended", ""};
  HOBBES_CHECK(group.enter(pid));
  return Reply{Json::object(), {}};
}

// {"op":"enclave.freeze","handle":H,"frozen":B}
Result<Reply> Manager::freeze_enclave(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  HOBBES_TRY(path, delegated_group_of(*found));
  HOBBES_TRY(group, group_at(path));
  // Only begun here: the caller looks when the kernel has finished.
  auto begun = group.freeze(request.value("frozen", true), milliseconds(0));
  if (!begun && begun.error().code != Code::timeout) return std::move(begun).error();
  return Reply{Json::object(), {}};
}

// Groups of compositions that have ended, as long as something is left of them.
void Manager::sweep_ended_groups() {
  for (auto at = ended_groups_.begin(); at != ended_groups_.end();) {
    auto group = group_at(*at);
    bool gone = !group || !group->exists();
    if (!gone) {
      (void)group->kill_all(milliseconds(0));
      gone = static_cast<bool>(group->remove(milliseconds(0)));
    }
    at = gone ? ended_groups_.erase(at) : std::next(at);
  }
}

// Empties delegated groups whose enclave has ended and takes away those that no enclave has any
// more; a few at a time, and never waiting: what is not gone is met again at the next tick.
bool Manager::sweep_lent_groups(unsigned most) {
  auto top = group_at("/hobbes");
  if (!top || !top->exists()) return false;
  unsigned allowed = most;
  for (const std::string& name : top->subgroups()) {
    if (most == 0) return true;
    if (name.rfind(group_prefix(), 0) != 0) continue;
    const hobbes_record* record =
        nis_->by_id(std::strtoull(name.c_str() + name.rfind('-') + 1, nullptr, 16));
    bool known = record != nullptr && record->type == HOBBES_ENCLAVE;
    if (known && record->state != HOBBES_STOPPED && record->state != HOBBES_CRASHED) continue;
    auto group = group_at("/hobbes/" + name);
    if (!group) continue;
    auto inside = group->processes();
    if (known && inside && inside->empty()) continue;
    --most;
    (void)group->kill_all(milliseconds(0));
    if (!known) (void)group->remove(milliseconds(0));
  }
  return most < allowed;
}

}  // namespace hobbes
