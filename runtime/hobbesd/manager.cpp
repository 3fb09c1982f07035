#include "hobbesd/manager.h"

#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/clock.h"
#include "core/paths.h"
#include "enclave/describe.h"

namespace hobbes {
namespace {

constexpr std::uint64_t steer_period_ns = 10'000'000'000;

}  // namespace

Manager::Manager(Loop& loop, std::unique_ptr<Nis> nis, Inventory inventory, Policies policies,
                 std::string root)
    : loop_(loop),
      nis_(std::move(nis)),
      inventory_(std::move(inventory)),
      policies_(std::move(policies)),
      watcher_(loop_, [this](pid_t pid) { process_ended(pid); }),
      authorization_(*nis_),
      leases_(*nis_, inventory_, policies_),
      steering_(run_directory() + "/interrupts.json"),
      groups_(*nis_, policies_),
      devices_(*nis_, policies_),
      names_(*nis_, policies_, [this](pid_t pid) { watcher_.watch(pid); }),
      processes_(*nis_, [this](pid_t pid) { watcher_.watch(pid); }),
      bells_(*nis_),
      segments_(*nis_, policies_, names_, bells_, [this](pid_t pid) { watcher_.watch(pid); }),
      compositions_(loop_, *nis_, policies_, authorization_, names_),
      operations_(loop_, *nis_, policies_, [this](std::uint64_t id) { enclaves_.forget(id); }),
      enclaves_({loop_, *nis_, leases_, authorization_, groups_, devices_, segments_, names_,
                 processes_, operations_, std::move(root),
                 [this](pid_t pid) { watcher_.watch(pid); },
                 [this](pid_t pid) { watcher_.end(pid); }}) {}

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
  HOBBES_CHECK(operations_.adopt());  // before an enclave may need one to be cleaned up
  HOBBES_CHECK(enclaves_.adopt());
  segments_.adopt();
  names_.adopt();
  processes_.adopt();
  compositions_.adopt();
  steer_interrupts();
  for (const std::string& note : nis_->notes()) spdlog::warn("{}", note);
  return {};
}

