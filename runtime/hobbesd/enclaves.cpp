// The manager's requests about enclaves: reserve, commit, change, resize, release; and what happens
// when one ends.
#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "core/clock.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/size.h"
#include "enclave/describe.h"
#include "enclave/record.h"
#include "hobbesd/manager.h"
#include "partition/cgroup.h"
#include "partition/module.h"

namespace hobbes {
namespace {

std::string document_name(std::uint64_t id) { return "volatile/enclave/" + hex(id); }

bool owns_memory(const hobbes_record& record) {
  return record.body.enclave.kind == static_cast<std::uint32_t>(Kind::kitten);
}

bool holds_resources(const hobbes_record& record) {
  return record.state != HOBBES_STOPPED && record.state != HOBBES_CRASHED;
}

// linux/pidfd.h of Linux 6.15 and newer; older headers lack it and older kernels answer ENOTTY.
struct PidfdInfo {
  std::uint64_t mask, cgroup_id;
  std::uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
  std::int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long pidfd_get_info = _IOWR(0xff, 11, PidfdInfo);
constexpr std::uint64_t pidfd_info_exit = 1U << 3U;

Json placement_json(const Placement& placement) {
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

// Control processes and monitors give a sign of life every two or four seconds; other kinds are
// watched when their bundle asks for it.
std::int64_t heartbeat_of(Kind kind, const Json& request) {
  std::int64_t asked = number_at(request, "heartbeat");
  if (kind == Kind::linux_) return std::clamp<std::int64_t>(asked, 0, 86400);
  return asked > 0 ? std::clamp<std::int64_t>(asked, 10, 86400) : 15;
}

// Words of an enclave's, for a log: neither lines of their own nor commands to a terminal.
std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  return text;
}

void set_placement(hobbes_enclave& body, const Placement& placement) {
  set_cpus(body.cpus, placement.cpus);
  std::fill(std::begin(body.memory), std::end(body.memory), 0);
  for (const auto& [node, bytes] : placement.memory)
    if (node < HOBBES_NUMA_NODES) body.memory[node] = bytes;
}

}  // namespace

std::vector<Lease> Manager::leases(std::uint64_t except) const {
  std::vector<Lease> out;
  for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE)) {
    if (record->id == except || !holds_resources(*record)) continue;
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

Limits Manager::limits_for(const Session& session, bool detached) const {
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

Result<Placement> Manager::place_for(const Session& session, const Json& request,
                                     std::uint64_t except,
                                     const std::vector<Lease>& planned) const {
  CoreRequest cores = core_request(request.value("cores", Json::object()));
  MemoryRequest memory = memory_request(request.value("memory", Json::object()));
  const hobbes_record* changed = except != 0 ? nis_->by_id(except) : nullptr;
  memory.detached = changed != nullptr ? owns_memory(*changed)
                                       : kind_named(text_at(request, "kind")) == Kind::kitten;
  std::vector<Lease> held = leases(except);
  held.insert(held.end(), planned.begin(), planned.end());
  HOBBES_TRY(placement,
             place(inventory_, held, limits_for(session, memory.detached), cores, memory));
  HOBBES_CHECK(check_quota(session.peer.uid, placement, except, planned));
  return std::move(placement);
}

Result<void> Manager::check_quota(uid_t uid, const Placement& placement, std::uint64_t except,
                                  const std::vector<Lease>& planned) const {
  Quota quota = policies_.of(uid);
  std::uint64_t cores = placement.cpus.count(), memory = 0, enclaves = 1 + planned.size();
  for (const Lease& lease : planned) {
    cores += lease.cpus.count();
    for (const auto& [node, bytes] : lease.memory) memory += bytes;
  }
  for (const auto& [node, bytes] : placement.memory) memory += bytes;
  for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE)) {
    if (record->uid != uid || record->id == except) continue;
    ++enclaves;
    if (!holds_resources(*record)) continue;
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

Result<Reply> Manager::plan(Session& session, const Json& request) {
  if (!request.contains("plans")) {
    HOBBES_TRY(placement, place_for(session, request, 0, {}));
    return Reply{placement_json(placement), {}};
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
    auto placement = place_for(session, one, 0, planned);
    if (!placement)
      return std::move(placement.error())
          .within("plan enclave '" + id + "' beside " + std::to_string(planned.size()) + " others");
    bool shared = one.value("cores", Json::object()).value("shared", false);
    planned.push_back({id, placement->cpus, shared, *kind == Kind::kitten, placement->memory});
    placements.push_back(placement_json(*placement));
  }
  return Reply{Json{{"placements", placements}}, {}};
}

// The records of a root are its user's: he alone may have enclaves there.
Result<void> Manager::check_root(const Session& session, const std::string& root) {
  if (session.privileged) return {};
  struct stat info {};
  if (root.empty() || root.front() != '/' || ::lstat(root.c_str(), &info) != 0 ||
      !S_ISDIR(info.st_mode) || info.st_uid != session.peer.uid)
    return Error{Code::denied, "reserve resources in " + root,
                 "it is not a folder of user " + std::to_string(session.peer.uid),
                 "use a folder of your own, or none: the default root is made for you"};
  return {};
}

Result<Reply> Manager::reserve(Session& session, const Json& request) {
  std::string root = text_at(request, "root"), id = text_at(request, "id");
  HOBBES_CHECK(check_id(id));
  auto kind = kind_named(text_at(request, "kind"));
  if (!kind)
    return Error{Code::invalid, "reserve resources for '" + id + "'", "the kind is unknown", ""};
  HOBBES_CHECK(check_root(session, root));
  std::uint64_t scope = enclave_scope(session.peer.uid, root);
  const hobbes_record* old = nis_->by_name(HOBBES_ENCLAVE, scope, id);
  if (old != nullptr) {
    // The caller holds the folder <root>/<id>, so a record of that name is of an enclave whose
    // folder is gone.
    if (ProcessId{old->body.enclave.pid, old->body.enclave.start_ticks}.alive())
      return Error{Code::exists, "reserve resources for '" + id + "'",
                   "the id is taken and its process runs", "choose another id"};
    forget(old->id);
  }
  HOBBES_TRY(placement, place_for(session, request, 0, {}));
  // Which program is making it, so that a restarted hobbesd can tell a slow create from a dead one.
  HOBBES_TRY(maker, ProcessId::of(session.peer.pid));
  bool shared = request.value("cores", Json::object()).value("shared", false),
       bound = request.value("bound", false);
  hobbes_record record = nis_->make(HOBBES_ENCLAVE, scope, id);
  record.state = HOBBES_CREATING;
  record.uid = session.peer.uid;
  record.gid = session.peer.gid;
  hobbes_enclave& body = record.body.enclave;
  body.kind = static_cast<std::uint32_t>(*kind);
  body.created_ns = clock_ns(CLOCK_REALTIME);
  body.heartbeat_ns = clock_ns(CLOCK_BOOTTIME);
  body.exit_status = -1;
  set_placement(body, placement);
  std::string manage = text_at(request, "manage", "none");
  body.flags = (shared ? 1U : 0U) | (manage == "node" ? 2U : manage == "self" ? 1U : 0U) << 8U;
  Json document = {{"root", root},
                   {"bundle", text_at(request, "bundle")},
                   {"labels", request.value("labels", Json::object())},
                   {"annotations", request.value("annotations", Json::object())},
                   {"heartbeat", heartbeat_of(*kind, request)},
                   {"makerPid", maker.pid},
                   {"makerStart", maker.start_ticks},
                   {"bound", bound}};
  Transition transition;
  transition.put(record);
  std::string delegated;
  if (session.peer.uid != 0 && *kind == Kind::linux_ && ::geteuid() == 0) {
    HOBBES_TRY(path, delegate_group(record, placement, shared_cpus(session),
                                    request.value("limits", Json::object())));
    document["lent"] = delegated = path;
  }
  transition.put_document(document_name(record.id), document);
  add_core_changes(transition, record, true);
  if (auto committed = nis_->commit(transition); !committed) {
    return std::move(committed).error();  // the sweep finds the group
  }
  session.reservations.insert(record.id);
  spdlog::info("enclave '{}' reserved: CPUs {}", id,
               placement.cpus.empty() ? "shared" : placement.cpus.text());
  Json out = placement_json(placement);
  out["handle"] = record.id;
  if (!delegated.empty()) out["cgroup"] = delegated;
  return Reply{out, {}};
}

// Each user's names are his own; root finds them all by the root they were made with.
const hobbes_record* Manager::find_enclave(const Session& session, const std::string& root,
                                           const std::string& id) const {
  if (const hobbes_record* own =
          nis_->by_name(HOBBES_ENCLAVE, enclave_scope(session.peer.uid, root), id))
    return own;
  if (!session.privileged) return nullptr;
  for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE))
    if (id == record->name &&
        text_at(nis_->document(document_name(record->id)).value_or(Json::object()), "root") == root)
      return record;
  return nullptr;
}

Result<const hobbes_record*> Manager::enclave_of(const Session& session,
                                                 const Json& request) const {
  const hobbes_record* record = nullptr;
  if (request.contains("handle"))
    record = nis_->by_id(static_cast<std::uint64_t>(number_at(request, "handle")));
  else
    record = find_enclave(session, text_at(request, "root", default_root(session.peer.uid)),
                          text_at(request, "id"));
  std::string name = record != nullptr ? record->name : text_at(request, "id", "?");
  if (record == nullptr || record->type != HOBBES_ENCLAVE)
    return Error{Code::not_found, "find enclave '" + name + "'", "enclave does not exist",
                 "see `hobbes enclaves`"};
  if (!session.privileged && session.peer.uid != record->uid)
    return Error{Code::denied, "act on enclave '" + name + "'",
                 "it belongs to user " + std::to_string(record->uid), ""};
  return record;
}

Result<Reply> Manager::commit_enclave(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  hobbes_record record = *found;
  if (record.state != HOBBES_CREATING)
    return Error{Code::busy, "commit enclave '" + std::string(record.name) + "'",
                 "it is not being created", ""};
  ProcessId process{static_cast<pid_t>(number_at(request, "pid")),
                    static_cast<std::uint64_t>(number_at(request, "startTicks"))};
  // The control group decides who is inside the enclave, so it must really be its process's.
  auto groups = Files::system().read("/proc/" + std::to_string(process.pid) + "/cgroup");
  std::string group = text_at(request, "cgroup");
  bool inside = group.empty() || (groups && groups->find(":" + group + "\n") != std::string::npos);
  // Others than root name only a process of their own, in the group that was delegated to it: what
  // is committed is watched, and killed when silent.
  if (session.peer.uid != 0) {
    auto delegated = delegated_group_of(record);
    inside = inside && process_has_user(process.pid, session.peer.uid, true) &&
             (delegated ? group == *delegated : group.empty());
  }
  if (!process.alive() || !inside || group == "/")
    return Error{Code::denied, "commit enclave '" + std::string(record.name) + "'",
                 "its process does not run in control group '" + group + "'", ""};
  record.state = HOBBES_CREATED;
  record.body.enclave.pid = process.pid;
  record.body.enclave.start_ticks = process.start_ticks;
  record.body.enclave.heartbeat_ns = clock_ns(CLOCK_BOOTTIME);
  Json document = nis_->document(document_name(record.id)).value_or(Json::object());
  document["cgroup"] = text_at(request, "cgroup");
  Transition transition;
  transition.put(record);
  transition.put_document(document_name(record.id), document);
  HOBBES_CHECK(nis_->commit(transition));
  session.reservations.erase(record.id);
  cgroups_[record.id] = text_at(request, "cgroup");
  makers_.erase(record.id);
  watch_maker(record.id, document);
  watch_enclave(record);
  spdlog::info("enclave '{}' created: pid {}", record.name, process.pid);
  return Reply{Json::object(), {}};
}

Result<Reply> Manager::change_state(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  hobbes_record record = *found;
  std::string event = text_at(request, "event");
  if (event == "killing") {  // the death that follows is not a crash
    kill_asked_.insert(record.id);
    return Reply{Json::object(), {}};
  }
  if (event == "exited" &&
      ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.alive())
    return Error{Code::busy, "record the end of enclave '" + std::string(record.name) + "'",
                 "its process still runs", "kill it first"};
  if (event == "exited") {  // told by the parent that waited for it: nothing is left to find out
    note_out_of_memory(record, static_cast<int>(number_at(request, "status", -1)));
    bool faulted = (request.value("signalled", false) || has_cause(record.id)) &&
                   kill_asked_.count(record.id) == 0;
    enclave_ended(record.id);
    endings_.erase(record.id);
    record = *nis_->by_id(record.id);
    if (faulted) record.state = HOBBES_CRASHED;
    record.body.enclave.exit_status = static_cast<std::int32_t>(number_at(request, "status", -1));
  } else if (!holds_resources(record)) {
    return Reply{Json::object(), {}};  // it ended meanwhile
  } else if (event == "crashed") {     // its own process has found out; its end follows
    note_cause(record, one_line(text_at(request, "cause").substr(0, 1000)));
    return Reply{Json::object(), {}};
  } else if (event == "started" || event == "resumed") {
    record.state = HOBBES_RUNNING;
  } else if (event == "paused") {
    record.state = HOBBES_PAUSED;
  } else {
    return Error{Code::invalid, "change enclave '" + std::string(record.name) + "'",
                 "the event is unknown", ""};
  }
  record.body.enclave.heartbeat_ns = clock_ns(CLOCK_BOOTTIME);
  Transition transition;
  transition.put(record);
  HOBBES_CHECK(nis_->commit(transition));
  if (event == "started") processes_.enclave_started(record, text_at(request, "program"));
  return Reply{Json::object(), {}};
}

// Its own process has said that it crashed; how that process then ends is its affair.
bool Manager::has_cause(std::uint64_t id) const {
  return nis_->document(document_name(id)).value_or(Json::object()).contains("cause");
}

void Manager::note_cause(const hobbes_record& record, const std::string& cause) {
  Json document = nis_->document(document_name(record.id)).value_or(Json::object());
  document["cause"] = cause;
  Transition transition;
  transition.put_document(document_name(record.id), document);
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
  spdlog::warn("enclave '{}' crashed: {}", record.name, cause);
}

// An enclave that nobody has killed by that signal may have been killed by the kernel, whose count
// is in its control group.
void Manager::note_out_of_memory(const hobbes_record& record, int exit_code) {
  auto group = cgroups_.find(record.id);
  if (exit_code != 128 + SIGKILL || kill_asked_.count(record.id) != 0 || group == cgroups_.end() ||
      group->second.empty())
    return;
  auto layout = CgroupLayout::detect();
  if (!layout) return;
  auto numbers = Cgroup(std::move(*layout), group->second).statistics();
  auto killed = numbers.find("memory.oom_kills");
  if (killed == numbers.end() || killed->second == 0) return;
  constexpr std::uint64_t unlimited = std::uint64_t{1}
                                      << 62;  // what the kernel calls unlimited is more
  std::uint64_t limit = numbers["memory.limit"];
  note_cause(record, (limit == 0 || limit >= unlimited ? std::string("the node's memory")
                                                       : "its memory of " + format_size(limit)) +
                         " ran out, and the kernel has killed " + std::to_string(killed->second) +
                         " of its processes");
}

// A sign of life, from any process inside, or from one that may act on the enclave it names.
Result<Reply> Manager::beat(Session& session, const Json& request) {
  const hobbes_record* found = nis_->by_id(session.inside);
  if (request.contains("handle")) {
    HOBBES_TRY(named, enclave_of(session, request));
    found = named;
  }
  if (found == nullptr)
    return Error{Code::not_found, "give a sign of life", "the process is in no enclave",
                 "call it from a program of an enclave"};
  hobbes_record record = *found;
  record.body.enclave.heartbeat_ns = clock_ns(CLOCK_BOOTTIME);
  Transition transition;
  transition.put(record);
  HOBBES_CHECK(nis_->commit(transition));
  return Reply{Json::object(), {}};
}

// An enclave that promised signs of life and is silent for longer counts as crashed.
void Manager::check_heartbeats() {
  std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
  // A hobbesd that was not listening (just started, stopped, or the whole node suspended) cannot
  // say that others were silent.
  constexpr std::uint64_t attention_ns = 4'000'000'000;
  if (now - last_heartbeat_check_ > attention_ns) listening_since_ = now;
  last_heartbeat_check_ = now;
  std::vector<hobbes_record> silent;
  for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE)) {
    if (record->state != HOBBES_RUNNING) continue;
    std::int64_t limit =
        number_at(nis_->document(document_name(record->id)).value_or(Json::object()), "heartbeat");
    if (limit > 0 && now - std::max(record->body.enclave.heartbeat_ns, listening_since_) >
                         static_cast<std::uint64_t>(limit) * 1'000'000'000U)
      silent.push_back(*record);
  }
  for (const hobbes_record& record : silent) {
    note_cause(record,
               "no heartbeat for " +
                   std::to_string((now - record.body.enclave.heartbeat_ns) / 1'000'000'000U) +
                   " s");
    auto process = ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.open();
    if (process) (void)signal_pidfd(*process, SIGKILL);
  }
}

Result<Reply> Manager::resize(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  hobbes_record record = *found;
  if (!holds_resources(record))
    return Error{Code::busy, "resize enclave '" + std::string(record.name) + "'", "it does not run",
                 ""};
  hobbes_enclave& body = record.body.enclave;
  // What is not mentioned stays as it is; a count keeps the cores already held where it can.
  Json wanted = request;
  CpuSet held = cpus_of(body.cpus);
  if (!request.contains("cores")) {
    if (!held.empty()) wanted["cores"] = {{"list", held.text()}};
  } else if (auto count = static_cast<unsigned>(number_at(request["cores"], "count")); count > 0) {
    std::vector<const Core*> mine;
    for (const Core& core : inventory_.cores)
      if (!core.threads.empty() && (core.threads - held).empty()) mine.push_back(&core);
    if (mine.size() >= count) {
      CpuSet keep;
      for (unsigned i = 0; i < count; ++i) keep = keep | mine[i]->threads;
      wanted["cores"] = {{"list", keep.text()}};
    } else {
      Json more = {{"cores", request["cores"]}};
      more["cores"]["count"] = count - mine.size();
      HOBBES_TRY(added, place(inventory_, leases(), limits_for(session, owns_memory(record)),
                              core_request(more["cores"]), {}));
      wanted["cores"] = {{"list", (held | added.cpus).text()}};
    }
  }
  if (!request.contains("memory")) {
    std::uint64_t total = 0;
    for (std::uint64_t bytes : body.memory) total += bytes;
    wanted["memory"] = {{"size", total}};
  }
  wanted["cores"]["shared"] = (body.flags & 1U) != 0;
  HOBBES_TRY(placement, place_for(session, wanted, record.id, {}));
  Json out = placement_json(placement);
  std::uint64_t memory_before = 0;
  for (std::uint64_t bytes : body.memory) memory_before += bytes;
  out["before"] = {{"cpus", held.text()}, {"memory", memory_before}};
  out["dryRun"] = request.value("dryRun", false);
  if (request.value("dryRun", false)) return Reply{out, {}};
  auto delegated = delegated_group_of(record);
  CpuSet shared = delegated ? shared_cpus(session) : CpuSet();
  if (delegated) HOBBES_CHECK(limit_delegated_group(*delegated, placement, shared));
  Placement before;
  before.cpus = held;
  for (unsigned node = 0; node < HOBBES_NUMA_NODES; ++node)
    if (body.memory[node] != 0) before.memory[node] = body.memory[node];
  Transition transition;
  add_core_changes(transition, record, false);
  set_placement(body, placement);
  add_core_changes(transition, record, true);
  transition.put(record);
  auto committed = nis_->commit(transition);
  if (!committed && delegated) (void)limit_delegated_group(*delegated, before, shared);
  HOBBES_CHECK(std::move(committed));
  return Reply{out, {}};
}

Result<Reply> Manager::release(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  std::uint64_t id = found->id;
  if (ProcessId{found->body.enclave.pid, found->body.enclave.start_ticks}.alive())
    return Error{Code::busy, "release enclave '" + std::string(found->name) + "'",
                 "its process still runs", "delete it with hobbes-run"};
  session.reservations.erase(id);
  forget(id);
  return Reply{Json::object(), {}};
}

Result<Reply> Manager::describe_enclave(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  return Reply{[&] {
                 Json out = describe(*found);
                 if (auto document = nis_->document(document_name(found->id)))
                   for (const char* key : {"root", "bundle", "labels", "annotations", "cause"})
                     if (document->contains(key)) out[key] = (*document)[key];
                 return out;
               }(),
               {}};
}

void Manager::forget(std::uint64_t id) {
  const hobbes_record* record = nis_->by_id(id);
  if (record == nullptr) return;
  spdlog::info("enclave '{}' released", record->name);
  loop_.tick_within(unfinished_tick);  // for a group that was delegated to it
  Transition transition;
  if (holds_resources(*record)) add_core_changes(transition, *record, false);
  for (const hobbes_record* segment : nis_->all(HOBBES_SEGMENT))
    if (segment->enclave == id && (segment->body.segment.flags & 2U) != 0)
      drop_segment(segment->id, transition);
  names_.enclave_released(id, transition);
  processes_.enclave_ended(id, transition);
  transition.erase(id);
  transition.erase_document(document_name(id));
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
  if (auto at = enclave_watches_.find(id); at != enclave_watches_.end()) {
    loop_.unwatch(at->second.get());
    enclave_watches_.erase(at);
  }
  cgroups_.erase(id);
  makers_.erase(id);
  kill_asked_.erase(id);
  endings_.erase(id);
  announced_.erase(id);
}

// Core and NUMA records follow the lease, so that a reader of the mirror sees who owns what.
void Manager::add_core_changes(Transition& transition, const hobbes_record& enclave,
                               bool held) const {
  CpuSet cpus = cpus_of(enclave.body.enclave.cpus);
  for (const hobbes_record* core : nis_->all(HOBBES_CORE)) {
    if ((cpus_of(core->body.core.cpus) & cpus).empty()) continue;
    const hobbes_record* earlier = transition.pending(core->id);
    hobbes_record changed = earlier != nullptr ? *earlier : *core;
    changed.state = !held                  ? HOBBES_CORE_FREE
                    : owns_memory(enclave) ? HOBBES_CORE_DETACHED
                                           : HOBBES_CORE_LEASED;
    changed.enclave = held ? enclave.id : 0;
    if (!held)  // a shared core may still have another holder
      for (const hobbes_record* other : nis_->all(HOBBES_ENCLAVE))
        if (other->id != enclave.id && holds_resources(*other) &&
            !(cpus_of(other->body.enclave.cpus) & cpus_of(core->body.core.cpus)).empty()) {
          changed.state = HOBBES_CORE_LEASED;
          changed.enclave = other->id;
        }
    transition.put(changed);
  }
  for (const hobbes_record* numa : nis_->all(HOBBES_NUMA)) {
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

void Manager::watch_enclave(const hobbes_record& record) {
  std::uint64_t id = record.id;
  listen_for_ends();
  auto pidfd = ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.open();
  if (!pidfd) {
    loop_.post([this, id] { enclave_ended(id); });
    return;
  }
  int fd = pidfd->get();
  if (loop_.watch(fd, [this, id] { enclave_ended(id); })) enclave_watches_[id] = std::move(*pidfd);
}

// An enclave bound to the process that made it goes with it.
void Manager::watch_maker(std::uint64_t id, const Json& document) {
  if (!document.value("bound", false)) return;
  auto maker = static_cast<pid_t>(number_at(document, "makerPid"));
  makers_[id] = maker;
  watch_process(maker);
}

void Manager::enclave_ended(std::uint64_t id) {
  const hobbes_record* found = nis_->by_id(id);
  Fd pidfd;
  if (auto at = enclave_watches_.find(id); at != enclave_watches_.end()) {
    loop_.unwatch(at->second.get());
    pidfd = std::move(at->second);
    enclave_watches_.erase(at);
  }
  if (found == nullptr || !holds_resources(*found)) return;
  hobbes_record record = *found;
  // The process is gone, so its cores and memory are free; whether it crashed is known when its
  // status is.
  Transition transition;
  add_core_changes(transition, record, false);
  bool crashed = nis_->document(document_name(id)).value_or(Json::object()).contains("cause");
  record.state = crashed ? HOBBES_CRASHED : HOBBES_STOPPED;
  transition.put(record);
  processes_.enclave_ended(id, transition);
  if (auto done = nis_->commit(transition); !done) {
    spdlog::error("{}", done.error().text());
    return;
  }
  spdlog::info("enclave '{}' {}", record.name, crashed ? "crashed" : "ended");
  for (const hobbes_record* segment : nis_->all(HOBBES_SEGMENT))
    if (segment->enclave == id && segment->body.segment.owner_pid == record.body.enclave.pid) {
      process_ended(record.body.enclave.pid);  // of all its segments; the list is stale afterwards
      break;
    }
  if (pidfd) endings_[id] = {std::move(pidfd), 0};
  loop_.tick_within(unfinished_tick);
  if (auto at = endings_.find(id); at != endings_.end())
    learn_exit_status(id, at->second.pidfd.get());
}

void Manager::listen_for_ends() {
  if (exit_events_ || no_exit_events_) return;
  auto opened = ExitEvents::open();
  if (!opened) {
    no_exit_events_ =
        opened.error().code == Code::denied || opened.error().code == Code::unsupported;
    spdlog::info("{}: exit statuses of enclaves that others wait for are learned from those",
                 opened.error().text());
    return;
  }
  exit_events_.emplace(std::move(*opened));
  auto watched = loop_.watch(exit_events_->fd(), [this] {
    for (const auto& [pid, status] : exit_events_->take())
      for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE)) {
        std::uint64_t id = record->id;
        if (record->body.enclave.pid != pid ||
            (enclave_watches_.count(id) == 0 && endings_.count(id) == 0))
          continue;
        announced_[id] = status;
        if (auto ending = endings_.find(id); ending != endings_.end())
          learn_exit_status(id, ending->second.pidfd.get());
        break;
      }
  });
  if (!watched) exit_events_.reset();
}

// Without enclaves the ends of the node's processes are nobody's concern, and should not wake us.
void Manager::stop_listening_for_ends() {
  if (!exit_events_ || !enclave_watches_.empty() || !endings_.empty()) return;
  loop_.unwatch(exit_events_->fd());
  exit_events_.reset();
}

void Manager::learn_exit_status(std::uint64_t id, int pidfd) {
  const hobbes_record* found = nis_->by_id(id);
  if (found == nullptr) {
    endings_.erase(id);
    return;
  }
  int status = -1;
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED | WNOHANG) == 0 &&
      info.si_pid != 0) {
    status =
        info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;  // as wait(2) encodes it
  } else {
    PidfdInfo ask{};
    ask.mask = pidfd_info_exit;
    if (::ioctl(pidfd, pidfd_get_info, &ask) == 0 && (ask.mask & pidfd_info_exit) != 0)
      status = ask.exit_code;
  }
  if (auto heard = announced_.find(id); heard != announced_.end() && status < 0)
    status = heard->second;
  auto ending = endings_.find(id);
  if (status < 0) {
    // Known only once its parent has reaped it; the tick asks again for a while.
    if (ending != endings_.end() && ++ending->second.tries > 100) {
      spdlog::warn("enclave '{}': its exit status is known only to the process that waited for it",
                   found->name);
      endings_.erase(ending);
    }
    return;
  }
  hobbes_record record = *found;
  note_out_of_memory(record, exit_code_of(status));
  record.body.enclave.exit_status = exit_code_of(status);
  bool faulted = (WIFSIGNALED(status) || has_cause(id)) && kill_asked_.count(id) == 0;
  if (faulted) record.state = HOBBES_CRASHED;
  Transition transition;
  transition.put(record);
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
  if (faulted) spdlog::warn("enclave '{}' crashed: {}", record.name, describe_wait_status(status));
  endings_.erase(id);
  announced_.erase(id);
}

