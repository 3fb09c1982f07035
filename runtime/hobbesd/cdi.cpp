#include "hobbesd/cdi.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "bundle/device_edits.h"

namespace hobbes {
namespace {

constexpr std::size_t file_limit = 4 << 20, unfolded_limit = 16 << 20, depth_limit = 32;

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// An alias stands for all that it names, each time anew; what such a document unfolds to is
// limited: `left` counts bytes.
void spend(const YAML::Node& node, std::size_t bytes, std::size_t& left) {
  if (bytes > left) throw YAML::Exception(node.Mark(), "it is too large");
  left -= bytes;
}

Json from_yaml(const YAML::Node& node, std::size_t depth, std::size_t& left) {
  constexpr std::size_t per_value = 64;
  if (depth > depth_limit) throw YAML::Exception(node.Mark(), "it is too deep");
  spend(node, per_value + (node.IsScalar() ? node.Scalar().size() : 0), left);
  if (node.IsSequence()) {
    Json out = Json::array();
    for (const YAML::Node& item : node) out.push_back(from_yaml(item, depth + 1, left));
    return out;
  }
  if (node.IsMap()) {
    Json out = Json::object();
    for (const auto& item : node) {
      const auto key = item.first.as<std::string>();
      spend(node, key.size(), left);
      out[key] = from_yaml(item.second, depth + 1, left);
    }
    return out;
  }
  if (!node.IsScalar()) return nullptr;
  // A quoted scalar has the tag "!".
  if (node.Tag() != "!") {
    if (bool truth = false; YAML::convert<bool>::decode(node, truth)) return truth;
    if (std::int64_t number = 0; YAML::convert<std::int64_t>::decode(node, number)) return number;
  }
  return node.Scalar();
}

}  // namespace

Result<Json> parse_cdi(const std::string& path, const std::string& text) {
  if (ends_with(path, ".json")) return parse_json(text, path);
  try {
    std::size_t left = unfolded_limit;
    return from_yaml(YAML::Load(text), 0, left);
  } catch (const std::exception& e) {
    return Error{Code::invalid, "read " + path, e.what(), "mend it, or take it away"};
  }
}

Result<void> CdiRegistry::add(const std::string& path, const Json& document,
                              std::map<std::string, CdiDevice>& folder) {
  auto wrong = [&](const std::string& why) {
    return Error{Code::invalid, "read " + path, why, "mend it, or take it away"};
  };
  const std::string version = text_at(document, "cdiVersion"), kind = text_at(document, "kind");
  if (version.rfind("0.", 0) != 0 && version.rfind("1.", 0) != 0)
    return wrong("its cdiVersion is \"" + version + "\", not 0.x or 1.x");
  if (!is_device_name(kind + "=x")) return wrong("its kind is \"" + kind + "\", not VENDOR/CLASS");
  const auto devices = document.find("devices");
  if (devices == document.end() || !devices->is_array()) return wrong("it has no list of devices");
  std::vector<CdiDevice> described;
  for (const Json& entry : *devices) {
    CdiDevice device;
    // A name of digits is a number in YAML.
    device.name = kind + "=" + (entry.is_object() ? plain_text(entry.value("name", Json())) : "");
    device.file = path;
    if (!is_device_name(device.name)) return wrong("\"" + device.name + "\" is no device's name");
    for (const Json* place : {&document, &entry})
      if (auto edits = place->find("containerEdits"); edits != place->end())
        device.edits.push_back(*edits);
    if (entry.contains("containerEdits"))
      for (const std::string& node : device_nodes_of(entry["containerEdits"]))
        device.nodes.push_back(node);
    described.push_back(std::move(device));
  }
  for (CdiDevice& device : described) {
    if (auto other = folder.find(device.name); other != folder.end()) {
      problems_.push_back("device " + device.name + " is described by " + other->second.file +
                          " and by " + path + ", and by neither of them therefore");
      other->second.edits = nullptr;
      continue;
    }
    const std::string name = device.name;
    folder.emplace(name, std::move(device));
  }
  return {};
}

CdiRegistry CdiRegistry::read(const std::vector<std::string>& folders, const Files& files) {
  CdiRegistry out;
  for (const std::string& folder : folders) {
    std::map<std::string, CdiDevice> here;
    std::vector<std::string> names = files.list(folder).value_or({});
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      if (!ends_with(name, ".json") && !ends_with(name, ".yaml")) continue;
      const std::string path = folder + "/" + name;
      auto added = [&]() -> Result<void> {
        HOBBES_TRY(text, files.read(path, file_limit));
        HOBBES_TRY(document, parse_cdi(path, text));
        try {
          return out.add(path, document, here);
        } catch (const Json::exception& e) {
          return Error{Code::invalid, "read " + path, e.what(), "mend it, or take it away"};
        }
      }();
      if (!added) out.problems_.push_back(added.error().text());
    }
    for (auto& [name, device] : here) {
      out.devices_.erase(name);
      if (!device.edits.is_null()) out.devices_.emplace(name, std::move(device));
    }
  }
  return out;
}

const CdiDevice* CdiRegistry::find(const std::string& name) const {
  auto at = devices_.find(name);
  return at != devices_.end() ? &at->second : nullptr;
}

}  // namespace hobbes
