#include "bundle/device_edits.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

namespace hobbes {
namespace {

constexpr const char* attempt = "give an enclave its devices";

bool is_word(const std::string& text, const std::string& inner) {
  auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= 128 && plain(text.front()) && plain(text.back()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return plain(c) || inner.find(c) != std::string::npos; });
}

Error unsupported(const std::string& what) {
  return {Code::unsupported, attempt, "their description asks for " + what + ", which is not known",
          "take it out of the description, or ask for another device"};
}

Result<void> check_keys(const Json& edit, const std::set<std::string>& known,
                        const std::string& where) {
  if (!edit.is_object()) return unsupported("a " + where + " that is no object");
  for (const auto& [key, value] : edit.items())
    if (known.count(key) == 0) return unsupported("\"" + key + "\" of a " + where);
  return {};
}

// "K=V" in the place of an earlier K.
void set_variable(Json& environment, const std::string& entry) {
  const std::string key = entry.substr(0, entry.find('=') + 1);
  for (Json& old : environment)
    if (old.is_string() && old.get<std::string>().rfind(key, 0) == 0) {
      old = entry;
      return;
    }
  environment.push_back(entry);
}

// In the place of an earlier entry with the same value there.
void replace_in(Json& list, const char* key, const Json& entry) {
  if (!list.is_array()) list = Json::array();
  list.erase(std::remove_if(list.begin(), list.end(),
                            [&](const Json& old) {
                              return old.is_object() && text_at(old, key) == text_at(entry, key);
                            }),
             list.end());
  list.push_back(entry);
}

Result<void> add_node(Json& config, bool host_root, const Json& node) {
  HOBBES_CHECK(check_keys(
      node, {"path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"},
      "device node"));
  const std::string path = text_at(node, "path"), source = text_at(node, "hostPath", path);
  // Users without privilege cannot make nodes: they are shown the host's.
  if (path != source && ::geteuid() != 0)
    return Error{Code::unsupported, attempt,
                 source + " is to be seen as " + path + ", which only root can do",
                 "ask for a device whose nodes have their names on the host"};
  if (host_root && path != source)
    return Error{Code::unsupported, attempt,
                 source + " is to be seen as " + path +
                     " in an enclave that shows the node's own "
                     "/dev",
                 "give the bundle a root file system of its own"};
  struct stat info {};
  Json device = {{"path", path}};
  if (::stat(source.c_str(), &info) != 0) {
    if (!node.contains("major") || !node.contains("type"))
      return os_error("look at device node " + source, errno);
    device["type"] = node["type"];
    device["major"] = node["major"];
    device["minor"] = node.value("minor", 0);
  } else {
    if (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode))
      return Error{Code::invalid, attempt, source + " is no device node",
                   "mend the description of the device"};
    device["type"] = S_ISBLK(info.st_mode) ? "b" : "c";
    device["major"] = ::major(info.st_rdev);
    device["minor"] = ::minor(info.st_rdev);
  }
  Json rule = {{"allow", true},
               {"type", device["type"]},
               {"major", device["major"]},
               {"minor", device["minor"]},
               {"access", text_at(node, "permissions", "rwm")}};
  for (const char* key : {"fileMode", "uid", "gid"})
    if (node.contains(key)) device[key] = node[key];
  if (!host_root) replace_in(config["linux"]["devices"], "path", device);
  config["linux"]["resources"]["devices"].push_back(rule);
  return {};
}

Result<void> add_mount(Json& config, const Json& mount) {
  HOBBES_CHECK(check_keys(mount, {"hostPath", "containerPath", "options", "type"}, "mount"));
  if (text_at(mount, "containerPath").rfind('/', 0) != 0)
    return unsupported("a mount at \"" + text_at(mount, "containerPath") + "\"");
  Json options = mount.value("options", Json::array());
  auto says = [&](const char* word) {
    return std::find(options.begin(), options.end(), word) != options.end();
  };
  const std::string type = text_at(mount, "type", "bind");
  if (type == "bind" && !says("bind") && !says("rbind")) options.push_back("bind");
  replace_in(config["mounts"], "destination",
             {{"source", text_at(mount, "hostPath")},
              {"destination", text_at(mount, "containerPath")},
              {"type", type},
              {"options", options}});
  return {};
}

Result<void> add_hook(Json& config, const Json& hook) {
  HOBBES_CHECK(check_keys(hook, {"hookName", "path", "args", "env", "timeout"}, "hook"));
  static const std::set<std::string> known = {"prestart",       "createRuntime", "createContainer",
                                              "startContainer", "poststart",     "poststop"};
  const std::string name = text_at(hook, "hookName");
  if (known.count(name) == 0) return unsupported("a hook \"" + name + "\"");
  Json copy = hook;
  copy.erase("hookName");
  for (const char* list : {"args", "env"})
    if (copy.contains(list))
      for (Json& word : copy[list])
        if (word.is_number_integer()) word = plain_text(word);
  config["hooks"][name].push_back(copy);
  return {};
}

Result<void> apply_to(Json& config, bool host_root, const Json& edit) {
  HOBBES_CHECK(check_keys(edit, {"env", "deviceNodes", "mounts", "hooks", "additionalGids"},
                          "containerEdits"));
  for (const Json& entry : edit.value("env", Json::array()))
    set_variable(config["process"]["env"], entry.get<std::string>());
  for (const Json& node : edit.value("deviceNodes", Json::array()))
    HOBBES_CHECK(add_node(config, host_root, node));
  for (const Json& mount : edit.value("mounts", Json::array()))
    HOBBES_CHECK(add_mount(config, mount));
  for (const Json& hook : edit.value("hooks", Json::array())) HOBBES_CHECK(add_hook(config, hook));
  for (const Json& group : edit.value("additionalGids", Json::array()))
    config["process"]["user"]["additionalGids"].push_back(group);
  return {};
}

}  // namespace

bool is_device_name(const std::string& text) {
  const std::size_t slash = text.find('/'), equals = text.find('=');
  if (slash == std::string::npos || equals == std::string::npos || equals < slash) return false;
  return is_word(text.substr(0, slash), "_-.") &&
         is_word(text.substr(slash + 1, equals - slash - 1), "_-") &&
         is_word(text.substr(equals + 1), "_-.:");
}

std::string plain_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_number_integer() ? value.dump() : "";
}

std::vector<std::string> device_nodes_of(const Json& edits) {
  std::vector<std::string> out;
  for (const Json& node : edits.value("deviceNodes", Json::array()))
    out.push_back(text_at(node, "hostPath", text_at(node, "path")));
  return out;
}

Result<void> apply_device_edits(Bundle& bundle, const Json& edits) {
  Json config = bundle.config;
  try {
    for (const Json& edit : edits) HOBBES_CHECK(apply_to(config, bundle.hobbes.host_root, edit));
  } catch (const Json::exception& e) {
    return Error{Code::invalid, attempt, std::string("their description is wrong: ") + e.what(),
                 "mend it"};
  }
  Validation checked = validate_config(bundle.path, config);
  if (!checked.bundle)
    return Error{
        Code::invalid, attempt,
        "with what their description asks for the bundle is not valid\n" + report(checked.problems),
        "mend the description"};
  bundle.oci = std::move(checked.bundle->oci);
  bundle.config = std::move(config);
  return {};
}

}  // namespace hobbes