// The process that was making or deleting it died. hobbes-run knows how to undo it, and does so
// with its owner's rights only.
void Manager::clean_up(const hobbes_record& record) {
  Json document = nis_->document(document_name(record.id)).value_or(Json::object());
  spdlog::warn("enclave '{}' was left half-made; cleaning it up", record.name);
  auto verb = read_verb({{"verb", "delete"}, {"force", true}, {"id", record.name}},
                        text_at(document, "root", root_));
  if (!verb) {
    spdlog::error("{}", verb.error().text());
    return;
  }
  auto begun = start_operation({record.uid, record.gid, {}, {}}, *verb, Json());
  if (begun)
    operations_.at(text_at(begun->body, "operation")).forgets = record.id;
  else
    spdlog::error("{}", begun.error().text());
}

void Manager::leave(Session& session) {
  for (std::uint64_t id : session.reservations)
    if (const hobbes_record* record = nis_->by_id(id);
        record != nullptr && record->state == HOBBES_CREATING)
      clean_up(*record);
  session.reservations.clear();
  for (std::uint64_t id : session.compositions) drop_composition(id, -1);
  session.compositions.clear();
}

// `delete` that could not reach a hobbesd leaves a note; see docs/CONTROL.md.
void Manager::consume_release_notes() {
  std::string folder = run_directory() + "/released";
  auto names = Files::system().list(folder);
  if (!names) return;
  for (const std::string& name : *names) {
    struct stat info {};
    std::string path = folder + "/" + name;
    if (::lstat(path.c_str(), &info) != 0) continue;
    const hobbes_record* record = nis_->by_id(std::strtoull(name.c_str(), nullptr, 16));
    bool gone = record != nullptr &&
                !ProcessId{record->body.enclave.pid, record->body.enclave.start_ticks}.alive();
    if (gone && S_ISREG(info.st_mode) && info.st_uid == 0) forget(record->id);
    ::unlink(path.c_str());
  }
}

