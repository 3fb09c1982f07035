#include "remora/stage.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "core/file.h"
#include "core/paths.h"
#include "core/process.h"
#include "core/size.h"
#include "enclave/lifecycle.h"
#include "remora/open_mpi.h"

namespace hobbes {
namespace {

Json bind_mount(const std::string& source, const std::string& destination, bool writable) {
  return {{"destination", destination},
          {"type", "bind"},
          {"source", source},
          {"options", {"bind", writable ? "rw" : "ro"}}};
}

// The configuration moves, so what it names relative to its bundle is named in full.
Json with_full_names(const Bundle& bundle) {
  Json config = bundle.config;
  for (const char* place : {"/root/path", "/hobbes/image/kernel", "/hobbes/image/initrd",
                            "/vm/kernel/path", "/vm/kernel/initrd", "/vm/image/path"}) {
    Json::json_pointer at(place);
    if (std::string path = config.contains(at) ? config[at].get<std::string>() : "";
        !path.empty() && path.front() != '/')
      config[at] = bundle.path + "/" + path;
  }
  return config;
}

// A bundle's configuration with what a composition adds: the shared memory, the session's folder,
// our libraries and the programs.
Json staged_config(const Bundle& bundle, const Composition& composition, std::size_t enclave,
                   const std::string& session, const std::string& share,
                   const std::string& folder) {
  Json config = with_full_names(bundle);
  if (config.contains("root") && !bundle.hobbes.host_root) config["root"]["path"] = bundle.rootfs();
  if (bundle.hobbes.kind == Kind::palacios) {  // it waits for programs
    config.erase("process");
    config["hobbes"]["image"]["agent"] = true;
  } else if (::geteuid() != 0) {
    // Ranks run as their launcher; a user without privilege must be himself inside, too.
    config["process"]["user"] = {{"uid", ::geteuid()}, {"gid", ::getegid()}};
  }
  Json mounts = Json::array();
  for (const Json& mount : config.value("mounts", Json::array()))
    if (text_at(mount, "destination") != "/dev/shm") mounts.push_back(mount);
  mounts.push_back(bind_mount(session + "/shm", "/dev/shm", true));
  mounts.push_back(bind_mount(session, session, true));
  if (!share.empty()) mounts.push_back(bind_mount(share, share, true));
  if (bundle.hobbes.host_root && !folder.empty())
    mounts.push_back(bind_mount(folder, folder, true));
  // The host's tree shows everything but what is below the private /tmp; an image has none of it.
  std::string component = component_directory();
  std::string library = component.substr(0, component.rfind('/')) + "/libremora.so";
  std::set<std::string> wanted;
  auto hidden = [&](const std::string& path) { return path.rfind("/tmp/", 0) == 0; };
  for (const std::string& path : {component, library})
    if (!bundle.hobbes.host_root || hidden(path)) wanted.insert(path);
  auto shown = [](const std::string& path, const std::string& by) {
    return !by.empty() && path.rfind(by + "/", 0) == 0;
  };
  for (const CompositionApp& app : composition.apps)
    if (app.enclave == enclave && bundle.hobbes.host_root && hidden(app.path) &&
        !shown(app.path, folder) && !shown(app.path, share))
      wanted.insert(app.path.substr(0, app.path.rfind('/')));
  for (const std::string& path : wanted) mounts.push_back(bind_mount(path, path, false));
  std::set<std::string> directories;
  for (const CompositionApp& app : composition.apps)
    if (app.enclave == enclave && bundle.hobbes.host_root && hidden(app.directory) &&
        app.directory != folder && !shown(app.directory, folder) &&
        !shown(app.directory + "/", share))
      directories.insert(app.directory);
  for (const std::string& path : directories)
    if (Files::system().exists(path)) mounts.push_back(bind_mount(path, path, true));
  config["mounts"] = mounts;
  return config;
}

// The folder that a user works in is shown, writable, in enclaves that show the host's tree.
// Folders that each enclave has of its own are not.
std::string shown_folder(const std::string& folder) {
  for (const char* own : {"/proc", "/sys", "/dev", "/run"})
    if (folder == own || folder.rfind(std::string(own) + "/", 0) == 0) return "";
  return folder == "/" ? "" : folder;
}

void note_namespaces(const oci::Config& oci, Stage::Place& place) {
  for (const oci::Namespace& space : oci.linux_.namespaces) {
    place.own_pid_namespace = place.own_pid_namespace || space.type == "pid";
    place.own_user_namespace = place.own_user_namespace || space.type == "user";
  }
  // Users without privilege make every enclave in a user namespace of its own.
  place.own_user_namespace = place.own_user_namespace || ::geteuid() != 0;
}

// As an enclave was made from it: with what its devices have changed.
Result<Bundle> bundle_in(const EnclaveRecord& record) {
  HOBBES_TRY(text, Files::system().read(record.folder() + "/config.json", json_size_limit));
  HOBBES_TRY(json, parse_json(text, "config.json"));
  Validation validation = validate_config(record.bundle, json);
  if (validation.bundle) return std::move(*validation.bundle);
  return Error{Code::corrupt, "use enclave '" + record.id + "'", report(validation.problems), ""};
}

Result<Stage::Place> borrow(const Composition& composition, std::size_t index) {
  const CompositionEnclave& enclave = composition.enclaves[index];
  Stage::Place place;
  HOBBES_TRY(record, EnclaveRecord::load(default_root(), enclave.existing));
  for (const CompositionApp& app : composition.apps)
    if (app.enclave == index && app.mpi && record.kind == Kind::palacios)
      return Error{
          Code::unsupported, "run app \"" + app.name + "\" (line " + std::to_string(app.line) + ")",
          "its enclave is a virtual machine that was made before, whose guest does not see the "
          "composition's shared memory",
          "name its bundle instead, or say mpi=\"no\" if the app does without"};
  Status now = record.status();
  if (now != Status::running && (now != Status::created || record.kind == Kind::palacios))
    return Error{Code::busy, "use enclave '" + enclave.existing + "'",
                 "its status is " + std::string(name_of(now)), "start it first"};
  HOBBES_TRY(bundle, bundle_in(record));
  place.process = bundle.oci.process.value_or(oci::Process());
  place.host_root = bundle.hobbes.host_root;
  place.folder = "/";
  note_namespaces(bundle.oci, place);
  place.record = std::move(record);
  return place;
}

// What was granted, from hobbesd: it alone knows the placement.
Result<void> ask_placement(Stage::Place& place) {
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(answer, client.call("enclave.describe", {{"handle", place.record.handle}}));
  HOBBES_TRY(cpus, CpuSet::parse(text_at(answer.body, "cpus")));
  place.cpus = cpus;
  place.memory = static_cast<std::uint64_t>(number_at(answer.body, "memory"));
  return {};
}

Result<Stage::Place> make(const Composition& composition, std::size_t index,
                          const std::string& session, const std::string& bundles,
                          const std::string& share, const std::string& folder, bool keep) {
  const CompositionEnclave& enclave = composition.enclaves[index];
  HOBBES_TRY(bundle, load_bundle(enclave.bundle));
  std::string staged = bundles + "/" + enclave.name;
  HOBBES_CHECK(make_directories(staged, 0700));
  Json config = staged_config(bundle, composition, index, session, share, folder);
  HOBBES_CHECK(replace_file(staged + "/config.json", to_text(config, 2), 0600));
  EnclaveRequest request;
  request.root = default_root();
  request.id = enclave_id(composition, enclave);
  request.bundle = staged;
  request.bound = !keep;
  Stage::Place place;
  HOBBES_TRY(record, create_enclave(request));
  place.record = std::move(record);
  place.made = true;
  if (bundle.hobbes.kind == Kind::palacios)
    if (auto started = start_enclave(place.record); !started) {
      (void)remove_enclave(place.record);
      return std::move(started).error();
    }
  place.process = bundle.oci.process.value_or(oci::Process());
  if (!bundle.hobbes.devices.empty()) {
    auto made = bundle_in(place.record);
    if (!made) {
      (void)remove_enclave(place.record);
      return std::move(made).error();
    }
    if (made->oci.process) place.process.env = made->oci.process->env;
  }
  place.host_root = bundle.hobbes.host_root;
  place.folder = place.host_root && !folder.empty() ? folder : "/";
  note_namespaces(bundle.oci, place);
  return place;
}

}  // namespace

std::string enclave_id(const Composition& composition, const CompositionEnclave& enclave) {
  return composition.name + "." + enclave.name;
}

Result<Stage> Stage::set_up(const Composition& composition, const std::string& session,
                            const std::string& bundles, const std::string& share,
                            const std::string& folder, bool keep) {
  HOBBES_CHECK(check_programs(composition));
  Stage stage;
  stage.keep_ = keep;
  stage.places_.resize(composition.enclaves.size());
  for (const CompositionApp& app : composition.apps) stage.places_[app.enclave].needed = true;
  for (std::size_t i = 0; i < composition.enclaves.size(); ++i) {
    const CompositionEnclave& enclave = composition.enclaves[i];
    if (enclave.bundle.empty() && enclave.existing.empty())
      stage.places_[i].needed = false;  // joined by others
    if (!stage.places_[i].needed) continue;
    auto place = enclave.existing.empty()
                     ? make(composition, i, session, bundles, share, shown_folder(folder), keep)
                     : borrow(composition, i);
    if (!place)
      return std::move(place.error())
          .within("set up enclave \"" + enclave.name + "\" (line " + std::to_string(enclave.line) +
                  ")");
    stage.places_[i] = std::move(*place);
    stage.places_[i].needed = true;
    HOBBES_CHECK(ask_placement(stage.places_[i]));
  }
  return stage;
}

Result<std::string> Stage::plan(const Composition& composition) {
  HOBBES_CHECK(check_programs(composition));
  std::vector<bool> needed(composition.enclaves.size());
  for (const CompositionApp& app : composition.apps) needed[app.enclave] = true;
  Json plans = Json::array();
  std::vector<std::string> words;
  for (std::size_t i = 0; i < composition.enclaves.size(); ++i) {
    const CompositionEnclave& enclave = composition.enclaves[i];
    if (!needed[i] || enclave.bundle.empty()) continue;
    auto bundle = load_bundle(enclave.bundle);
    if (!bundle)
      return std::move(bundle.error())
          .within("plan enclave \"" + enclave.name + "\" (line " + std::to_string(enclave.line) +
                  ")");
    plans.push_back(reservation_of(*bundle, default_root(), enclave_id(composition, enclave)));
    words.push_back("enclave \"" + enclave.name + "\": kind " + name_of(bundle->hobbes.kind) +
                    ", ");
  }
  HOBBES_TRY(client, Client::connect());
  HOBBES_TRY(planned, client.call("plan", {{"plans", plans}}));
  std::string out;
  for (std::size_t i = 0; i < words.size() && i < planned.body["placements"].size(); ++i) {
    const Json& placement = planned.body["placements"][i];
    std::string cpus = text_at(placement, "cpus");
    out += words[i] +
           (cpus.empty() ? "no cores of its own" : "CPUs " + cpus + " of those free now") +
           ", memory " +
           format_size(static_cast<std::uint64_t>(number_at(placement, "memoryTotal"))) + "\n";
  }
  return out;
}

Stage::~Stage() {
  if (keep_) return;
  for (auto place = places_.rbegin(); place != places_.rend(); ++place) {
    if (!place->made) continue;
    tell_manager(place->record.handle, {{"event", "killing"}});
    if (auto removed = remove_enclave(place->record); !removed)
      std::fprintf(stderr, "remora: %s\n", removed.error().text().c_str());
  }
}

}  // namespace hobbes
