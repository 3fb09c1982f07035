#include "shell/views.h"

#include <chrono>
#include <ctime>
#include <optional>

#include "core/identity.h"
#include "core/paths.h"
#include "core/process.h"
#include "core/size.h"
#include "enclave/describe.h"
#include "ipc/client.h"

namespace hobbes {
namespace {

struct Column {
  const char* title;
  const char* key;
};

const std::vector<Column>& columns_of(std::uint16_t type) {
  static const std::vector<Column> enclaves = {
      {"ID", "id"},     {"KIND", "kind"},     {"STATE", "state"}, {"PID", "pid"},
      {"CPUS", "cpus"}, {"MEMORY", "memory"}, {"USER", "uid"},    {"ROOT", "root"}};
  static const std::vector<Column> segments = {
      {"NAME", "name"},        {"SIZE", "size"},
      {"OWNER", "owner"},      {"ATTACHED", "attachments"},
      {"LISTEN", "listeners"}, {"PERSISTENT", "persistent"},
      {"USER", "uid"},         {"SNAPSHOT OF", "snapshotOf"}};
  static const std::vector<Column> apps = {{"NAME", "name"},
                                           {"STATE", "state"},
                                           {"RANKS", "ranks"},
                                           {"FIRST", "firstRank"},
                                           {"ENCLAVE", "enclave"}};
  static const std::vector<Column> compositions = {{"NAME", "name"},         {"STATE", "state"},
                                                   {"RANKS", "ranks"},       {"APPS", "apps"},
                                                   {"LAUNCHER", "launcher"}, {"USER", "uid"}};
  static const std::vector<Column> names = {
      {"NAME", "name"}, {"KIND", "kind"}, {"SCOPE", "scope"}, {"ENCLAVE", "enclave"},
      {"PID", "pid"},   {"USER", "uid"},  {"VALUE", "value"}};
  static const std::vector<Column> processes = {
      {"GLOBAL ID", "handle"}, {"ENCLAVE", "enclave"}, {"PID", "pid"},        {"ROLE", "role"},
      {"STATE", "state"},      {"USER", "uid"},        {"PROGRAM", "program"}};
  switch (type) {
    case HOBBES_NAME:
      return names;
    case HOBBES_PROCESS:
      return processes;
    case HOBBES_ENCLAVE:
      return enclaves;
    case HOBBES_SEGMENT:
      return segments;
    case HOBBES_APP:
      return apps;
    default:
      return compositions;
  }
}

std::string cell(const Json& row, const char* key) {
  auto at = row.find(key);
  if (at == row.end()) return "-";
  if (std::string(key) == "memory" || std::string(key) == "size")
    return at->get<std::uint64_t>() == 0 ? "-" : format_size(at->get<std::uint64_t>());
  if (at->is_string()) return at->get<std::string>().empty() ? "-" : at->get<std::string>();
  return to_text(*at);
}

constexpr std::chrono::seconds manager_patience(2);

// The state root that scopes its id. The mirror has its hash only: of another than the default
// hobbesd knows the path.
std::string root_of(const hobbes_record& record, std::optional<Client>& manager) {
  std::string standard = default_root(record.uid);
  if (record.scope == enclave_scope(record.uid, standard)) return standard;
  if (!manager) return "";
  auto described = manager->call("enclave.describe", {{"handle", record.id}}, {}, manager_patience);
  if (described) return text_at(described->body, "root");
  if (described.error().code == Code::timeout || described.error().code == Code::unavailable)
    manager.reset();  // not once for each
  return "";
}

}  // namespace

std::string table_view(NisReader& nis, std::uint16_t type, const Style& style,
                       const std::function<bool(const hobbes_record&)>& wanted) {
  Json rows = Json::array();
  std::optional<Client> manager;
  if (auto client = Client::connect(false)) manager.emplace(std::move(*client));
  for (const hobbes_record& record : nis.all(type)) {
    if (!wanted(record)) continue;
    Json row = describe(record);
    hobbes_record enclave;
    if (type != HOBBES_ENCLAVE && record.enclave != 0 &&
        nis.by_id(record.enclave, &enclave) == NisReader::Status::good)
      row["enclave"] = enclave.name;
    if (type == HOBBES_ENCLAVE) row["root"] = root_of(record, manager);
    rows.push_back(row);
  }
  if (style.json) return to_text(rows, 2) + "\n";
  const auto& columns = columns_of(type);
  std::vector<std::size_t> widths;
  for (const Column& column : columns) {
    std::size_t width = std::string(column.title).size();
    for (const Json& row : rows) width = std::max(width, cell(row, column.key).size());
    widths.push_back(width);
  }
  auto line = [&](auto text_of) {
    std::string out;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      std::string text = text_of(columns[i]);
      out += text + (i + 1 < columns.size() ? std::string(widths[i] - text.size() + 2, ' ') : "");
    }
    return out + "\n";
  };
  std::string head = line([](const Column& column) { return std::string(column.title); });
  std::string out = style.colour ? "\033[1m" + head + "\033[0m" : head;
  for (const Json& row : rows)
    out += line([&](const Column& column) { return cell(row, column.key); });
  return out;
}

