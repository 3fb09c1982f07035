#include "shell/top.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/process.h"
#include "core/size.h"
#include "core/standard_streams.h"
#include "enclave/describe.h"
#include "enclave/driver.h"
#include "enclave/record.h"
#include "ipc/client.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

using Number = std::optional<std::uint64_t>;

// What has been used since the beginning, and what is used now.
struct Use {
  Number cpu_ns, faults;            // since the beginning
  Number memory, limit, processes;  // now; bytes
};

struct Sample {
  std::uint64_t time_ns = 0;
  std::map<std::uint64_t, Use> uses;  // by record, of enclaves and of processes
};

Number value(const std::map<std::string, std::uint64_t>& numbers, const char* name) {
  auto at = numbers.find(name);
  return at != numbers.end() ? Number(at->second) : std::nullopt;
}

// Its state root is in the mirror as a hash only: hobbesd knows the path, and tells it to those
// whose enclave it is.
std::optional<EnclaveRecord> record_of(const hobbes_record& enclave,
                                       std::optional<Client>& manager) {
  std::string root = default_root(enclave.uid);
  if (enclave.scope != enclave_scope(enclave.uid, root)) {
    if (!manager) return std::nullopt;
    auto described =
        manager->call("enclave.describe", {{"handle", enclave.id}}, {}, std::chrono::seconds(2));
    if (!described) return std::nullopt;
    root = text_at(described->body, "root");
  }
  auto record = EnclaveRecord::load(root, enclave.name);
  return record ? std::optional(std::move(*record)) : std::nullopt;
}

Use use_of_enclave(const hobbes_record& enclave, std::optional<Client>& manager) {
  auto record = record_of(enclave, manager);
  if (!record) return {};
  const auto numbers = driver_for(record->kind).statistics(*record);
  Use out{value(numbers, "cpu.usage_ns"), value(numbers, "memory.faults"),
          value(numbers, "memory.usage"), value(numbers, "memory.limit"),
          value(numbers, "pids.current")};
  std::uint64_t leased = 0;
  for (std::uint64_t bytes : enclave.body.enclave.memory) leased += bytes;
  if (leased != 0) out.limit = leased;
  // A co-kernel knows of its own; what Linux counts is its control process and its proxies.
  if (auto all = value(numbers, "kitten.memory"), unused = value(numbers, "kitten.memoryFree");
      all && unused) {
    out.memory = *all - std::min(*all, *unused);
    out.faults = value(numbers, "kitten.pageFaults");
    out.processes = value(numbers, "kitten.processes");
    out.cpu_ns.reset();
  }
  return out;
}

