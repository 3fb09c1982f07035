#include "shell/interference.h"

#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <set>
#include <sstream>
#include <thread>

#include "core/clock.h"
#include "core/paths.h"
#include "enclave/describe.h"
#include "enclave/driver.h"
#include "enclave/record.h"
#include "nis/reader.h"
#include "partition/interference.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds between_looks{200};

// Those that the caches of the last level serve, too.
CpuSet beside(const CpuSet& cpus) {
  CpuSet out;
  for (unsigned cpu : cpus.members()) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache/";
    std::string last;
    for (const std::string& index : Files::system().list(folder).value_or({}))
      if (index.rfind("index", 0) == 0 && index > last) last = index;
    if (last.empty()) continue;
    auto shared =
        CpuSet::parse(Files::system().read(folder + last + "/shared_cpu_list", 4096).value_or(""));
    if (shared) out = out | *shared;
  }
  return out - cpus;
}

// Where an enclave without cores of its own may run.
CpuSet allowed_of(pid_t pid) {
  const std::string file = "/proc/" + std::to_string(pid) + "/status";
  std::istringstream lines(Files::system().read(file, 1 << 16).value_or(""));
  const std::string key = "Cpus_allowed_list:";
  for (std::string line; std::getline(lines, line);)
    if (line.rfind(key, 0) == 0)
      if (auto set = CpuSet::parse(line.substr(line.find_first_not_of(" \t", key.size()))))
        return *set;
  return {};
}

CpuSet online_cpus() {
  auto text = Files::system().read("/sys/devices/system/cpu/online", 1 << 16).value_or("");
  return CpuSet::parse(text.substr(0, text.find('\n'))).value_or(CpuSet());
}

// The watching itself is to disturb as little as it can.
void keep_off(const CpuSet& cpus, const CpuSet& online) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (unsigned cpu : (online - cpus).members())
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  if (CPU_COUNT(&set) != 0) (void)::sched_setaffinity(0, sizeof set, &set);
}

Json to_json(const std::vector<Offender>& offenders, const char* unit) {
  Json out = Json::array();
  for (const Offender& one : offenders)
    out.push_back({{"name", one.name}, {unit, one.amount}, {"cpus", one.cpus.text()}});
  return out;
}

std::string time_text(std::uint64_t ns) {
  char text[32];
  if (ns >= 1'000'000'000U)
    (void)std::snprintf(text, sizeof text, "%.2f s", static_cast<double>(ns) / 1e9);
  else if (ns >= 1'000'000U)
    (void)std::snprintf(text, sizeof text, "%.1f ms", static_cast<double>(ns) / 1e6);
  else
    (void)std::snprintf(text, sizeof text, "%.1f us", static_cast<double>(ns) / 1e3);
  return text;
}

// The first of a list, and how many more there are.
template <class Text>
std::string first_of(const Json& list, Text text) {
  constexpr std::size_t most = 6;
  std::string out;
  for (std::size_t i = 0; i < std::min(list.size(), most); ++i)
    out += (i == 0 ? "" : ", ") + text(list[i]);
  if (list.size() > most) out += ", and " + std::to_string(list.size() - most) + " more";
  return out;
}

std::string view(const Json& found, const Style& style) {
  const double all = found["seconds"].get<double>() * 1e9 *
                     static_cast<double>(std::max<std::int64_t>(number_at(found, "cpuCount"), 1));
  std::string out = "enclave '" + text_at(found, "id") + "' (" + text_at(found, "kind") +
                    ") on CPUs " + text_at(found, "cpus");
  char head[80];
  (void)std::snprintf(head, sizeof head, ", watched for %.1f s\n", found["seconds"].get<double>());
  out += head;
  auto row = [&](const char* what, const std::string& time, const std::string& part,
                 const std::string& by) {
    char text[64];
    (void)std::snprintf(text, sizeof text, "%-16s %10s %8s  ", what, time.c_str(), part.c_str());
    std::string line = text + by;
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  };
  auto timed = [&](const char* what, std::uint64_t ns, const std::string& by) {
    char part[32];
    (void)std::snprintf(part, sizeof part, "%.2f %%", static_cast<double>(ns) * 100 / all);
    return row(what, time_text(ns), part, by);
  };
  auto ns = [&](const char* key) { return static_cast<std::uint64_t>(number_at(found, key)); };
  const std::string title = row("WHAT", "TIME", "OF ALL", "BY");
  out += style.colour ? "\033[1m" + title + "\033[0m" : title;
  if (found.contains("ranNs")) {
    out += timed("ran", ns("ranNs"), "");
    out += timed("waited", ns("waitedNs"), "its threads were ready and had no processor");
    std::uint64_t others = 0;
    for (const Json& one : found["programs"])
      others += static_cast<std::uint64_t>(number_at(one, "ns"));
    out += timed("other programs", others, first_of(found["programs"], [](const Json& one) {
                   return text_at(one, "name") + " " +
                          time_text(static_cast<std::uint64_t>(number_at(one, "ns")));
                 }));
    out += timed("interrupts", ns("handledNs"), first_of(found["interrupts"], [](const Json& one) {
                   return text_at(one, "name") + " " + std::to_string(number_at(one, "count"));
                 }));
    out += timed("hypervisor", ns("stolenNs"), "");
    out +=
        row("throttled", "", "", std::to_string(number_at(found, "throttledPeriods")) + " periods");
  }
  out += row("shared cache", "", "", first_of(found["neighbours"], [](const Json& one) {
               return "enclave '" + text_at(one, "id") + "' on CPUs " + text_at(one, "cpus");
             }));
  for (const auto& [name, count] : found["coKernel"].items())
    out += row(name == found["coKernel"].items().begin().key() ? "co-kernel" : "", "", "",
               name + " " + to_text(count));
  return out;
}

}  // namespace

