#include "hobbesd/composition_table.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string_view>

#include "core/clock.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/process.h"
#include "enclave/describe.h"
#include "nis/view.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

constexpr std::uint32_t rank_limit = 4096, app_limit = 1024, ranks_per_user = 16384;

// hobbesd trusts what it has mapped, so the file stays root's; that only its user can read it is a
// matter of the folder.
std::string shard_folder(uid_t uid) { return run_directory() + "/keys-" + std::to_string(uid); }
std::string shard_path(uid_t uid, std::uint64_t id) {
  return shard_folder(uid) + "/nis." + hex(id);
}

}  // namespace

// {"op":"composition.begin","name":N,"apps":[{"name","enclave","ranks"}]}: everything is planned
// before anything runs.
Result<Reply> CompositionTable::begin(Session& session, const Json& request) {
  std::string name = text_at(request, "name");
  HOBBES_CHECK(check_id(name));
  if (nis_.by_name(HOBBES_COMPOSITION, session.peer.uid, name) != nullptr)
    return Error{Code::exists, "begin composition '" + name + "'", "one of that name runs",
                 "choose another name, or end it with its launcher"};
  std::uint64_t limit = policies_.of(session.peer.uid).compositions, running = 0;
  for (const hobbes_record* other : nis_.all(HOBBES_COMPOSITION))
    running += other->uid == session.peer.uid ? 1 : 0;
  if (running >= limit && !session.privileged)
    return Error{Code::exhausted, "begin composition '" + name + "'",
                 "user " + std::to_string(session.peer.uid) + " has " + std::to_string(running) +
                     " running, the quota is " + std::to_string(limit),
                 "end one, or ask the administrator to raise the quota"};
  HOBBES_TRY(launcher, ProcessId::of(session.peer.pid));
  hobbes_record composition = nis_.make(HOBBES_COMPOSITION, session.peer.uid, name);
  composition.uid = session.peer.uid;
  composition.gid = session.peer.gid;
  composition.state = HOBBES_PHASE_PLANNED;
  Transition transition;
  Json processes = Json::array();
  std::uint32_t rank = 0, number = 0;
  for (const Json& one : request.value("apps", Json::array())) {
    hobbes_record app = nis_.make(HOBBES_APP, composition.id, text_at(one, "name"));
    app.uid = session.peer.uid;
    app.gid = session.peer.gid;
    app.state = HOBBES_PHASE_PLANNED;
    app.enclave = static_cast<std::uint64_t>(number_at(one, "enclave"));
    const hobbes_record* enclave = nis_.by_id(app.enclave);
    bool own = enclave != nullptr && enclave->type == HOBBES_ENCLAVE &&
               (session.privileged || enclave->uid == session.peer.uid);
    if (app.enclave != 0 && !own)
      return Error{Code::denied, "begin composition '" + name + "'",
                   "app '" + std::string(app.name) + "' is in an enclave of somebody else's",
                   "use enclaves of your own"};
    auto ranks =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(number_at(one, "ranks"), 0, 65536));
    // From inside an enclave it says something of that one only.
    if (app.enclave != 0 && session.inside != 0 && app.enclave != session.inside)
      HOBBES_CHECK(authorization_.check_grant(session, app.enclave));
    app.body.app = {composition.id, number, ranks, rank, -1};
    if (rank + ranks > rank_limit || number >= app_limit)
      return Error{Code::exhausted, "begin composition '" + name + "'",
                   "it has more than " + std::to_string(rank_limit) + " ranks or " +
                       std::to_string(app_limit) + " apps",
                   "use fewer"};
    transition.put(app);
    for (std::uint32_t i = 0; i < ranks; ++i, ++rank) {
      hobbes_record process = nis_.make(HOBBES_PROCESS, composition.id, std::to_string(rank));
      process.uid = session.peer.uid;
      process.gid = session.peer.gid;
      process.state = HOBBES_PHASE_PLANNED;
      process.enclave = app.enclave;
      process.body.process = {composition.id,      app.id, 0, 0, number, i, rank, -1, 0, 0,
                              HOBBES_PROCESS_RANK, 0,      {}};
      std::string_view(app.name).copy(process.body.process.program, HOBBES_PROGRAM_SIZE - 1);
      transition.put(process);
      processes.push_back(process.id);
    }
    ++number;
  }
  std::uint64_t all = rank;
  for (const hobbes_record* other : nis_.all(HOBBES_COMPOSITION))
    if (other->uid == session.peer.uid) all += other->body.composition.ranks;
  if (all > ranks_per_user && !session.privileged)
    return Error{Code::exhausted, "begin composition '" + name + "'",
                 "user " + std::to_string(session.peer.uid) + " would have " + std::to_string(all) +
                     " ranks on this node",
                 "use at most " + std::to_string(ranks_per_user)};
  composition.body.composition = {launcher.start_ticks, launcher.pid, rank, number, -1};
  transition.put(composition);
  HOBBES_CHECK(nis_.commit(transition));
  MirrorShape small{1U << 8U, 1U << 10U, 64, sizeof(hobbes_record), HOBBES_NIS_MINOR};
  std::string folder = shard_folder(session.peer.uid);
  (void)::mkdir(folder.c_str(), 0700);
  (void)!::chown(folder.c_str(), session.peer.uid, session.peer.gid);
  auto shard = Mirror::create(shard_path(session.peer.uid, composition.id), 0444, small);
  if (shard) shards_.emplace(composition.id, std::move(*shard));
  session.compositions.insert(composition.id);
  return Reply{{{"handle", composition.id},
                {"processes", processes},
                {"shard", shard_path(session.peer.uid, composition.id)}},
               {}};
}

