#include "enclave/lifecycle.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "bundle/device_edits.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/log.h"
#include "core/paths.h"
#include "enclave/driver.h"
#include "enclave/hooks.h"
#include "ipc/client.h"
#include "ipc/membership.h"
#include "xemem/segment.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

Json cores_json(const CoreRequest& cores) {
  if (!cores.wanted()) return Json::object();
  Json out = {{"policy", name_of(cores.policy)}, {"shared", cores.shared}};
  if (cores.count > 0) out["count"] = cores.count;
  if (cores.list) out["list"] = cores.list->text();
  if (cores.numa) out["numa"] = *cores.numa;
  return out;
}

Json memory_json(const MemoryRequest& memory) {
  if (memory.size == 0) return Json::object();
  Json out = {{"size", memory.size}, {"pageSize", memory.page_size}};
  if (memory.numa) out["numa"] = *memory.numa;
  return out;
}

// What a bundle asks for beside the lease, for the process that limits the group.
Json limits_json(const oci::Resources& resources) {
  Json out = Json::object();
  if (resources.memory_limit) out["memory"] = *resources.memory_limit;
  if (resources.pids_limit) out["pids"] = *resources.pids_limit;
  if (resources.cpu_quota) out["cpuQuota"] = *resources.cpu_quota;
  if (resources.cpu_period) out["cpuPeriod"] = *resources.cpu_period;
  if (resources.cpu_shares) out["cpuShares"] = *resources.cpu_shares;
  return out;
}

// A dying process leaves its control group a moment before it is dead, and hobbesd frees only what
// is of the dead.
void await_end(const EnclaveRecord& record) {
  auto process = record.process.open();
  if (!process) return;
  pollfd ended{process->get(), POLLIN, 0};
  (void)::poll(&ended, 1, 5000);
}

// In the place of what the bundle has there.
void show(const std::vector<std::pair<std::string, std::string>>& mounts, Bundle& bundle) {
  for (const auto& [source, destination] : mounts) {
    std::erase_if(bundle.oci.mounts,
                  [&](const oci::Mount& m) { return m.destination == destination; });
    bundle.oci.mounts.push_back({destination, "bind", source, {"bind", "rw"}});
  }
}

void warn_of(const std::vector<Error>& failures) {
  for (const Error& error : failures) log(LogLevel::warning, error.text());
}

}  // namespace

Json reservation_of(const Bundle& bundle, const std::string& root, const std::string& id) {
  return {{"root", root},
          {"id", id},
          {"bundle", bundle.path},
          {"kind", name_of(bundle.hobbes.kind)},
          {"cores", cores_json(bundle.hobbes.cores)},
          {"memory", memory_json(bundle.hobbes.memory)},
          {"labels", bundle.hobbes.labels},
          {"devices", bundle.hobbes.devices},
          {"limits", limits_json(bundle.oci.linux_.resources)},
          {"heartbeat", bundle.hobbes.heartbeat_seconds},
          {"manage", name_of(bundle.hobbes.manage)}};
}

std::map<unsigned, std::uint64_t> memory_by_node(const Json& placement) {
  std::map<unsigned, std::uint64_t> out;
  if (auto memory = placement.find("memory"); memory != placement.end() && memory->is_object())
    for (const auto& [node, bytes] : memory->items())
      if (bytes.is_number_unsigned())
        out[static_cast<unsigned>(std::strtoul(node.c_str(), nullptr, 10))] =
            bytes.get<std::uint64_t>();
  return out;
}