CpuSet Manager::allowed_cpus(pid_t pid) {
  auto status = Files::system().read("/proc/" + std::to_string(pid) + "/status");
  std::size_t at = status ? status->find("Cpus_allowed_list:") : std::string::npos;
  if (at == std::string::npos) return {};
  std::size_t begin = status->find_first_not_of(" \t", at + 18);
  return CpuSet::parse(status->substr(begin, status->find('\n', begin) - begin)).value_or(CpuSet());
}

std::uint64_t Manager::enclave_containing(pid_t pid) const {
  auto text = Files::system().read("/proc/" + std::to_string(pid) + "/cgroup");
  if (!text) return 0;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::size_t second = line.find(':', line.find(':') + 1);
    if (second == std::string::npos) continue;
    std::string path = line.substr(second + 1);
    for (const auto& [id, cgroup] : cgroups_)
      if (!cgroup.empty() && (path == cgroup || path.rfind(cgroup + "/", 0) == 0)) return id;
  }
  return 0;
}

Grant Manager::grant_of(std::uint64_t enclave) const {
  const hobbes_record* record = nis_->by_id(enclave);
  return record != nullptr ? static_cast<Grant>(record->body.enclave.flags >> 8U & 3U)
                           : Grant::none;
}

Result<void> Manager::check_grant(const Session& session, std::uint64_t target) const {
  if (session.inside == 0) return {};
  const hobbes_record* record = nis_->by_id(session.inside);
  Grant grant = grant_of(session.inside);
  if (grant == Grant::node || (grant == Grant::self && target == session.inside)) return {};
  return Error{
      Code::denied,
      "manage the node from inside enclave '" +
          std::string(record != nullptr ? record->name : "?") + "'",
      grant == Grant::self ? "its grant covers only itself" : "its bundle grants no management",
      "set \"manage\": \"node\" in the hobbes object of its config.json"};
}

}  // namespace hobbes
