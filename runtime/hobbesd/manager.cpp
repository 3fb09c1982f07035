#include "hobbesd/manager.h"

#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "enclave/describe.h"

namespace hobbes {

Manager::Manager(Loop& loop, std::unique_ptr<Nis> nis, Inventory inventory, Policies policies,
                 std::string root)
    : loop_(loop),
      nis_(std::move(nis)),
      inventory_(std::move(inventory)),
      policies_(std::move(policies)),
      root_(std::move(root)),
      names_(*nis_, policies_, [this](pid_t pid) { watch_process(pid); }),
      processes_(*nis_, [this](pid_t pid) { watch_process(pid); }) {}

Manager::~Manager() = default;

// Cores that co-kernels run on are not there for Linux, so discovery has missed them: they are
// taken from the records of before.
void Manager::recall_detached_cores() {
  for (const hobbes_record* record : nis_->all(HOBBES_CORE)) {
    CpuSet threads = cpus_of(record->body.core.cpus);
    if (record->state != HOBBES_CORE_DETACHED || !(inventory_.all_cpus() & threads).empty())
      continue;
    const hobbes_core& body = record->body.core;
    inventory_.cores.push_back({0, body.package, body.numa, body.l3, threads});
    inventory_.usable = inventory_.usable | threads;
    for (NumaNode& node : inventory_.nodes)
      if (node.id == body.numa) node.cpus = node.cpus | threads;
  }
  std::stable_sort(inventory_.cores.begin(), inventory_.cores.end(),
                   [](const Core& a, const Core& b) {
                     return std::pair(a.package, a.threads.members().front()) <
                            std::pair(b.package, b.threads.members().front());
                   });
  for (unsigned i = 0; i < inventory_.cores.size(); ++i) inventory_.cores[i].id = i;
}

Result<void> Manager::publish_node() {
  Transition transition;
  // Facts about the node are found anew at every start; who leases a core follows from the
  // enclaves.
  for (std::uint16_t type : {HOBBES_CORE, HOBBES_NUMA, HOBBES_NODE})
    for (const hobbes_record* old : nis_->all(type)) transition.erase(old->id);
  HOBBES_CHECK(nis_->commit(transition));
  Transition fresh;
  for (const Core& core : inventory_.cores) {
    hobbes_record record = nis_->make(HOBBES_CORE, 0, "core" + std::to_string(core.id));
    set_cpus(record.body.core.cpus, core.threads);
    record.body.core.number = core.id;
    record.body.core.package = core.package;
    record.body.core.numa = core.numa;
    record.body.core.l3 = core.l3;
    bool online = !(core.threads & inventory_.usable).empty();
    bool reserved = !(core.threads & policies_.reserved).empty();
    record.state = !online    ? HOBBES_CORE_OFFLINE
                   : reserved ? HOBBES_CORE_RESERVED
                              : HOBBES_CORE_FREE;
    fresh.put(record);
  }
  for (const NumaNode& node : inventory_.nodes) {
    hobbes_record record = nis_->make(HOBBES_NUMA, 0, "numa" + std::to_string(node.id));
    record.body.numa.total = node.memory + node.detached;
    record.body.numa.reserved = node.memory / 100 * Limits().host_memory_percent;
    set_cpus(record.body.numa.cpus, node.cpus);
    record.body.numa.number = node.id;
    record.body.numa.package = node.package;
    fresh.put(record);
  }
  HOBBES_TRY(self, ProcessId::of(::getpid()));
  hobbes_record node = nis_->make(HOBBES_NODE, 0, "node");
  set_cpus(node.body.node.reserved_cpus, policies_.reserved);
  node.body.node.daemon_pid = self.pid;
  node.body.node.daemon_start_ticks = self.start_ticks;
  node.body.node.cores = static_cast<std::uint32_t>(inventory_.cores.size());
  node.body.node.packages = inventory_.packages;
  node.body.node.numa_nodes = static_cast<std::uint32_t>(inventory_.nodes.size());
  fresh.put(node);
  fresh.put_document("node/inventory", to_json(inventory_));
  return nis_->commit(fresh);
}

Result<void> Manager::adopt() {
  recall_detached_cores();
  HOBBES_CHECK(publish_node());
  consume_release_notes();
  std::vector<hobbes_record> enclaves;
  for (const hobbes_record* record : nis_->all(HOBBES_ENCLAVE)) enclaves.push_back(*record);
  for (const hobbes_record& record : enclaves) {
    Json document = nis_->document("volatile/enclave/" + hex(record.id)).value_or(Json::object());
    std::string root = text_at(document, "root");
    bool alive = ProcessId{record.body.enclave.pid, record.body.enclave.start_ticks}.alive();
    bool ended = record.state == HOBBES_STOPPED || record.state == HOBBES_CRASHED;
    // Deleted while nobody kept the books. After a rebuild from the mirror the root is not known,
    // and the process decides.
    if (!alive && (root.empty() || ::access((root + "/" + record.name).c_str(), F_OK) != 0)) {
      forget(record.id);
      continue;
    }
    if (ended) continue;
    Transition transition;
    add_core_changes(transition, record, true);
    HOBBES_CHECK(nis_->commit(transition));
    cgroups_[record.id] = text_at(document, "cgroup");
    if (record.state == HOBBES_CREATING) {
      ProcessId maker{static_cast<pid_t>(number_at(document, "makerPid")),
                      static_cast<std::uint64_t>(number_at(document, "makerStart"))};
      // Its connection died with the old hobbesd, so even a living maker will fail and clean up; a
      // dead one cannot.
      if (maker.alive()) {
        makers_[record.id] = maker.pid;
        watch_process(maker.pid);
      } else {
        clean_up(record);
      }
      continue;
    }
    spdlog::info("enclave '{}' re-adopted", record.name);
    watch_maker(record.id, document);
    watch_enclave(record);
  }
  adopt_segments();
  names_.adopt();
  processes_.adopt();
  std::vector<hobbes_record> compositions;
  for (const hobbes_record* record : nis_->all(HOBBES_COMPOSITION)) compositions.push_back(*record);
  for (const hobbes_record& record : compositions) drop_composition(record.id, -1);
  for (const std::string& name : nis_->document_names("volatile/operation/")) {
    auto document = nis_->document(name);
    if (!document) continue;
    next_operation_ =
        std::max(next_operation_, static_cast<std::uint64_t>(std::strtoull(
                                      text_at(*document, "operation").c_str(), nullptr, 10)) +
                                      1);
    if (text_at(*document, "state") != "running") continue;
    (*document)["state"] = "failed";
    (*document)["error"] =
        to_json(Error{Code::unavailable, text_at(*document, "verb"),
                      "hobbesd was restarted meanwhile", "see the enclave's state"});
    Transition transition;
    transition.put_document(name, *document);
    HOBBES_CHECK(nis_->commit(transition));
  }
  for (const std::string& note : nis_->notes()) spdlog::warn("{}", note);
  return {};
}

Result<Reply> Manager::node(const Json&) {
  Json notes = nis_->notes();
  Limits limits;
  limits.reserved = policies_.reserved;
  return Reply{{{"inventory", to_json(inventory_)},
                {"free", free_cpus(inventory_, leases(), limits).text()},
                {"reserved", policies_.reserved.text()},
                {"records", nis_->size()},
                {"sequence", nis_->sequence()},
                {"pid", ::getpid()},
                {"notes", notes}},
               {}};
}

Result<void> Manager::set_policies(Policies policies) {
  HOBBES_CHECK(policies.check(inventory_.all_cpus()));
  Transition transition;
  for (const hobbes_record* core : nis_->all(HOBBES_CORE)) {
    if (core->state != HOBBES_CORE_FREE && core->state != HOBBES_CORE_RESERVED) continue;
    hobbes_record changed = *core;
    changed.state = (cpus_of(core->body.core.cpus) & policies.reserved).empty()
                        ? HOBBES_CORE_FREE
                        : HOBBES_CORE_RESERVED;
    if (changed.state != core->state) transition.put(changed);
  }
  for (const hobbes_record* node : nis_->all(HOBBES_NODE)) {
    hobbes_record changed = *node;
    set_cpus(changed.body.node.reserved_cpus, policies.reserved);
    transition.put(changed);
  }
  HOBBES_CHECK(nis_->commit(transition));
  policies_ = std::move(policies);
  return {};
}

// Who asks: the pid is looked up first, and was the peer's if the peer is alive afterwards.
Result<void> Manager::identify(Session& session, const std::string& op) const {
  session.inside = 0;
  session.allowed = CpuSet();
  session.privileged = session.peer.uid == 0;
  if (session.peer.pid == 0) return {};
  session.inside = enclave_containing(session.peer.pid);
  // The dearest question, which is none of those who only talk.
  static const std::set<std::string> talking = {"channel", "name", "process", "segment", "self"};
  if (talking.count(op.substr(0, op.find('.'))) == 0)
    session.allowed = allowed_cpus(session.peer.pid);
  if (!session.peer.alive())
    return Error{Code::denied, "answer a request", "the process that connected has ended",
                 "connect from the process that asks"};
  if (session.inside != 0 && grant_of(session.inside) != Grant::node) session.privileged = false;
  return {};
}

Result<Reply> Manager::handle(Session& session, const Json& request) {
  std::string op = text_at(request, "op");
  try {
    nis_->forget_uncommitted();  // of a request that was refused half-way
    HOBBES_CHECK(identify(session, op));
    return dispatch(session, op, request);
  } catch (const std::exception&
               e) {  // a field of an unexpected type, or more of something than there is memory for
    return Error{Code::invalid, "answer request '" + op + "'", e.what(), "see docs/CONTROL.md"};
  }
}

Result<Reply> Manager::dispatch(Session& session, const std::string& op, const Json& request) {
  using Simple = Result<Reply> (Manager::*)(Session&, const Json&);
  static const std::map<std::string, Simple> table = {
      {"plan", &Manager::plan},
      {"enclave.reserve", &Manager::reserve},
      {"enclave.commit", &Manager::commit_enclave},
      {"enclave.event", &Manager::change_state},
      {"enclave.resize", &Manager::resize},
      {"enclave.beat", &Manager::beat},
      {"enclave.enter", &Manager::enter_enclave},
      {"enclave.freeze", &Manager::freeze_enclave},
      {"root.make", &Manager::make_root},
      {"enclave.release", &Manager::release},
      {"enclave.describe", &Manager::describe_enclave},
      {"segment.make", &Manager::make_segment},
      {"segment.get", &Manager::get_segment},
      {"segment.attach", &Manager::attach_segment},
      {"segment.detach", &Manager::detach_segment},
      {"segment.remove", &Manager::remove_segment},
      {"segment.listen", &Manager::listen_to_segment},
      {"segment.listeners", &Manager::listeners_of_segment},
      {"name.publish", &Manager::publish_name},
      {"name.withdraw", &Manager::withdraw_name},
      {"channel.connect", &Manager::connect_channel},
      {"self", &Manager::self},
      {"process.begin", &Manager::begin_process},
      {"process.end", &Manager::end_process},
      {"process.kill", &Manager::kill_process},
      {"composition.begin", &Manager::begin_composition},
      {"composition.phase", &Manager::set_phases},
      {"composition.keys", &Manager::put_keys},
      {"composition.end", &Manager::end_composition},
      {"operation.begin", &Manager::begin_operation},
      {"operation.get", &Manager::operation}};
  if (op == "node") return node(request);
  if (op == "ping") return Reply{Json::object(), {}};
  auto at = table.find(op);
  if (at == table.end())
    return Error{Code::invalid, "answer a request", "the operation '" + op + "' is unknown",
                 "see docs/CONTROL.md"};
  // From inside an enclave every way to take or change resources needs its grant.
  if (op == "enclave.reserve") HOBBES_CHECK(check_grant(session, 0));
  static const std::set<std::string> acting = {"enclave.commit", "enclave.event", "enclave.resize",
                                               "enclave.release", "enclave.freeze"};
  if (acting.count(op) != 0) {
    HOBBES_TRY(target, enclave_of(session, request));
    // An enclave's own process may say that it has crashed.
    bool own_end = op == "enclave.event" && text_at(request, "event") == "crashed" &&
                   session.peer.pid == target->body.enclave.pid;
    if (!own_end) HOBBES_CHECK(check_grant(session, target->id));
  }
  return (this->*at->second)(session, request);
}

Result<Reply> Manager::begin_process(Session& session, const Json& request) {
  HOBBES_TRY(enclave, enclave_of(session, request));
  HOBBES_CHECK(check_grant(session, enclave->id));
  const std::uint64_t place = enclave_containing(static_cast<pid_t>(number_at(request, "pid")));
  return processes_.begin(session, *enclave, place, request);
}

Result<Reply> Manager::kill_process(Session& session, const Json& request) {
  HOBBES_TRY(process, processes_.find(request));
  HOBBES_CHECK(check_grant(session, process.enclave));
  return processes_.kill(session, process, request);
}

void Manager::tick() {
  nis_->beat();
  check_heartbeats();
  consume_release_notes();
  bool unfinished = sweep_lent_groups(1);
  sweep_ended_groups();
  std::vector<std::pair<std::uint64_t, int>> unknown;
  for (const auto& [id, ending] : endings_) unknown.emplace_back(id, ending.pidfd.get());
  for (const auto& [id, fd] : unknown) learn_exit_status(id, fd);
  stop_listening_for_ends();
  // Orphans of operations (enclave processes of REST clients) are reparented to us; reap those
  // nobody else waits for.
  siginfo_t info{};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
    bool ours = false;
    for (const auto& [name, operation] : operations_) ours = ours || operation.pid == info.si_pid;
    auto held = [&](std::uint64_t id) {
      const hobbes_record* record = nis_->by_id(id);
      return record != nullptr && record->body.enclave.pid == info.si_pid;
    };
    for (const auto& [id, fd] : enclave_watches_) ours = ours || held(id);
    for (const auto& [id, ending] : endings_) ours = ours || held(id);
    if (ours) break;
    ::waitpid(info.si_pid, nullptr, 0);
    info = {};
  }
  // Readers of the mirror want a sign of life every second. More often only while there is
  // something to finish.
  unfinished = unfinished || !endings_.empty() || !ended_groups_.empty();
  loop_.tick_within(unfinished ? unfinished_tick : idle_tick);
}

}  // namespace hobbes