// {"op":"composition.phase","handle":H,"processes":[{"id","phase","pid","cpu","exit"}]}
Result<Reply> CompositionTable::set_phases(Session& session, const Json& request) {
  auto handle = static_cast<std::uint64_t>(number_at(request, "handle"));
  if (session.compositions.count(handle) == 0)
    return Error{Code::denied, "change a composition", "it is not this launcher's", ""};
  Transition transition;
  std::map<std::uint64_t, std::uint32_t> changed;
  for (const Json& one : request.value("processes", Json::array())) {
    const hobbes_record* found = nis_.by_id(static_cast<std::uint64_t>(number_at(one, "id")));
    if (found == nullptr || found->type != HOBBES_PROCESS ||
        found->body.process.composition != handle)
      continue;
    const hobbes_record* earlier = transition.pending(found->id);
    hobbes_record process = earlier != nullptr ? *earlier : *found;
    process.state = static_cast<std::uint32_t>(number_at(one, "phase", process.state));
    if (one.contains("pid")) {
      process.body.process.pid = static_cast<std::int32_t>(number_at(one, "pid"));
      if (!session.privileged && !process_has_user(process.body.process.pid, session.peer.uid))
        process.body.process.pid = 0;
      if (auto id = ProcessId::of(process.body.process.pid))
        process.body.process.start_ticks = id->start_ticks;
      process.body.process.started_ns = clock_ns(CLOCK_REALTIME);
    }
    if (one.contains("cpu"))
      process.body.process.cpu = static_cast<std::uint32_t>(number_at(one, "cpu"));
    if (one.contains("exit"))
      process.body.process.exit_status = static_cast<std::int32_t>(number_at(one, "exit"));
    changed[process.id] = process.state;
    transition.put(process);
  }
  // An app, and the composition, is as far as the slowest of its ranks.
  std::map<std::uint64_t, std::uint32_t> least;
  std::uint32_t slowest = HOBBES_PHASE_ENDED;
  for (const hobbes_record* process : nis_.all(HOBBES_PROCESS)) {
    if (process->body.process.composition != handle) continue;
    auto at = changed.find(process->id);
    std::uint32_t phase = at != changed.end() ? at->second : process->state;
    auto [app, fresh] = least.emplace(process->body.process.app, phase);
    if (!fresh) app->second = std::min(app->second, phase);
    slowest = std::min(slowest, phase);
  }
  for (const auto& [id, phase] : least)
    if (const hobbes_record* app = nis_.by_id(id); app != nullptr && app->state != phase) {
      hobbes_record record = *app;
      record.state = phase;
      transition.put(record);
    }
  if (const hobbes_record* composition = nis_.by_id(handle);
      composition != nullptr && composition->state != slowest) {
    hobbes_record record = *composition;
    record.state = slowest;
    transition.put(record);
  }
  HOBBES_CHECK(nis_.commit(transition));
  return Reply{Json::object(), {}};
}