std::string node_view(NisReader& nis, const Style& style) {
  Json counts = Json::object();
  hobbes_record record;
  Json node = Json::object();
  for (std::uint64_t cursor = 0;
       nis.next(HOBBES_FREE, &cursor, &record) == NisReader::Status::good;) {
    std::string type = name_of_type(record.type);
    counts[type] = counts.value(type, 0) + 1;
    if (record.type == HOBBES_NODE) node = describe(record);
  }
  std::uint64_t total = 0, leased = 0;
  unsigned free_cores = 0;
  for (const hobbes_record& numa : nis.all(HOBBES_NUMA)) {
    total += numa.body.numa.total;
    leased += numa.body.numa.leased;
  }
  for (const hobbes_record& core : nis.all(HOBBES_CORE))
    free_cores += core.state == HOBBES_CORE_FREE ? 1 : 0;
  double silence = static_cast<double>(nis.writer_silence_ns()) / 1e9;
  bool alive = silence < 3;
  if (style.json)
    return to_text({{"node", node},
                    {"records", counts},
                    {"memory", total},
                    {"memoryLeased", leased},
                    {"freeCores", free_cores},
                    {"hobbesdAlive", alive},
                    {"hobbesdSilenceSeconds", silence},
                    {"sequence", nis.sequence()}},
                   2) +
           "\n";
  auto count = [&](const char* type) { return std::to_string(counts.value(type, 0)); };
  std::string out;
  out += "hobbesd       " +
         std::string(alive ? "running, pid " + std::to_string(number_at(node, "daemon"))
                           : "silent for " + std::to_string(static_cast<long>(silence)) +
                                 " s; enclaves keep running") +
         "\n";
  out += "cores         " + count("core") + ", " + std::to_string(free_cores) + " free\n";
  out += "memory        " + format_size(total) + ", " + format_size(leased) + " leased\n";
  out += "enclaves      " + count("enclave") + "\n";
  out += "segments      " + count("segment") + "\n";
  out += "compositions  " + count("composition") + "\n";
  out += "names         " + count("name") + "\n";
  return out;
}

std::string change_view(NisReader& nis, const hobbes_change& change, const Style& style) {
  Json json = describe(change);
  hobbes_record enclave;
  if (change.enclave != 0 && nis.by_id(change.enclave, &enclave) == NisReader::Status::good)
    json["enclaveName"] = enclave.name;
  if (style.json) return to_text(json) + "\n";
  char when[16];
  auto seconds = static_cast<std::time_t>(change.time_ns / 1'000'000'000U);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::strftime(when, sizeof when, "%H:%M:%S", &local);
  auto padded = [&](const char* key, std::size_t width) {
    std::string text = text_at(json, key);
    return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
  };
  std::string state = text_at(json, "state"), of = text_at(json, "enclaveName");
  if (!of.empty() && of != text_at(json, "name"))
    state += (state.empty() ? "of '" : "  of '") + of + "'";
  if (json.contains("exitStatus"))
    state += ", " + describe_exit_code(static_cast<int>(number_at(json, "exitStatus")));
  return std::string(when) + "  " + padded("kind", 8) + "  " + padded("type", 11) + "  " +
         text_at(json, "name", text_at(json, "handle")) + (state.empty() ? "" : "  " + state) +
         "\n";
}

}  // namespace hobbes
