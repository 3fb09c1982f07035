#include "hobbesd/enclave_table.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include "bundle/bundle.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/process.h"
#include "core/size.h"
#include "enclave/describe.h"
#include "enclave/record.h"
#include "hobbesd/enclave_document.h"
#include "partition/batch_step.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

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

// The records of a root are its user's: he alone may have enclaves there.
Result<void> check_root(const Session& session, const std::string& root) {
  if (session.privileged) return {};
  struct stat info {};
  if (root.empty() || root.front() != '/' || ::lstat(root.c_str(), &info) != 0 ||
      !S_ISDIR(info.st_mode) || info.st_uid != session.peer.uid)
    return Error{Code::denied, "reserve resources in " + root,
                 "it is not a folder of user " + std::to_string(session.peer.uid),
                 "use a folder of your own, or none: the default root is made for you"};
  return {};
}

}  // namespace

EnclaveTable::EnclaveTable(Node node)
    : loop_(node.loop),
      nis_(node.nis),
      leases_(node.leases),
      authorization_(node.authorization),
      groups_(node.groups),
      devices_(node.devices),
      segments_(node.segments),
      names_(node.names),
      processes_(node.processes),
      operations_(node.operations),
      root_(std::move(node.root)),
      watch_(std::move(node.watch)),
      process_ended_(std::move(node.process_ended)),
      exits_(
          loop_, [this](std::uint64_t id) { ended(id); },
          [this](std::uint64_t id, int status) { status_known(id, status); }),
      heartbeats_(nis_) {}

// {"op":"root.make"}: the caller's default root.
Result<Reply> EnclaveTable::make_root(Session& session, const Json&) {
  std::string path = default_root(session.peer.uid);
  if (session.peer.uid == 0) return Reply{{{"root", path}}, {}};
  HOBBES_CHECK(make_directories(run_directory() + "/users", 0711));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return os_error("make " + path, errno);
  if (::lchown(path.c_str(), session.peer.uid, session.peer.gid) != 0)
    return os_error("give " + path + " to its user", errno);
  return Reply{{{"root", path}}, {}};
}

Result<Reply> EnclaveTable::reserve(Session& session, const Json& request) {
  std::string root = text_at(request, "root"), id = text_at(request, "id");
  HOBBES_CHECK(check_id(id));
  auto kind = kind_named(text_at(request, "kind"));
  if (!kind)
    return Error{Code::invalid, "reserve resources for '" + id + "'", "the kind is unknown", ""};
  HOBBES_CHECK(check_root(session, root));
  std::uint64_t scope = enclave_scope(session.peer.uid, root);
  const hobbes_record* old = nis_.by_name(HOBBES_ENCLAVE, scope, id);
  if (old != nullptr) {
    // The caller holds the folder <root>/<id>, so a record of that name is of an enclave whose
    // folder is gone.
    if (ProcessId{old->body.enclave.pid, old->body.enclave.start_ticks}.alive())
      return Error{Code::exists, "reserve resources for '" + id + "'",
                   "the id is taken and its process runs", "choose another id"};
    forget(old->id);
  }
  HOBBES_TRY(placement, leases_.placement_for(session, request, 0, {}));
  HOBBES_TRY(devices, devices_.grant(session, request));
  // Which program is making it, so that a restarted hobbesd can tell a slow create from a dead one.
  HOBBES_TRY(maker, ProcessId::of(session.peer.pid));
  bool shared = request.value("cores", Json::object()).value("shared", false),
       bound = request.value("bound", false);
  hobbes_record record = nis_.make(HOBBES_ENCLAVE, scope, id);
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
                   {"bound", bound},
                   {"devices", devices.names},
                   {"deviceNodes", devices.nodes}};
  Transition transition;
  transition.put(record);
  std::string delegated;
  if (session.peer.uid != 0 && *kind == Kind::linux_ && ::geteuid() == 0) {
    HOBBES_TRY(path, groups_.delegate(record, session.step, placement, leases_.shared_cpus(session),
                                      request.value("limits", Json::object())));
    document["lent"] = delegated = path;
  }
  transition.put_document(enclave_document_name(record.id), document);
  leases_.show(transition, record, true);
  if (auto committed = nis_.commit(transition); !committed) {
    return std::move(committed).error();  // the sweep finds the group
  }
  session.reservations.insert(record.id);
  spdlog::info("enclave '{}' reserved: CPUs {}", id,
               placement.cpus.empty() ? "shared" : placement.cpus.text());
  Json out = to_json(placement);
  out["handle"] = record.id;
  if (!devices.edits.empty()) out["deviceEdits"] = devices.edits;
  if (!delegated.empty()) out["cgroup"] = delegated;
  return Reply{out, {}};
}

