#include "hobbesd/device_leases.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "hobbesd/enclave_document.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

constexpr std::size_t most_devices = 256;  // of one enclave
constexpr std::size_t longest_edits = 128
                                      << 10;  // an answer has a limit, too (ipc/message_socket.h)

std::vector<std::string> texts(const Json& list) {
  std::vector<std::string> out;
  if (list.is_array())
    for (const Json& item : list)
      if (item.is_string()) out.push_back(item.get<std::string>());
  return out;
}

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Nodes are one when they have one number, however they are named.
std::vector<std::string> numbers_of(const std::vector<std::string>& nodes) {
  std::vector<std::string> out;
  for (const std::string& node : nodes) {
    struct stat info {};
    const bool there = ::stat(node.c_str(), &info) == 0;
    out.push_back(!there ? node
                         : (S_ISBLK(info.st_mode) ? "block device " : "character device ") +
                               std::to_string(::major(info.st_rdev)) + ":" +
                               std::to_string(::minor(info.st_rdev)));
  }
  return out;
}

// A program that has left its enclave's first process behind may have a device open still.
bool holds_nothing(const hobbes_record& enclave, const Json& document) {
  if (!has_ended(enclave)) return false;
  const std::string group = text_at(document, "cgroup");
  auto layout = CgroupLayout::detect();
  if (group.empty() || !layout) return true;
  auto inside = Cgroup(std::move(*layout), group).processes();
  return inside && inside->empty();
}

// What two grants both have, a device or a node; empty: nothing.
std::string common(const DeviceLeases::Grant& one, const DeviceLeases::Grant& other) {
  for (const std::string& name : one.names)
    if (contains(other.names, name)) return name;
  for (const std::string& node : one.nodes)
    if (contains(other.nodes, node)) return node;
  return "";
}

}  // namespace

std::vector<std::pair<const hobbes_record*, DeviceLeases::Grant>> DeviceLeases::held() const {
  std::vector<std::pair<const hobbes_record*, Grant>> out;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE)) {
    const Json document = enclave_document(nis_, record->id);
    if (!document.contains("devices") || document["devices"].empty() ||
        holds_nothing(*record, document))
      continue;
    Grant grant{texts(document.value("devices", Json())),
                texts(document.value("deviceNodes", Json())), Json::array()};
    out.emplace_back(record, std::move(grant));
  }
  return out;
}

Result<DeviceLeases::Grant> DeviceLeases::grant(const Session& session, const Json& request,
                                                const std::vector<Grant>& planned) const {
  Grant out;
  const Json wanted = request.value("devices", Json::array());
  if (wanted.empty()) return out;
  out.names = texts(wanted);
  const std::string attempt = "grant devices";
  if (!wanted.is_array() || out.names.size() != wanted.size() || out.names.size() > most_devices)
    return Error{Code::invalid, attempt,
                 "\"devices\" is no list of at most " + std::to_string(most_devices) + " names",
                 "see docs/CONTROL.md"};
  const auto holders = held();
  std::uint64_t holds = out.names.size();
  for (const auto& [record, grant] : holders)
    if (record->uid == session.peer.uid) holds += grant.names.size();
  for (const Grant& other : planned) holds += other.names.size();
  if (const std::uint64_t most = policies_.of(session.peer.uid).devices; holds > most)
    return Error{Code::exhausted, attempt,
                 "user " + std::to_string(session.peer.uid) + " would hold " +
                     std::to_string(holds) + ", the quota is " + std::to_string(most),
                 "ask the administrator to raise \"devices\" in /etc/hobbes/hobbesd.json"};
  const CdiRegistry registry = CdiRegistry::read();
  for (const std::string& name : out.names) {
    const CdiDevice* device = registry.find(name);
    if (device == nullptr)
      return Error{Code::not_found, attempt, "this node has no device '" + name + "'",
                   "see `hobbes devices`"};
    for (const Json& edit : device->edits)
      // Devices of one file have its edits in common.
      if (std::find(out.edits.begin(), out.edits.end(), edit) == out.edits.end())
        out.edits.push_back(edit);
    for (std::string& number : numbers_of(device->nodes)) out.nodes.push_back(std::move(number));
  }
  if (out.edits.dump().size() > longest_edits)
    return Error{Code::exhausted, attempt,
                 "what their descriptions ask for is longer than " + std::to_string(longest_edits) +
                     " bytes",
                 "ask for fewer devices, or shorten the descriptions"};
  for (const auto& [record, grant] : holders)
    if (std::string both = common(out, grant); !both.empty())
      return Error{Code::busy, attempt,
                   both + " is held by enclave '" + std::string(record->name) + "'",
                   "wait until it has ended, or choose another one of `hobbes devices`"};
  for (const Grant& other : planned)
    if (std::string both = common(out, other); !both.empty())
      return Error{Code::busy, attempt, both + " is wanted by two enclaves of the plan",
                   "give each a device of its own"};
  return out;
}

Result<void> DeviceLeases::plan(const Session& session, const Json& request) const {
  std::vector<Grant> planned;
  const Json plans = request.contains("plans") ? request["plans"] : Json::array({request});
  for (const Json& one : plans) {
    if (!one.is_object()) continue;  // refused by name where cores are planned
    HOBBES_TRY(grant, this->grant(session, one, planned));
    planned.push_back(std::move(grant));
  }
  return {};
}

Result<Reply> DeviceLeases::list() const {
  const CdiRegistry registry = CdiRegistry::read();
  const auto holders = held();
  Json devices = Json::array();
  for (const auto& [name, device] : registry.devices()) {
    const Grant one{{name}, numbers_of(device.nodes), Json::array()};
    Json entry = {{"name", name}, {"nodes", device.nodes}, {"file", device.file}};
    for (const auto& [record, grant] : holders)
      if (!common(one, grant).empty()) entry["enclave"] = record->name;
    devices.push_back(std::move(entry));
  }
  return Reply{Json{{"devices", devices}, {"problems", registry.problems()}}, {}};
}

}  // namespace hobbes
