#include "enclave/record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/file.h"
#include "core/identity.h"
#include "core/suggestion.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

Json hooks_to_json(const std::vector<oci::Hook>& hooks) {
  Json out = Json::array();
  for (const oci::Hook& hook : hooks) {
    Json one = {{"path", hook.path}, {"args", hook.args}, {"env", hook.env}};
    if (hook.timeout_seconds) one["timeout"] = *hook.timeout_seconds;
    out.push_back(one);
  }
  return out;
}

std::vector<std::string> strings_at(const Json& json, const char* key) {
  std::vector<std::string> out;
  if (auto at = json.find(key); at != json.end() && at->is_array())
    for (const Json& item : *at)
      if (item.is_string()) out.push_back(item.get<std::string>());
  return out;
}

}  // namespace

const char* name_of(Status status) {
  switch (status) {
    case Status::creating:
      return "creating";
    case Status::created:
      return "created";
    case Status::running:
      return "running";
    case Status::paused:
      return "paused";
    case Status::stopped:
      return "stopped";
  }
  return "stopped";
}

Error not_running(const EnclaveRecord& record, const std::string& verb) {
  return {Code::busy, verb + " enclave '" + record.id + "'",
          "enclave not running, its status is " + std::string(name_of(record.status())),
          "see `hobbes-run state " + record.id + "`"};
}

std::string default_cgroup(const std::string& root, const std::string& id) {
  return "/hobbes/" + hex(hash_of(root), 8) + "-" + id;
}

Status EnclaveRecord::status() const {
  if (!prepared) return process.pid == 0 || process.alive() ? Status::creating : Status::stopped;
  if (!process.alive()) return Status::stopped;
  if (::access(start_socket().c_str(), F_OK) == 0) return Status::created;
  if (::access(pause_note().c_str(), F_OK) == 0) return Status::paused;
  if (!cgroup.empty())
    if (auto layout = CgroupLayout::detect(); layout && Cgroup(*layout, cgroup).frozen())
      return Status::paused;
  return Status::running;
}

Json EnclaveRecord::state() const { return state(status()); }

Json EnclaveRecord::state(Status now) const {
  Json out = {
      {"ociVersion", oci_version}, {"id", id}, {"status", name_of(now)}, {"bundle", bundle}};
  out["pid"] = now == Status::stopped ? 0 : process.pid;
  if (!annotations.empty()) out["annotations"] = annotations;
  return out;
}

Result<void> EnclaveRecord::claim(const std::string& root, const std::string& id) {
  HOBBES_CHECK(check_id(id));
  HOBBES_CHECK(make_directories(root, 0711));
  std::string folder = root + "/" + id;
  if (::mkdir(folder.c_str(), 0711) == 0) return {};
  if (errno == EEXIST)
    return Error{Code::exists, "create enclave '" + id + "'",
                 "the id is taken: " + folder + " already exists",
                 "choose another id, or delete it with `hobbes-run delete --force " + id + "`"};
  return os_error("create enclave '" + id + "' in " + root, errno);
}

Result<void> EnclaveRecord::save() const {
  Json out = {{"version", 1},
              {"id", id},
              {"bundle", bundle},
              {"ociVersion", oci_version},
              {"kind", name_of(kind)},
              {"handle", handle},
              {"pid", process.pid},
              {"startTicks", process.start_ticks},
              {"cgroup", cgroup},
              {"cgroupLent", cgroup_delegated},
              {"created", created_s},
              {"owner", owner},
              {"prepared", prepared},
              {"annotations", annotations},
              {"poststop", hooks_to_json(poststop)}};
  return replace_file(folder() + "/record.json", to_text(out), 0644);
}

Result<EnclaveRecord> EnclaveRecord::load(const std::string& root, const std::string& id) {
  HOBBES_CHECK(check_id(id));
  EnclaveRecord out;
  out.root = root;
  out.id = id;
  // Hooks and paths in it are its owner's words: root does not act on those of others.
  if (::geteuid() == 0)
    for (const std::string& path : {root, out.folder(), out.folder() + "/record.json"}) {
      struct stat info {};
      if (::lstat(path.c_str(), &info) != 0) continue;
      bool safe = info.st_uid == 0 && (path == root || !S_ISLNK(info.st_mode));
      if (!safe)
        return Error{Code::denied, "find enclave '" + id + "'",
                     path + " belongs to user " + std::to_string(info.st_uid) + " or is a link",
                     "act as that user: `setpriv --reuid " + std::to_string(info.st_uid) +
                         " --regid " + std::to_string(info.st_gid) +
                         " --clear-groups hobbes-run ...`"};
    }
  auto text = Files::system().read(out.folder() + "/record.json");
  if (!text) {
    if (::access(out.folder().c_str(), F_OK) == 0)
      return out;  // died between claiming the id and the first save
    return Error{Code::not_found, "find enclave '" + id + "'", "enclave does not exist in " + root,
                 did_you_mean(id, Files::system().list(root).value_or(std::vector<std::string>()),
                              "see `hobbes-run --root " + root + " list`")};
  }
  HOBBES_TRY(json, parse_json(*text, out.folder() + "/record.json"));
  if (!json.is_object() || number_at(json, "version") != 1)
    return Error{Code::corrupt, "read " + out.folder() + "/record.json", "its version is unknown",
                 "delete it with `hobbes-run delete --force " + id + "`"};
  out.bundle = text_at(json, "bundle");
  out.oci_version = text_at(json, "ociVersion", "1.0.2");
  out.kind = kind_named(text_at(json, "kind")).value_or(Kind::linux_);
  out.handle = static_cast<std::uint64_t>(number_at(json, "handle"));
  out.process.pid = static_cast<pid_t>(number_at(json, "pid"));
  out.process.start_ticks = static_cast<std::uint64_t>(number_at(json, "startTicks"));
  out.cgroup = text_at(json, "cgroup");
  out.cgroup_delegated = json.value("cgroupLent", false);
  out.created_s = number_at(json, "created");
  out.owner = static_cast<uid_t>(number_at(json, "owner"));
  out.prepared = json.value("prepared", false);
  if (auto at = json.find("annotations"); at != json.end() && at->is_object())
    for (const auto& [key, value] : at->items())
      if (value.is_string()) out.annotations[key] = value.get<std::string>();
  if (auto at = json.find("poststop"); at != json.end() && at->is_array())
    for (const Json& one : *at) {
      oci::Hook hook;
      hook.path = text_at(one, "path");
      hook.args = strings_at(one, "args");
      hook.env = strings_at(one, "env");
      if (one.contains("timeout"))
        hook.timeout_seconds = static_cast<int>(number_at(one, "timeout"));
      out.poststop.push_back(std::move(hook));
    }
  return out;
}

std::vector<EnclaveRecord> EnclaveRecord::list(const std::string& root) {
  std::vector<EnclaveRecord> out;
  auto names = Files::system().list(root);
  if (!names) return out;
  std::sort(names->begin(), names->end());
  for (const std::string& name : *names)
    if (auto record = load(root, name)) out.push_back(std::move(*record));
  return out;
}

}  // namespace hobbes
