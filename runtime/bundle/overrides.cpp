#include "bundle/overrides.h"

#include <unistd.h>

#include <algorithm>

#include "core/process.h"

namespace hobbes {
namespace {

std::string name_in(const std::string& entry) { return entry.substr(0, entry.find('=')); }

// Among "NAME=VALUE" entries the later one counts.
class Variables {
 public:
  void set(const std::string& entry) {
    std::erase_if(entries_,
                  [name = name_in(entry)](const std::string& old) { return name_in(old) == name; });
    entries_.push_back(entry);
  }
  [[nodiscard]] const std::vector<std::string>& entries() const { return entries_; }

 private:
  std::vector<std::string> entries_;
};

bool matches(const std::string& name, const std::string& pattern) {
  return !pattern.empty() && pattern.back() == '*'
             ? name.rfind(pattern.substr(0, pattern.size() - 1), 0) == 0
             : name == pattern;
}

Result<Json> mount_of(const std::string& volume) {
  auto wrong = [&](const std::string& why) {
    return Error{Code::invalid, "show '" + volume + "' in the enclave", why,
                 "say SOURCE, SOURCE:DESTINATION or SOURCE:DESTINATION:ro, with absolute paths"};
  };
  std::vector<std::string> parts;
  parts.emplace_back();
  for (std::size_t at = 0; at < volume.size(); ++at)
    if (volume[at] == '\\' && at + 1 < volume.size())
      parts.back() += volume[++at];
    else if (volume[at] == ':')
      parts.emplace_back();
    else
      parts.back() += volume[at];
  if (parts.size() > 3) return wrong("it has more than three parts");
  if (parts.size() == 1) parts.push_back(parts[0]);
  for (std::size_t i = 0; i < 2; ++i)
    if (parts[i].empty() || parts[i].front() != '/') return wrong("a path of it is not absolute");
  const std::string how = parts.size() == 3 ? parts[2] : "rw";
  if (how != "rw" && how != "ro") return wrong("'" + how + "' is neither ro nor rw");
  return Json{{"source", parts[0]},
              {"destination", parts[1]},
              {"type", "bind"},
              {"options", {"rbind", how}}};
}

// The kernels that come with Hobbes, for a kind that the bundle was not written for.
void name_kernel(Json& hobbes, const std::string& kind) {
  if (hobbes.contains("image") && hobbes["image"].contains("kernel")) return;
  const std::string shipped = program_directory() + "/../share/hobbes/";
  if (kind == "kitten") hobbes["image"]["kernel"] = shipped + "kitten/kitten.img";
  if (kind != "palacios") return;
  hobbes["image"]["kernel"] = shipped + "linux-vm/vmlinux";
  hobbes["image"]["initrd"] = shipped + "linux-vm/initrd.cpio";
}

}  // namespace

bool BundleOverrides::any() const {
  return !kind.empty() || cores != 0 || !memory.empty() || !args.empty() || !cwd.empty() ||
         host_env || !env.empty() || !volumes.empty();
}

Result<void> BundleOverrides::apply(Json& config,
                                    const std::vector<std::string>& environment) const {
  if (!any()) return {};
  // What has a wrong type is left to the validation, which names it.
  for (const auto& [key, type] : {std::pair{"", Json::value_t::object},
                                  {"/hobbes", Json::value_t::object},
                                  {"/hobbes/cores", Json::value_t::object},
                                  {"/hobbes/memory", Json::value_t::object},
                                  {"/hobbes/image", Json::value_t::object},
                                  {"/process", Json::value_t::object},
                                  {"/process/env", Json::value_t::array},
                                  {"/mounts", Json::value_t::array}})
    if (const Json::json_pointer at(key); config.contains(at) && config[at].type() != type)
      return {};
  if (!kind.empty()) {
    config["hobbes"]["kind"] = kind;
    name_kernel(config["hobbes"], kind);
  }
  if (cores != 0) {
    Json& wanted = config["hobbes"]["cores"];
    if (wanted.is_object()) wanted.erase("list");
    wanted["count"] = cores;
  }
  if (!memory.empty()) config["hobbes"]["memory"]["size"] = memory;
  for (const std::string& volume : volumes) {
    HOBBES_TRY(mount, mount_of(volume));
    config["mounts"].push_back(mount);
  }
  if (!args.empty()) config["process"]["args"] = args;
  if (!cwd.empty()) config["process"]["cwd"] = cwd;
  if (!args.empty() && !config["process"].contains("cwd")) config["process"]["cwd"] = "/";
  if (!host_env && env.empty()) return {};
  Variables all;
  if (host_env)
    for (const std::string& entry : environment) all.set(entry);
  for (const Json& entry : config["process"]["env"])
    if (entry.is_string()) all.set(entry.get<std::string>());
  for (const std::string& wanted : env)
    if (wanted.find('=') != std::string::npos)
      all.set(wanted);
    else
      for (const std::string& entry : environment)
        if (matches(name_in(entry), wanted)) all.set(entry);
  config["process"]["env"] = all.entries();
  return {};
}

std::vector<std::string> environment_of_caller() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::string text = *entry; text.find('=') != std::string::npos)
      out.push_back(std::move(text));
  return out;
}

}  // namespace hobbes