// proc(5), /proc/pid/stat: the numbers stand behind the name, which may hold anything.
Use use_of_process(const hobbes_record& record) {
  const hobbes_process& process = record.body.process;
  if (process.pid == 0 || !ProcessId{process.pid, process.start_ticks}.alive()) return {};
  auto text = Files::system().read("/proc/" + std::to_string(process.pid) + "/stat", 4096);
  const std::size_t name = text ? text->rfind(')') : std::string::npos;
  if (name == std::string::npos) return {};
  std::istringstream behind(text->substr(name + 1));
  std::vector<std::string> fields(3);  // so that the numbers of the manual are indices
  for (std::string word; behind >> word;) fields.push_back(word);
  auto number = [&](std::size_t index) {
    return index < fields.size() ? std::strtoull(fields[index].c_str(), nullptr, 10) : 0;
  };
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  Use out;
  out.cpu_ns = (number(14) + number(15)) * (1'000'000'000 / ticks);
  out.faults = number(10) + number(12);
  out.memory = number(24) * page;
  return out;
}

bool runs(const hobbes_record& enclave) {
  return enclave.state == HOBBES_RUNNING || enclave.state == HOBBES_PAUSED;
}

Sample take_sample(NisReader& nis, std::optional<Client>& manager) {
  Sample out;
  out.time_ns = clock_ns(CLOCK_MONOTONIC);
  for (const hobbes_record& enclave : nis.all(HOBBES_ENCLAVE))
    if (runs(enclave)) out.uses[enclave.id] = use_of_enclave(enclave, manager);
  for (const hobbes_record& process : nis.all(HOBBES_PROCESS))
    if (process.state != HOBBES_PHASE_ENDED) out.uses[process.id] = use_of_process(process);
  return out;
}

// A rate between two samples; none when one of them does not know it.
std::optional<double> rate(const Sample& before, const Sample& now, std::uint64_t id,
                           Number Use::*field) {
  auto earlier = before.uses.find(id), later = now.uses.find(id);
  if (earlier == before.uses.end() || later == now.uses.end()) return std::nullopt;
  const Number from = earlier->second.*field, to = later->second.*field;
  if (!from || !to || *to < *from || now.time_ns <= before.time_ns) return std::nullopt;
  return static_cast<double>(*to - *from) * 1e9 / static_cast<double>(now.time_ns - before.time_ns);
}

Json row_of(const Sample& before, const Sample& now, const hobbes_record& record) {
  Json out = Json::object();
  const Use& use = now.uses.at(record.id);
  if (auto cpu = rate(before, now, record.id, &Use::cpu_ns)) out["cpuPercent"] = *cpu / 1e7;
  if (auto faults = rate(before, now, record.id, &Use::faults)) out["faultsPerSecond"] = *faults;
  if (use.memory) out["memory"] = *use.memory;
  if (use.limit) out["memoryLimit"] = *use.limit;
  if (use.processes) out["processes"] = *use.processes;
  return out;
}

Json rows(NisReader& nis, const Sample& before, const Sample& now) {
  Json out = {{"enclaves", Json::array()}, {"processes", Json::array()}};
  std::map<std::uint64_t, std::string> names;
  for (const hobbes_record& enclave : nis.all(HOBBES_ENCLAVE)) {
    names[enclave.id] = enclave.name;
    if (now.uses.count(enclave.id) == 0) continue;
    Json row = row_of(before, now, enclave);
    const Json described = describe(enclave);
    for (const char* key : {"id", "kind", "state", "cpus", "handle"}) row[key] = described[key];
    out["enclaves"].push_back(std::move(row));
  }
  for (const hobbes_record& process : nis.all(HOBBES_PROCESS)) {
    if (now.uses.count(process.id) == 0 || !now.uses.at(process.id).memory) continue;
    Json row = row_of(before, now, process);
    row["id"] = hex(process.id);
    row["pid"] = process.body.process.pid;
    row["program"] = text_at(describe(process), "program");
    row["enclave"] = names.count(process.enclave) != 0 ? names[process.enclave] : "";
    out["processes"].push_back(std::move(row));
  }
  auto busier = [](const Json& a, const Json& b) {
    return a.value("cpuPercent", 0.0) > b.value("cpuPercent", 0.0);
  };
  for (const char* part : {"enclaves", "processes"}) {
    auto& list = out[part].get_ref<Json::array_t&>();
    std::stable_sort(list.begin(), list.end(), busier);
  }
  return out;
}

std::string shown(const Json& row, const char* key) {
  auto at = row.find(key);
  if (at == row.end()) return "-";
  if (at->is_string()) return at->get<std::string>().empty() ? "-" : at->get<std::string>();
  if (std::string(key).rfind("memory", 0) == 0) {
    const auto bytes = at->get<std::uint64_t>();
    constexpr std::uint64_t unlimited = std::uint64_t{1}
                                        << 62U;  // what the kernel calls it is more
    return bytes == 0 || bytes >= unlimited ? "-" : format_size(bytes);
  }
  char text[32];
  if (at->is_number_float())
    (void)std::snprintf(text, sizeof text, "%.1f", at->get<double>());
  else
    (void)std::snprintf(text, sizeof text, "%lld", static_cast<long long>(at->get<std::int64_t>()));
  return text;
}

std::string table(const Json& list, const std::vector<std::pair<const char*, const char*>>& columns,
                  const Style& style) {
  std::vector<std::size_t> widths;
  for (const auto& [title, key] : columns) {
    std::size_t width = std::string(title).size();
    for (const Json& row : list) width = std::max(width, shown(row, key).size());
    widths.push_back(width);
  }
  auto line = [&](auto cell) {
    std::string out;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      std::string text = cell(i);
      out += text + (i + 1 < columns.size() ? std::string(widths[i] + 2 - text.size(), ' ') : "");
    }
    return out + "\n";
  };
  std::string head = line([&](std::size_t i) { return std::string(columns[i].first); });
  std::string out = style.colour ? "\033[1m" + head + "\033[0m" : head;
  for (const Json& row : list)
    out += line([&](std::size_t i) { return shown(row, columns[i].second); });
  return out;
}

}  // namespace

Result<void> show_top(const TopOptions& options) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  std::optional<Client> manager;
  if (auto connected = Client::connect(false)) manager = std::move(*connected);
  Sample before = take_sample(*nis, manager);
  for (int round = 0; options.rounds == 0 || round < options.rounds; ++round) {
    std::this_thread::sleep_for(options.interval);
    Sample now = take_sample(*nis, manager);
    const Json found = rows(*nis, before, now);
    if (options.style.json) {
      std::cout << to_text(found) << "\n";
    } else {
      if (options.terminal) std::cout << "\033[H\033[2J";
      std::cout << table(found["enclaves"],
                         {{"ENCLAVE", "id"},
                          {"KIND", "kind"},
                          {"STATE", "state"},
                          {"CPUS", "cpus"},
                          {"CPU %", "cpuPercent"},
                          {"MEMORY", "memory"},
                          {"OF", "memoryLimit"},
                          {"FAULTS/S", "faultsPerSecond"},
                          {"TASKS", "processes"}},
                         options.style)
                << "\n"
                << table(found["processes"],
                         {{"GLOBAL ID", "id"},
                          {"ENCLAVE", "enclave"},
                          {"PID", "pid"},
                          {"CPU %", "cpuPercent"},
                          {"MEMORY", "memory"},
                          {"FAULTS/S", "faultsPerSecond"},
                          {"PROGRAM", "program"}},
                         options.style);
      if (!options.terminal && round + 1 != options.rounds) std::cout << "\n";
    }
    HOBBES_CHECK(flush_standard_output());
    before = std::move(now);
    if (nis->replaced()) {
      HOBBES_TRY(again, NisReader::open(mirror_path()));
      nis = std::move(again);
    }
  }
  return {};
}

}  // namespace hobbes