Result<void> show_interference(const std::string& id, milliseconds duration, const Style& style) {
  HOBBES_CHECK(check_id(id));
  HOBBES_TRY(record, EnclaveRecord::load(default_root(), id));
  if (record.status() != Status::running)
    return Error{Code::invalid, "watch enclave '" + id + "'", "it does not run",
                 "start it; `hobbes enclaves` shows the states"};
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  CpuSet cpus;
  std::uint64_t handle = 0;
  for (const hobbes_record& one : nis->all(HOBBES_ENCLAVE))
    if (one.id == record.handle) {
      handle = one.id;
      cpus = cpus_of(one.body.enclave.cpus);
    }
  const CpuSet online = online_cpus();
  if (cpus.empty()) cpus = allowed_of(record.process.pid) & online;
  keep_off(cpus, online);

  const Driver& driver = driver_for(record.kind);
  auto numbers_before = driver.statistics(record);
  InterferenceWatch watch(cpus);
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC),
                      end = begin + static_cast<std::uint64_t>(duration.count()) * 1'000'000U;
  const bool tells = ::isatty(2) == 1;
  const OwnProcesses own = [&]() -> Result<std::set<pid_t>> {
    HOBBES_TRY(processes, driver.processes(record));
    return std::set<pid_t>(processes.begin(), processes.end());
  };
  for (std::uint64_t now = begin;;) {
    if (!record.process.alive()) break;  // what follows on its cores is not its own
    HOBBES_CHECK(watch.look(own, now));
    if (now >= end) break;
    if (tells)
      std::cerr << "\rwatching, " << (end - now + 999'999'999U) / 1'000'000'000U << " s left "
                << std::flush;
    std::this_thread::sleep_for(
        std::min(between_looks, milliseconds((end - now + 999'999U) / 1'000'000U)));
    now = clock_ns(CLOCK_MONOTONIC);
  }
  if (tells) std::cerr << "\r\033[K" << std::flush;
  const Interference result = watch.result();
  const auto numbers = driver.statistics(record);
  auto grown = [&](const std::string& name) {
    auto at = numbers.find(name);
    const std::uint64_t before = numbers_before[name];
    return at != numbers.end() && at->second > before ? at->second - before : 0;
  };

  Json neighbours = Json::array(), counted = Json::object();
  const CpuSet shared = beside(cpus);
  for (const hobbes_record& one : nis->all(HOBBES_ENCLAVE)) {
    const CpuSet others = cpus_of(one.body.enclave.cpus) & shared;
    if (one.id != handle && one.state == HOBBES_RUNNING && !others.empty())
      neighbours.push_back({{"id", one.name}, {"cpus", others.text()}});
  }
  // Linux sees nothing of a co-kernel's cores; it counts its interrupts itself.
  for (const auto& [name, value] : numbers)
    if (name.rfind("kitten.interrupts.", 0) == 0) counted[name.substr(7)] = grown(name);
  Json found = {{"id", id},
                {"kind", name_of(record.kind)},
                {"cpus", cpus.text()},
                {"cpuCount", cpus.count()},
                {"seconds", static_cast<double>(result.elapsed_ns) / 1e9},
                {"neighbours", neighbours},
                {"coKernel", counted}};
  if (record.kind != Kind::kitten)
    found.update({{"ranNs", result.ran_ns},
                  {"waitedNs", result.waited_ns},
                  {"handledNs", result.handled_ns},
                  {"stolenNs", result.stolen_ns},
                  {"throttledPeriods", grown("cpu.throttled_periods")},
                  {"interrupts", to_json(result.interrupts, "count")},
                  {"programs", to_json(result.programs, "ns")}});
  std::cout << (style.json ? to_text(found, 2) + "\n" : view(found, style));
  return {};
}

}  // namespace hobbes