Result<EnclaveRecord> create_enclave(const EnclaveRequest& options) {
  HOBBES_CHECK(check_id(options.id));
  HOBBES_TRY(bundle, load_bundle(options.bundle, options.config, options.overrides));
  if (options.terminal && bundle.oci.process) {
    bundle.oci.process->terminal = true;
    bundle.config["process"]["terminal"] = true;
  }
  for (const auto& [key, value] : options.labels) bundle.hobbes.labels[key] = value;
  // What a batch job makes is known as the job's, so that its epilog finds it.
  if (const char* job = std::getenv("SLURM_JOB_ID"))
    bundle.hobbes.labels.try_emplace("slurm.job", job);
  const Driver& driver = driver_for(bundle.hobbes.kind);
  if (auto obstacle = driver.obstacle())
    return std::move(*obstacle).within("create enclave '" + options.id + "'");
  const std::string& root = options.root;
  HOBBES_TRY(client, Client::connect());
  if (root == default_root() && ::geteuid() != 0) HOBBES_CHECK(client.call("root.make", {}));
  HOBBES_CHECK(EnclaveRecord::claim(root, options.id));

  EnclaveRecord record;
  record.root = root;
  record.id = options.id;
  record.bundle = bundle.path;
  record.oci_version = bundle.oci.version;
  record.kind = bundle.hobbes.kind;
  record.created_s = ::time(nullptr);
  record.owner = ::geteuid();
  record.annotations = bundle.oci.annotations;
  record.poststop = bundle.oci.hooks.poststop;

  // Its place in a composition comes first: without one there is nothing to make.
  std::optional<Membership> membership;
  if (const auto& wish = bundle.hobbes.remora) {
    auto joined =
        join_composition(wish->composition, wish->app, std::chrono::seconds(wish->timeout_seconds));
    if (!joined) {
      (void)remove_tree(record.folder());
      return std::move(joined.error()).within("create enclave '" + options.id + "'");
    }
    membership.emplace(std::move(*joined));
  }

  auto make = [&]() -> Result<void> {
    HOBBES_CHECK(record.save());
    Json reservation = reservation_of(bundle, root, options.id);
    reservation["bound"] = options.bound;
    HOBBES_TRY(reserved, client.call("enclave.reserve", std::move(reservation)));
    record.handle = static_cast<std::uint64_t>(number_at(reserved.body, "handle"));
    if (auto edits = reserved.body.find("deviceEdits"); edits != reserved.body.end())
      HOBBES_CHECK(apply_device_edits(bundle, *edits));
    record.poststop = bundle.oci.hooks.poststop;
    if (membership) show(membership->mounts, bundle);
    for (const SegmentRequest& segment : bundle.hobbes.segments)
      if (segment.size != 0)
        HOBBES_CHECK(declare_segment(client, segment.name, segment.size,
                                     segment.writable ? 0660 : 0440, record.handle));
    CreateRequest request;
    request.bundle = std::move(bundle);
    request.cpus = text_at(reserved.body, "cpus");
    request.mems = text_at(reserved.body, "mems");
    request.memory = static_cast<std::uint64_t>(number_at(reserved.body, "memoryTotal"));
    request.memory_by_node = memory_by_node(reserved.body);
    request.delegated_cgroup = text_at(reserved.body, "cgroup");
    request.console_socket = options.console_socket;
    request.no_pivot = options.no_pivot;
    request.no_new_keyring = options.no_new_keyring;
    request.preserve_fds = options.listen_fds + options.preserve_fds;
    if (membership) request.extra_environment = membership->environment;
    if (options.listen_fds > 0)
      request.extra_environment.push_back("LISTEN_FDS=" + std::to_string(options.listen_fds));
    if (request.bundle.hobbes.present)
      request.extra_environment.push_back("HOBBES_ENCLAVE=" + options.id);
    HOBBES_CHECK(driver.create(request, record));
    auto commit = [&]() -> Result<void> {
      if (!options.pid_file.empty())
        HOBBES_CHECK(replace_file(options.pid_file, std::to_string(record.process.pid)));
      HOBBES_TRY(committed,
                 client.call("enclave.commit", {{"handle", record.handle},
                                                {"pid", record.process.pid},
                                                {"startTicks", record.process.start_ticks},
                                                {"cgroup", record.cgroup}}));
      (void)committed;
      return {};
    };
    auto committed = commit();
    if (committed && membership)
      committed = arrive(membership->composition, request.bundle.hobbes.remora->app,
                         static_cast<int>(membership->rank), record.process.pid);
    if (!committed) (void)driver.destroy(record, milliseconds(5000));
    return committed;
  };
  auto made = make();
  if (made) return record;
  if (membership) (void)leave(membership->composition, membership->rank);
  if (!options.pid_file.empty()) ::unlink(options.pid_file.c_str());
  await_end(record);
  if (record.handle != 0) (void)client.call("enclave.release", {{"handle", record.handle}});
  (void)remove_tree(record.folder());
  return std::move(made).error();
}

namespace {

// What the enclave's own process executes; a kernel without a program is its kind's.
std::string program_of(const Json& config) {
  const Json process = config.value("process", Json::object());
  const Json args = process.is_object() ? process.value("args", Json::array()) : Json::array();
  if (args.is_array() && !args.empty() && args.front().is_string())
    return args.front().get<std::string>();
  return "";
}

}  // namespace

Result<void> start_enclave(const EnclaveRecord& record) {
  HOBBES_CHECK(driver_for(record.kind).start(record));
  auto bundle_text = Files::system().read(record.folder() + "/config.json", json_size_limit);
  auto config = bundle_text ? parse_json(*bundle_text, "config.json") : bundle_text.error();
  tell_manager(record.handle,
               {{"event", "started"},
                {"program", config ? program_of(*config) : std::string(name_of(record.kind))}});
  if (!config || !config->contains("hooks")) return {};
  Validation validation = validate_config(record.bundle, *config);
  if (!validation.bundle) return {};
  // A failing poststart hook is a warning: the program already runs. A short program may have ended
  // by now, which no hook expects.
  warn_of(run_every_hook(validation.bundle->oci.hooks.poststart, "poststart",
                         record.state(Status::running)));
  return {};
}

Result<void> remove_enclave(const EnclaveRecord& record) {
  HOBBES_CHECK(driver_for(record.kind).destroy(record, milliseconds(10'000)));
  await_end(record);
  warn_of(run_every_hook(record.poststop, "poststop", record.state()));
  HOBBES_CHECK(remove_tree(record.folder()));
  if (record.handle == 0) return {};
  auto client = Client::connect(false);
  if (client &&
      client->call("enclave.release", {{"handle", record.handle}}, {}, milliseconds(5000)))
    return {};
  if (client) return {};  // it knows no such enclave: nothing is held
  // hobbesd is away: it finds that the folder is gone when it is back; of root's it also finds a
  // note, if it was only deaf.
  (void)make_directories(run_directory() + "/released", 0700);
  (void)replace_file(run_directory() + "/released/" + hex(record.handle), "");
  return {};
}

}  // namespace hobbes