// {"op":"composition.keys","handle":H,"keys":{name:value}}: what ranks published, readable by their
// user only.
Result<Reply> CompositionTable::put_keys(Session& session, const Json& request) {
  auto handle = static_cast<std::uint64_t>(number_at(request, "handle"));
  auto shard = shards_.find(handle);
  if (session.compositions.count(handle) == 0 || shard == shards_.end())
    return Error{Code::denied, "publish keys", "the composition is not this launcher's", ""};
  // As many as ranks publish, and no more: the shard is memory of the run directory.
  const hobbes_record* composition = nis_.by_id(handle);
  std::uint64_t most =
      1024 + 64ULL * (composition != nullptr ? composition->body.composition.ranks : 0);
  std::uint32_t slot = 0;
  NisView view(shard->second.base(), shard->second.size());
  const Json keys = request.value("keys", Json::object());
  for (const auto& [name, value] : keys.items()) {
    if (!value.is_string()) continue;
    auto text = value.get<std::string>();
    hobbes_record record{}, old{};
    while (view.slot(slot, &old) == NisView::Status::good && name != old.name) ++slot;
    if (slot >= most)
      return Error{Code::exhausted, "publish keys",
                   "the composition has " + std::to_string(most) + " already", "publish fewer"};
    record.id = std::uint64_t{1} << 32U | slot;
    record.type = HOBBES_KEY;
    record.size = sizeof record;
    set_name(record, name);
    record.body.key.size =
        static_cast<std::uint32_t>(std::min(text.size(), sizeof record.body.key.value));
    std::copy_n(text.begin(), record.body.key.size, record.body.key.value);
    HOBBES_CHECK(shard->second.publish(record));
    view = NisView(shard->second.base(), shard->second.size());
    ++slot;
  }
  return Reply{Json::object(), {}};
}

Result<Reply> CompositionTable::end(Session& session, const Json& request) {
  auto handle = static_cast<std::uint64_t>(number_at(request, "handle"));
  if (session.compositions.erase(handle) == 0)
    return Error{Code::denied, "end a composition", "it is not this launcher's", ""};
  drop(handle, static_cast<int>(number_at(request, "exit", -1)));
  return Reply{Json::object(), {}};
}

void CompositionTable::drop(std::uint64_t id, int exit_status) {
  const hobbes_record* composition = nis_.by_id(id);
  if (composition == nullptr) return;
  spdlog::info("composition '{}' ended: {}", composition->name, exit_status);
  std::string shard = shard_path(composition->uid, id);
  Transition transition;
  for (const hobbes_record* app : nis_.all(HOBBES_APP)) {
    if (app->body.app.composition != id) continue;
    // A launcher that was killed has left its ranks' children in enclaves that it only used.
    if (std::string group = authorization_.group_of(app->enclave); !group.empty())
      ended_groups_.insert(group + "/" + composition_group(id));
    loop_.tick_within(unfinished_tick);
    transition.erase(app->id);
  }
  for (const hobbes_record* process : nis_.all(HOBBES_PROCESS))
    if (process->body.process.composition == id) transition.erase(process->id);
  names_.composition_ended(id, transition);
  transition.erase(id);
  if (auto done = nis_.commit(transition); !done) spdlog::error("{}", done.error().text());
  shards_.erase(id);
  ::unlink(shard.c_str());
}

// Groups of compositions that have ended, as long as something is left of them.
void CompositionTable::sweep() {
  for (auto at = ended_groups_.begin(); at != ended_groups_.end();) {
    auto layout = CgroupLayout::detect();
    bool gone = !layout;
    if (layout) {
      Cgroup group(std::move(*layout), *at);
      (void)group.kill_all(milliseconds(0));
      gone = !group.exists() || group.remove(milliseconds(0));
    }
    at = gone ? ended_groups_.erase(at) : std::next(at);
  }
}

void CompositionTable::adopt() {
  std::vector<hobbes_record> all;
  for (const hobbes_record* record : nis_.all(HOBBES_COMPOSITION)) all.push_back(*record);
  for (const hobbes_record& record : all) drop(record.id, -1);
}

}  // namespace hobbes