// Each user's names are his own; root finds them all by the root they were made with.
const hobbes_record* EnclaveTable::find(const Session& session, const std::string& root,
                                        const std::string& id) const {
  if (const hobbes_record* own =
          nis_.by_name(HOBBES_ENCLAVE, enclave_scope(session.peer.uid, root), id))
    return own;
  if (!session.privileged) return nullptr;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE))
    if (id == record->name && text_at(enclave_document(nis_, record->id), "root") == root)
      return record;
  return nullptr;
}

Result<const hobbes_record*> EnclaveTable::enclave_of(const Session& session,
                                                      const Json& request) const {
  const hobbes_record* record = nullptr;
  if (request.contains("handle"))
    record = nis_.by_id(static_cast<std::uint64_t>(number_at(request, "handle")));
  else
    record = find(session, text_at(request, "root", default_root(session.peer.uid)),
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

Result<Reply> EnclaveTable::commit(Session& session, const Json& request) {
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
    auto delegated = groups_.path_of(record);
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
  Json document = enclave_document(nis_, record.id);
  document["cgroup"] = text_at(request, "cgroup");
  Transition transition;
  transition.put(record);
  transition.put_document(enclave_document_name(record.id), document);
  HOBBES_CHECK(nis_.commit(transition));
  session.reservations.erase(record.id);
  authorization_.set_group(record.id, text_at(request, "cgroup"));
  makers_.erase(record.id);
  watch_maker(record.id, document);
  exits_.watch(record.id, record.name, {record.body.enclave.pid, record.body.enclave.start_ticks});
  spdlog::info("enclave '{}' created: pid {}", record.name, process.pid);
  return Reply{Json::object(), {}};
}

Result<Reply> EnclaveTable::change_state(Session& session, const Json& request) {
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
    ended(record.id);
    exits_.forget(record.id);
    record = *nis_.by_id(record.id);
    if (faulted) record.state = HOBBES_CRASHED;
    record.body.enclave.exit_status = static_cast<std::int32_t>(number_at(request, "status", -1));
  } else if (has_ended(record)) {
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
  HOBBES_CHECK(nis_.commit(transition));
  if (event == "started") processes_.enclave_started(record, text_at(request, "program"));
  return Reply{Json::object(), {}};
}

// Its own process has said that it crashed; how that process then ends is its affair.
bool EnclaveTable::has_cause(std::uint64_t id) const {
  return enclave_document(nis_, id).contains("cause");
}

void EnclaveTable::note_cause(const hobbes_record& record, const std::string& cause) {
  Json document = enclave_document(nis_, record.id);
  document["cause"] = cause;
  Transition transition;
  transition.put_document(enclave_document_name(record.id), document);
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  spdlog::warn("enclave '{}' crashed: {}", record.name, cause);
}

// An enclave that nobody has killed by that signal may have been killed by the kernel, whose count
// is in its control group.
void EnclaveTable::note_out_of_memory(const hobbes_record& record, int exit_code) {
  const std::string group = authorization_.group_of(record.id);
  if (exit_code != 128 + SIGKILL || kill_asked_.count(record.id) != 0 || group.empty()) return;
  auto layout = CgroupLayout::detect();
  if (!layout) return;
  auto numbers = Cgroup(std::move(*layout), group).statistics();
  auto killed = numbers.find("memory.oom_kills");
  if (killed == numbers.end() || killed->second == 0) return;
  constexpr std::uint64_t unlimited = std::uint64_t{1}
                                      << 62;  // what the kernel calls unlimited is more
  std::uint64_t limit = numbers["memory.limit"];
  note_cause(record, (limit == 0 || limit >= unlimited ? std::string("the node's memory")
                                                       : "its memory of " + format_size(limit)) +
                         (batch_step_in(group).empty() ? "" : ", or its job's,") +
                         " ran out, and the kernel has killed " + std::to_string(killed->second) +
                         " of its processes");
}

// A sign of life, from any process inside, or from one that may act on the enclave it names.
Result<Reply> EnclaveTable::beat(Session& session, const Json& request) {
  const hobbes_record* found = nis_.by_id(session.inside);
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
  HOBBES_CHECK(nis_.commit(transition));
  return Reply{Json::object(), {}};
}

Result<Reply> EnclaveTable::resize(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  hobbes_record record = *found;
  if (has_ended(record))
    return Error{Code::busy, "resize enclave '" + std::string(record.name) + "'", "it does not run",
                 ""};
  hobbes_enclave& body = record.body.enclave;
  HOBBES_TRY(placement, leases_.resized(session, record, request));
  Json out = to_json(placement);
  const Placement before = placement_of(body);
  std::uint64_t memory_before = 0;
  for (std::uint64_t bytes : body.memory) memory_before += bytes;
  out["before"] = {{"cpus", before.cpus.text()}, {"memory", memory_before}};
  out["dryRun"] = request.value("dryRun", false);
  if (request.value("dryRun", false)) return Reply{out, {}};
  auto delegated = groups_.path_of(record);
  CpuSet shared = delegated ? leases_.shared_cpus(session) : CpuSet();
  if (delegated) HOBBES_CHECK(DelegatedGroups::limit(*delegated, placement, shared));
  Transition transition;
  leases_.show(transition, record, false);
  set_placement(body, placement);
  leases_.show(transition, record, true);
  transition.put(record);
  auto committed = nis_.commit(transition);
  if (!committed && delegated) (void)DelegatedGroups::limit(*delegated, before, shared);
  HOBBES_CHECK(std::move(committed));
  return Reply{out, {}};
}

Result<Reply> EnclaveTable::release(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  std::uint64_t id = found->id;
  if (ProcessId{found->body.enclave.pid, found->body.enclave.start_ticks}.alive())
    return Error{Code::busy, "release enclave '" + std::string(found->name) + "'",
                 "its process still runs", "delete it with hobbes-run"};
  session.reservations.erase(id);
  forget(id);
  return Reply{Json::object(), {}};
}

Result<Reply> EnclaveTable::describe(Session& session, const Json& request) {
  HOBBES_TRY(found, enclave_of(session, request));
  Json out = hobbes::describe(*found);
  const Json document = enclave_document(nis_, found->id);
  for (const char* key : {"root", "bundle", "labels", "annotations", "cause"})
    if (document.contains(key)) out[key] = document[key];
  // Where signs of life are promised: how often, and how old the last one is.
  if (const std::int64_t limit = number_at(document, "heartbeat");
      limit > 0 && found->state == HOBBES_RUNNING) {
    const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
    out["heartbeat"] = limit;
    out["heartbeatAgeNs"] = now - std::min(now, found->body.enclave.heartbeat_ns);
  }
  return Reply{std::move(out), {}};
}

void EnclaveTable::forget(std::uint64_t id) {
  const hobbes_record* record = nis_.by_id(id);
  if (record == nullptr) return;
  spdlog::info("enclave '{}' released", record->name);
  loop_.tick_within(unfinished_tick);  // for a group that was delegated to it
  Transition transition;
  if (!has_ended(*record)) leases_.show(transition, *record, false);
  segments_.enclave_released(id, transition);
  names_.enclave_released(id, transition);
  processes_.enclave_ended(id, transition);
  transition.erase(id);
  transition.erase_document(enclave_document_name(id));
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  exits_.forget(id);
  authorization_.forget(id);
  makers_.erase(id);
  kill_asked_.erase(id);
}

// An enclave bound to the process that made it goes with it.
void EnclaveTable::watch_maker(std::uint64_t id, const Json& document) {
  if (!document.value("bound", false)) return;
  auto maker = static_cast<pid_t>(number_at(document, "makerPid"));
  makers_[id] = maker;
  watch_(maker);
}

void EnclaveTable::ended(std::uint64_t id) {
  const hobbes_record* found = nis_.by_id(id);
  if (found == nullptr || has_ended(*found)) return exits_.forget(id);
  hobbes_record record = *found;
  // The process is gone, so its cores and memory are free; whether it crashed is known when its
  // status is.
  Transition transition;
  leases_.show(transition, record, false);
  bool crashed = has_cause(id);
  record.state = crashed ? HOBBES_CRASHED : HOBBES_STOPPED;
  transition.put(record);
  processes_.enclave_ended(id, transition);
  if (auto done = nis_.commit(transition); !done) {
    spdlog::error("{}", done.error().text());
    return exits_.forget(id);
  }
  spdlog::info("enclave '{}' {}", record.name, crashed ? "crashed" : "ended");
  for (const hobbes_record* segment : nis_.all(HOBBES_SEGMENT))
    if (segment->enclave == id && segment->body.segment.owner_pid == record.body.enclave.pid) {
      process_ended_(record.body.enclave.pid);  // of all its segments; the list is stale afterwards
      break;
    }
  loop_.tick_within(unfinished_tick);
  exits_.find_status(id);
}

// The process that was making or deleting it died. hobbes-run knows how to undo it, and does so
// with its owner's rights only.
void EnclaveTable::clean_up(const hobbes_record& record) {
  Json document = enclave_document(nis_, record.id);
  spdlog::warn("enclave '{}' was left half-made; cleaning it up", record.name);
  auto verb = read_verb({{"verb", "delete"}, {"force", true}, {"id", record.name}},
                        text_at(document, "root", root_));
  if (!verb) {
    spdlog::error("{}", verb.error().text());
    return;
  }
  auto begun = operations_.start({record.uid, record.gid, {}, {}}, *verb, Json(), record.id);
  if (!begun) spdlog::error("{}", begun.error().text());
}

// `delete` that could not reach a hobbesd leaves a note; see docs/CONTROL.md.
void EnclaveTable::consume_release_notes() {
  std::string folder = run_directory() + "/released";
  auto names = Files::system().list(folder);
  if (!names) return;
  for (const std::string& name : *names) {
    struct stat info {};
    std::string path = folder + "/" + name;
    if (::lstat(path.c_str(), &info) != 0) continue;
    const hobbes_record* record = nis_.by_id(std::strtoull(name.c_str(), nullptr, 16));
    bool gone = record != nullptr &&
                !ProcessId{record->body.enclave.pid, record->body.enclave.start_ticks}.alive();
    if (gone && S_ISREG(info.st_mode) && info.st_uid == 0) forget(record->id);
    ::unlink(path.c_str());
  }
}

void EnclaveTable::status_known(std::uint64_t id, int status) {
  const hobbes_record* found = nis_.by_id(id);
  if (found == nullptr) return;
  hobbes_record record = *found;
  note_out_of_memory(record, exit_code_of(status));
  record.body.enclave.exit_status = exit_code_of(status);
  bool faulted = (WIFSIGNALED(status) || has_cause(id)) && kill_asked_.count(id) == 0;
  if (faulted) record.state = HOBBES_CRASHED;
  Transition transition;
  transition.put(record);
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  if (faulted) spdlog::warn("enclave '{}' crashed: {}", record.name, describe_wait_status(status));
}

void EnclaveTable::leave(Session& session) {
  for (std::uint64_t id : session.reservations)
    if (const hobbes_record* record = nis_.by_id(id);
        record != nullptr && record->state == HOBBES_CREATING)
      clean_up(*record);
  session.reservations.clear();
}

// An enclave that has promised signs of life and is silent for longer counts as crashed.
void EnclaveTable::end_silent() {
  const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
  for (const hobbes_record& record : heartbeats_.silent(now)) {
    note_cause(record,
               "no heartbeat for " +
                   std::to_string((now - record.body.enclave.heartbeat_ns) / 1'000'000'000U) +
                   " s");
    auto process = ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.open();
    if (process) (void)signal_pidfd(*process, SIGKILL);
  }
}

void EnclaveTable::tick() {
  end_silent();
  consume_release_notes();
  exits_.tick();
}

// Bound enclaves go with their maker; others only when it died over the making.
void EnclaveTable::process_ended(pid_t pid) {
  for (auto at = makers_.begin(); at != makers_.end();) {
    const hobbes_record* made = at->second == pid ? nis_.by_id(at->first) : nullptr;
    if (made == nullptr) {
      ++at;
      continue;
    }
    at = makers_.erase(at);
    if (made->state != HOBBES_CREATING && !enclave_document(nis_, made->id).value("bound", false))
      continue;
    kill_asked_.insert(made->id);
    clean_up(*made);
  }
}

Result<void> EnclaveTable::adopt() {
  consume_release_notes();
  std::vector<hobbes_record> enclaves;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE)) enclaves.push_back(*record);
  for (const hobbes_record& record : enclaves) {
    Json document = enclave_document(nis_, record.id);
    std::string root = text_at(document, "root");
    bool alive = ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.alive();
    // Deleted while nobody kept the books. After a rebuild from the mirror the root is not known,
    // and the process decides.
    if (!alive && (root.empty() || ::access((root + "/" + record.name).c_str(), F_OK) != 0)) {
      forget(record.id);
      continue;
    }
    if (has_ended(record)) continue;
    Transition transition;
    leases_.show(transition, record, true);
    HOBBES_CHECK(nis_.commit(transition));
    authorization_.set_group(record.id, text_at(document, "cgroup"));
    if (record.state == HOBBES_CREATING) {
      ProcessId maker{static_cast<pid_t>(number_at(document, "makerPid")),
                      static_cast<std::uint64_t>(number_at(document, "makerStart"))};
      // Its connection died with the old hobbesd, so even a living maker will fail and clean up; a
      // dead one cannot.
      if (maker.alive()) {
        makers_[record.id] = maker.pid;
        watch_(maker.pid);
      } else {
        clean_up(record);
      }
      continue;
    }
    spdlog::info("enclave '{}' re-adopted", record.name);
    watch_maker(record.id, document);
    exits_.watch(record.id, record.name,
                 {record.body.enclave.pid, record.body.enclave.start_ticks});
  }
  return {};
}

}  // namespace hobbes