Result<Reply> Manager::node() {
  return Reply{{{"inventory", to_json(inventory_)},
                {"free", leases_.free().text()},
                {"reserved", policies_.reserved.text()},
                {"records", nis_->size()},
                {"sequence", nis_->sequence()},
                {"pid", ::getpid()},
                {"notes", Json(nis_->notes())}},
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

Result<Reply> Manager::handle(Session& session, const Json& request) {
  std::string op = text_at(request, "op");
  try {
    nis_->forget_uncommitted();  // of a request that was refused half-way
    HOBBES_CHECK(authorization_.identify(session, op));
    auto reply = dispatch(session, op, request);
    steer_interrupts();
    return reply;
  } catch (const std::exception&
               e) {  // a field of an unexpected type, or more of something than there is memory for
    return Error{Code::invalid, "answer request '" + op + "'", e.what(), "see docs/CONTROL.md"};
  }
}

Result<Reply> Manager::dispatch(Session& session, const std::string& op, const Json& request) {
  using Answer = Result<Reply> (*)(Manager&, Session&, const Json&);
  static const std::map<std::string, Answer> table = {
      {"plan", [](auto& m, auto& s, auto& r) { return m.plan(s, r); }},
      {"devices", [](auto& m, auto&, auto&) { return m.devices_.list(); }},
      {"root.make", [](auto& m, auto& s, auto& r) { return m.enclaves_.make_root(s, r); }},
      {"enclave.reserve", [](auto& m, auto& s, auto& r) { return m.enclaves_.reserve(s, r); }},
      {"enclave.commit", [](auto& m, auto& s, auto& r) { return m.enclaves_.commit(s, r); }},
      {"enclave.event", [](auto& m, auto& s, auto& r) { return m.enclaves_.change_state(s, r); }},
      {"enclave.resize", [](auto& m, auto& s, auto& r) { return m.enclaves_.resize(s, r); }},
      {"enclave.beat", [](auto& m, auto& s, auto& r) { return m.enclaves_.beat(s, r); }},
      {"enclave.enter", [](auto& m, auto& s, auto& r) { return m.enter_enclave(s, r); }},
      {"enclave.freeze", [](auto& m, auto& s, auto& r) { return m.freeze_enclave(s, r); }},
      {"enclave.release", [](auto& m, auto& s, auto& r) { return m.enclaves_.release(s, r); }},
      {"enclave.describe", [](auto& m, auto& s, auto& r) { return m.enclaves_.describe(s, r); }},
      {"segment.make", [](auto& m, auto& s, auto& r) { return m.segments_.make(s, r); }},
      {"segment.get", [](auto& m, auto& s, auto& r) { return m.segments_.get(s, r); }},
      {"segment.attach", [](auto& m, auto& s, auto& r) { return m.segments_.attach(s, r); }},
      {"segment.detach", [](auto& m, auto& s, auto& r) { return m.segments_.detach(s, r); }},
      {"segment.remove", [](auto& m, auto& s, auto& r) { return m.segments_.remove(s, r); }},
      {"segment.listen", [](auto& m, auto& s, auto& r) { return m.bells_.listen(s, r); }},
      {"segment.listeners", [](auto& m, auto& s, auto& r) { return m.bells_.listeners(s, r); }},
      {"name.publish", [](auto& m, auto& s, auto& r) { return m.names_.publish(s, r); }},
      {"name.withdraw", [](auto& m, auto& s, auto& r) { return m.names_.withdraw(s, r); }},
      {"channel.connect", [](auto& m, auto& s, auto& r) { return m.names_.connect(s, r); }},
      {"self", [](auto& m, auto& s, auto& r) { return m.names_.self(s, r); }},
      {"process.begin", [](auto& m, auto& s, auto& r) { return m.begin_process(s, r); }},
      {"process.end", [](auto& m, auto& s, auto& r) { return m.processes_.end(s, r); }},
      {"process.kill", [](auto& m, auto& s, auto& r) { return m.kill_process(s, r); }},
      {"composition.begin", [](auto& m, auto& s, auto& r) { return m.compositions_.begin(s, r); }},
      {"composition.phase",
       [](auto& m, auto& s, auto& r) { return m.compositions_.set_phases(s, r); }},
      {"composition.keys",
       [](auto& m, auto& s, auto& r) { return m.compositions_.put_keys(s, r); }},
      {"composition.end", [](auto& m, auto& s, auto& r) { return m.compositions_.end(s, r); }},
      {"operation.begin", [](auto& m, auto& s, auto& r) { return m.begin_operation(s, r); }},
      {"operation.get", [](auto& m, auto& s, auto& r) { return m.operations_.get(s, r); }}};
  if (op == "node") return node();
  if (op == "ping") return Reply{Json::object(), {}};
  auto at = table.find(op);
  if (at == table.end())
    return Error{Code::invalid, "answer a request", "the operation '" + op + "' is unknown",
                 "see docs/CONTROL.md"};
  // From inside an enclave every way to take or change resources needs its grant.
  if (op == "enclave.reserve") HOBBES_CHECK(authorization_.check_grant(session, 0));
  static const std::set<std::string> acting = {"enclave.commit", "enclave.event", "enclave.resize",
                                               "enclave.release", "enclave.freeze"};
  if (acting.count(op) != 0) {
    HOBBES_TRY(target, enclaves_.enclave_of(session, request));
    // An enclave's own process may say that it has crashed.
    bool own_end = op == "enclave.event" && text_at(request, "event") == "crashed" &&
                   session.peer.pid == target->body.enclave.pid;
    if (!own_end) HOBBES_CHECK(authorization_.check_grant(session, target->id));
  }
  return at->second(*this, session, request);
}

Result<Reply> Manager::plan(Session& session, const Json& request) {
  HOBBES_TRY(planned, leases_.plan(session, request));
  HOBBES_CHECK(devices_.plan(session, request));
  return std::move(planned);
}

Result<Reply> Manager::enter_enclave(Session& session, const Json& request) {
  HOBBES_TRY(enclave, enclaves_.enclave_of(session, request));
  HOBBES_CHECK(authorization_.check_grant(session, enclave->id));
  return groups_.enter(*enclave, authorization_, request);
}

Result<Reply> Manager::freeze_enclave(Session& session, const Json& request) {
  HOBBES_TRY(enclave, enclaves_.enclave_of(session, request));
  return groups_.freeze(*enclave, request);
}

Result<Reply> Manager::begin_process(Session& session, const Json& request) {
  HOBBES_TRY(enclave, enclaves_.enclave_of(session, request));
  HOBBES_CHECK(authorization_.check_grant(session, enclave->id));
  const auto pid = static_cast<pid_t>(number_at(request, "pid"));
  return processes_.begin(session, *enclave, authorization_.enclave_containing(pid), request);
}

Result<Reply> Manager::kill_process(Session& session, const Json& request) {
  HOBBES_TRY(process, processes_.find(request));
  HOBBES_CHECK(authorization_.check_grant(session, process.enclave));
  return processes_.kill(session, process, request);
}

Result<Reply> Manager::begin_operation(Session& session, const Json& request) {
  HOBBES_TRY(verb, read_verb(request, default_root(session.peer.uid)));
  const hobbes_record* target = enclaves_.find(session, verb.root, verb.id);
  // A grant over itself names an enclave that is there; what makes one is not within it.
  HOBBES_CHECK(authorization_.check_grant(
      session, verb.makes_an_enclave() || target == nullptr ? 0 : target->id));
  return operations_.begin(session, verb, target, request);
}

void Manager::leave(Session& session) {
  enclaves_.leave(session);
  for (std::uint64_t id : session.compositions) compositions_.drop(id, -1);
  session.compositions.clear();
}

void Manager::process_ended(pid_t pid) {
  enclaves_.process_ended(pid);
  steer_interrupts();
  Transition transition;
  segments_.process_ended(pid, transition);
  names_.process_ended(pid, transition);
  processes_.process_ended(pid, transition);
  if (auto done = nis_->commit(transition); !done) spdlog::error("{}", done.error().text());
}

// Children that no table waits for: enclave processes of REST clients, which are ours once their
// operation has ended, and what else was left to us.
void Manager::reap_orphans() const {
  siginfo_t info{};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
    if (operations_.is_of(info.si_pid) || enclaves_.waits_for(info.si_pid)) break;
    ::waitpid(info.si_pid, nullptr, 0);
    info = {};
  }
}

// When a lease has changed, and from time to time for interrupts that are new or could not be
// moved.
void Manager::steer_interrupts() {
  const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
  const bool due = now >= steer_again_ns_;
  if (!due && nis_->sequence() == steered_sequence_) return;
  steered_sequence_ = nis_->sequence();
  const CpuSet cpus = policies_.steer_interrupts ? leases_.exclusive() : CpuSet();
  if (!due && cpus == steered_) return;
  steered_ = cpus;
  steer_again_ns_ = now + steer_period_ns;
  auto done = steering_.keep_off(cpus);
  const std::string trouble = done ? "" : done.error().text();
  if (trouble != steering_trouble_ && !trouble.empty()) spdlog::warn("{}", trouble);
  steering_trouble_ = trouble;
}

void Manager::tick() {
  nis_->beat();
  enclaves_.tick();
  steer_interrupts();
  bool unfinished = groups_.sweep(1);
  compositions_.sweep();
  reap_orphans();
  // Readers of the mirror want a sign of life every second. More often only while there is
  // something to finish.
  unfinished = unfinished || enclaves_.unfinished() || compositions_.unfinished();
  loop_.tick_within(unfinished ? unfinished_tick : idle_tick);
}

}  // namespace hobbes
