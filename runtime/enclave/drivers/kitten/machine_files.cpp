#include "enclave/drivers/kitten/machine_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "core/fd.h"

namespace hobbes {
namespace {

const std::string sys_cpus = "/sys/devices/system/cpu", sys_nodes = "/sys/devices/system/node";

std::string line_of(Result<std::string> text) {
  std::string out = std::move(text).value_or("");
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// As sysfs writes masks: words of 32 bits, the highest first.
std::string mask_of(const CpuSet& set) {
  const unsigned words = set.empty() ? 1 : set.members().back() / 32 + 1;
  std::string out;
  for (unsigned word = words; word-- > 0;) {
    std::uint32_t bits = 0;
    for (unsigned bit = 0; bit < 32; ++bit)
      if (set.has(word * 32 + bit)) bits |= 1U << bit;
    char text[16];
    std::snprintf(text, sizeof text, "%s%08x", out.empty() ? "" : ",", bits);
    out += text;
  }
  return out;
}

// The processors of a mask.
CpuSet members_of(const std::string& mask) {
  CpuSet out;
  unsigned at = 0;
  for (auto digit = mask.rbegin(); digit != mask.rend(); ++digit) {
    if (*digit == ',') continue;
    const char text[2] = {*digit, '\0'};
    const auto bits = std::strtoul(text, nullptr, 16);
    for (unsigned bit = 0; bit < 4 && at + bit < CpuSet::capacity; ++bit)
      if ((bits >> bit & 1U) != 0) out.add(at + bit);
    at += 4;
  }
  return out;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Whose neighbours a file names, without those that are not the enclave's.
std::string within(const std::string& name, const std::string& text, const CpuSet& cpus) {
  if (ends_with(name, "_list")) {
    auto listed = CpuSet::parse(text);
    return listed ? (*listed & cpus).text() : text;
  }
  if (ends_with(name, "_siblings") || ends_with(name, "_cpus") || ends_with(name, "_map"))
    return mask_of(members_of(text) & cpus);
  return text;
}

// The part of /proc/cpuinfo that describes one.
std::string description_of(const std::string& cpuinfo, unsigned cpu) {
  for (std::size_t at = 0; at < cpuinfo.size();) {
    std::size_t end = cpuinfo.find("\n\n", at);
    end = end == std::string::npos ? cpuinfo.size() : end + 2;
    unsigned number = 0;
    const std::string one = cpuinfo.substr(at, end - at);
    if (std::sscanf(one.c_str(), "processor : %u", &number) == 1 && number == cpu) return one;
    at = end;
  }
  return {};
}

std::string memory_lines(const std::string& prefix, std::uint64_t bytes) {
  std::string out;
  for (const char* name : {"MemTotal", "MemFree", "MemAvailable"}) {
    if (!prefix.empty() && std::string(name) == "MemAvailable") continue;  // nodes have none
    char line[96];
    std::snprintf(line, sizeof line, "%s%-16s%8llu kB\n", prefix.c_str(),
                  (std::string(name) + ":").c_str(), static_cast<unsigned long long>(bytes / 1024));
    out += line;
  }
  if (prefix.empty())
    out +=
        "Buffers:               0 kB\nCached:                0 kB\nSwapCached:            0 kB\n"
        "SwapTotal:             0 kB\nSwapFree:              0 kB\n";
  return out;
}

}  // namespace

// In place: a mounted file shows what is written to it, not what replaces it.
Result<void> MachineFiles::put(const std::string& name, const std::string& text) const {
  const std::string path = folder_ + "/" + name;
  HOBBES_CHECK(make_directories(path.substr(0, path.rfind('/'))));
  Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file) return os_error("write " + path, errno);
  for (std::size_t done = 0; done < text.size();) {
    ssize_t n = ::write(file.get(), text.data() + done, text.size() - done);
    if (n <= 0) return os_error("write " + path, errno);
    done += static_cast<std::size_t>(n);
  }
  return {};
}

// What Linux says of a processor, whole: whom it may name is decided anew each time.
Result<void> MachineFiles::copy_processor(unsigned cpu) const {
  const std::string name = "cpu" + std::to_string(cpu), from = sys_cpus + "/" + name,
                    known = "known/" + name;
  if (::access((folder_ + "/" + known).c_str(), F_OK) == 0) return {};
  if (!system_.list(from + "/topology")) return {};  // offline: it may be known the next time
  const std::string all = system_.read("/proc/cpuinfo", 16 << 20).value_or("");
  HOBBES_CHECK(put(known + "/description", description_of(all, cpu)));
  std::vector<std::string> folders = {"topology"};
  for (const std::string& cache : system_.list(from + "/cache").value_or({}))
    if (cache.rfind("index", 0) == 0) folders.push_back("cache/" + cache);
  for (const std::string& folder : folders)
    for (const std::string& file : system_.list(from + "/" + folder).value_or({}))
      if (auto text = system_.read(from + "/" + folder + "/" + file); text && file != "uevent")
        HOBBES_CHECK(put(known + "/" + folder + "/" + file, *text));
  // Its NUMA node is the link nodeN beside them.
  for (const std::string& entry : system_.list(from).value_or({}))
    if (entry.rfind("node", 0) == 0) HOBBES_CHECK(put(known + "/node", entry.substr(4)));
  return {};
}

Result<void> MachineFiles::write(const CpuSet& cpus,
                                 const std::map<unsigned, std::uint64_t>& memory) const {
  std::string cpuinfo;
  std::map<unsigned, CpuSet> nodes;
  std::uint64_t total = 0;
  for (const auto& [node, bytes] : memory) {
    nodes[node];
    total += bytes;
  }
  for (unsigned cpu : cpus.members()) {
    HOBBES_CHECK(copy_processor(cpu));
    const std::string name = "cpu" + std::to_string(cpu), known = folder_ + "/known/" + name;
    cpuinfo += Files::system().read(known + "/description").value_or("");
    nodes[static_cast<unsigned>(
              std::atoi(Files::system().read(known + "/node").value_or("0").c_str()))]
        .add(cpu);
    std::vector<std::string> folders = {"topology"};
    for (const std::string& cache : Files::system().list(known + "/cache").value_or({}))
      folders.push_back("cache/" + cache);
    for (const std::string& folder : folders)
      for (const std::string& file : Files::system().list(known + "/" + folder).value_or({}))
        HOBBES_CHECK(put(
            "cpu/" + name + "/" + folder + "/" + file,
            within(file, line_of(Files::system().read(known + "/" + folder + "/" + file)), cpus) +
                "\n"));
  }
  for (const std::string& entry : Files::system().list(folder_ + "/cpu").value_or({})) {
    unsigned cpu = 0;
    if (std::sscanf(entry.c_str(), "cpu%u", &cpu) == 1 && !cpus.has(cpu))
      (void)remove_tree(folder_ + "/cpu/" + entry);
  }
  for (const std::string& entry : Files::system().list(folder_ + "/node").value_or({})) {
    unsigned node = 0;
    if (std::sscanf(entry.c_str(), "node%u", &node) == 1 && nodes.count(node) == 0)
      (void)remove_tree(folder_ + "/node/" + entry);
  }
  CpuSet with_cpus, with_memory, all;
  for (const auto& [node, its] : nodes) {
    all.add(node);
    if (!its.empty()) with_cpus.add(node);
    auto held = memory.find(node);
    const std::uint64_t bytes = held == memory.end() ? 0 : held->second;
    if (bytes != 0) with_memory.add(node);
    const std::string name = "node/node" + std::to_string(node) + "/";
    HOBBES_CHECK(put(name + "cpulist", its.text() + "\n"));
    HOBBES_CHECK(put(name + "cpumap", mask_of(its) + "\n"));
    HOBBES_CHECK(put(name + "meminfo", memory_lines("Node " + std::to_string(node) + " ", bytes)));
    std::string distances;
    for (const auto& [other, unused] : nodes)
      distances += (distances.empty() ? "" : " ") + std::string(other == node ? "10" : "20");
    HOBBES_CHECK(put(name + "distance", distances + "\n"));
  }
  for (const char* file : {"online", "possible", "present"}) {
    HOBBES_CHECK(put(std::string("cpu/") + file, cpus.text() + "\n"));
    HOBBES_CHECK(put(std::string("node/") + file, all.text() + "\n"));
  }
  HOBBES_CHECK(put("cpu/offline", "\n"));
  HOBBES_CHECK(put("node/has_cpu", with_cpus.text() + "\n"));
  HOBBES_CHECK(put("node/has_memory", with_memory.text() + "\n"));
  // The proxies' control groups name the processors that Linux has for them: hwloc would find that
  // the enclave's are not among those.
  HOBBES_CHECK(make_directories(folder_ + "/cgroups"));
  HOBBES_CHECK(put("cpuinfo", cpuinfo));
  return put("meminfo", memory_lines("", total));
}

std::vector<oci::Mount> MachineFiles::mounts(const Bundle& bundle) const {
  auto has = [&](const std::string& place) {
    return bundle.hobbes.host_root ||
           std::any_of(bundle.oci.mounts.begin(), bundle.oci.mounts.end(),
                       [&](const oci::Mount& mount) { return mount.destination == place; });
  };
  std::vector<oci::Mount> out;
  auto show = [&](const std::string& name, const std::string& place) {
    out.push_back(
        {place, "bind", folder_ + "/" + name, {"bind", "ro", "nosuid", "nodev", "noexec"}});
  };
  if (has("/proc")) {
    show("cpuinfo", "/proc/cpuinfo");
    show("meminfo", "/proc/meminfo");
  }
  if (has("/sys")) {
    show("cpu", sys_cpus);
    for (const auto& [name, place] :
         {std::pair{"node", sys_nodes}, std::pair{"cgroups", std::string("/sys/fs/cgroup")}})
      if (::access(place.c_str(), F_OK) == 0) show(name, place);
  }
  return out;
}

}  // namespace hobbes
