#include "partition/cgroup.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "core/fd.h"
#include "core/pidfd.h"
#include "partition/batch_step.h"
#include "partition/device_filter.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;

// The controllers Hobbes uses; blkio and cpuacct because engines read their counters at the group's
// path.
const std::vector<std::string> used = {"cpuset", "cpu",     "cpuacct", "memory",
                                       "pids",   "devices", "freezer", "blkio"};

// The v2 tree of a hybrid node among the v1 trees. It has no controllers; tools that look there
// find an enclave's processes.
constexpr const char* unified_tree = "unified";

void pause_briefly() {
  timespec nap{0, 500'000};
  ::nanosleep(&nap, nullptr);
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string number_text(std::int64_t value) { return value < 0 ? "max" : std::to_string(value); }

// kernel documentation: v1 shares 2..262144 (default 1024) map to v2 weight 1..10000 (default 100).
std::uint64_t weight_of_shares(std::uint64_t shares) {
  if (shares < 2) return 1;
  if (shares > 262144) return 10000;
  return 1 + ((shares - 2) * 9999) / 262142;
}

std::string device_number(std::int64_t major, std::int64_t minor) {
  return std::to_string(major) + ":" + std::to_string(minor);
}

std::string rdma_text(const std::string& device, const oci::RdmaLimit& limit) {
  auto text = [](std::optional<std::uint32_t> n) {
    return n ? std::to_string(*n) : std::string("max");
  };
  return device + " hca_handle=" + text(limit.handles) + " hca_object=" + text(limit.objects);
}

}  // namespace

CgroupLayout CgroupLayout::parse(const std::string& mountinfo, const Files& files) {
  CgroupLayout layout;
  std::istringstream lines(mountinfo);
  std::string unified;
  for (std::string line; std::getline(lines, line);) {
    // 36 35 98:0 /root /mount/point options - type source super-options
    std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string id, parent, device, root, point, type, source, options;
    left >> id >> parent >> device >> root >> point;
    right >> type >> source >> options;
    if (type == "cgroup2" && unified.empty()) unified = point;
    if (type != "cgroup") continue;
    std::istringstream names("," + options);
    for (std::string option; std::getline(names, option, ',');)
      if (std::find(used.begin(), used.end(), option) != used.end())
        layout.v1.emplace(option, point);
  }
  if (!unified.empty() && layout.v1.empty()) {
    auto controllers = files.read(unified + "/cgroup.controllers");
    if (controllers) layout.v2 = unified;
  }
  if (!unified.empty() && !layout.v1.empty()) layout.v1.emplace(unified_tree, unified);
  return layout;
}

Result<CgroupLayout> CgroupLayout::detect(const Files& files) {
  HOBBES_TRY(text, files.read("/proc/self/mountinfo"));
  CgroupLayout layout = parse(text, files);
  // In the unified tree a user may only move his processes between groups whose common ancestor is
  // his, too; the tree limits nothing anyway.
  if (::geteuid() != 0) layout.v1.erase(unified_tree);
  return layout;
}

// A batch system has groups of a step only in the hierarchies of v1 whose controllers it uses, and
// some of them without tasks. Where it has none, ours is with the others.
std::string Cgroup::folder_in(const std::string& mount) const {
  const std::string step = layout_.v2.empty() ? batch_step_in(path_) : "";
  if (step.empty() || step == path_) return mount + path_;
  const std::string rest = path_.substr(step.size());
  for (const std::string& place : {step, without_task(step)})
    if (files_->exists(mount + place + "/cgroup.procs")) return mount + place + rest;
  return mount + "/hobbes" + rest;
}

std::string Cgroup::directory(const std::string& controller) const {
  if (!layout_.v2.empty()) return layout_.v2 + path_;
  auto at = layout_.v1.find(controller);
  return at == layout_.v1.end() ? std::string() : folder_in(at->second);
}

std::vector<std::string> Cgroup::directories() const {
  if (!layout_.v2.empty()) return {layout_.v2 + path_};
  std::vector<std::string> out;  // co-mounted controllers share one directory
  for (const auto& [controller, mount] : layout_.v1)
    if (std::string folder = folder_in(mount);
        std::find(out.begin(), out.end(), folder) == out.end())
      out.push_back(std::move(folder));
  return out;
}

Result<void> Cgroup::write(const std::string& controller, const std::string& file,
                           const std::string& value) const {
  std::string folder = directory(controller);
  if (folder.empty())
    return Error{Code::unavailable, "set " + file + " to " + value,
                 "this node has no " + controller + " cgroup controller",
                 "mount it, or take the setting out of the bundle"};
  auto written = files_->write(folder + "/" + file, value);
  if (!written) return std::move(written.error()).within("limit control group " + path_);
  return {};
}

// A v1 cpuset group starts without cpus and mems and takes no process until it has both.
Result<void> Cgroup::inherit_cpuset(const std::string& mount, const std::string& folder) const {
  for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
    HOBBES_TRY(own, files_->read(folder + file));
    if (!trimmed(own).empty()) continue;
    std::string parent = folder.substr(0, folder.rfind('/'));
    if (parent.size() < mount.size()) return {};
    HOBBES_TRY(value, files_->read(parent + file));
    HOBBES_CHECK(files_->write(folder + file, trimmed(value)));
  }
  return {};
}

Result<void> Cgroup::create() const {
  auto make = [&](const std::string& mount) -> Result<void> {
    bool is_cpuset =
        layout_.v2.empty() && layout_.v1.count("cpuset") != 0 && layout_.v1.at("cpuset") == mount;
    const std::string path = folder_in(mount).substr(mount.size());
    // What a batch system has made is there or gone, and its settings are its own.
    const std::string step = batch_step_in(path);
    if (!step.empty() && !files_->exists(mount + step + "/cgroup.procs"))
      return Error{Code::not_found, "create control group " + path_, step + " is gone", ""};
    for (std::size_t at = step.size() + 1; at != std::string::npos;) {
      at = path.find('/', at);
      std::string prefix = path.substr(0, at);
      if (at != std::string::npos) ++at;
      std::string folder = mount + prefix;
      auto made = files_->make_directory(folder);
      if (!made && made.error().code != Code::exists)
        return std::move(made.error()).within("create control group " + path_);
      if (is_cpuset) HOBBES_CHECK(inherit_cpuset(mount, folder));
      if (!layout_.v2.empty()) {
        std::string parent = folder.substr(0, folder.rfind('/'));
        HOBBES_TRY(available, files_->read(parent + "/cgroup.controllers"));
        std::istringstream names(available);
        for (std::string name;
             names >> name;)  // one the parent cannot enable is reported when a limit needs it
          (void)files_->write(parent + "/cgroup.subtree_control", "+" + name);
      }
    }
    return {};
  };
  auto all = [&]() -> Result<void> {
    if (!layout_.v2.empty()) return make(layout_.v2);
    for (const auto& [controller, mount] : layout_.v1) HOBBES_CHECK(make(mount));
    return {};
  };
  // A concurrent remove() may take an emptied parent away between two mkdirs: one retry makes it
  // again.
  auto made = all();
  if (!made && made.error().code == Code::not_found) made = all();
  if (!made) {
    (void)remove();
    return made;
  }
  return {};
}

// No controller is handed down: on v2 a group with processes may not.
Result<Cgroup> Cgroup::make_subgroup(const std::string& name) const {
  Cgroup out(layout_, path_ + "/" + name, *files_);
  for (const std::string& folder : out.directories()) {
    auto made = files_->make_directory(folder);
    if (!made && made.error().code != Code::exists)
      return std::move(made.error()).within("create control group " + out.path_);
  }
  auto cpuset = layout_.v1.find("cpuset");
  if (layout_.v2.empty() && cpuset != layout_.v1.end())
    HOBBES_CHECK(inherit_cpuset(cpuset->second, out.folder_in(cpuset->second)));
  return out;
}

Result<void> Cgroup::apply(const oci::Resources& resources) const {
  return layout_.v2.empty() ? apply_v1(resources) : apply_v2(resources);
}

Result<void> Cgroup::apply_v1(const oci::Resources& r) const {
  if (!r.cpus.empty()) HOBBES_CHECK(write("cpuset", "cpuset.cpus", r.cpus));
  if (!r.mems.empty()) HOBBES_CHECK(write("cpuset", "cpuset.mems", r.mems));
  if (r.memory_limit) {
    // The kernel wants memory <= memory+swap at every moment, so growing and shrinking need
    // opposite orders. A limit above the one of memory and swap takes that along.
    auto limit = write("memory", "memory.limit_in_bytes", std::to_string(*r.memory_limit));
    bool has_swap = files_->exists(directory("memory") + "/memory.memsw.limit_in_bytes");
    if (has_swap && (r.memory_swap || !limit)) {
      HOBBES_CHECK(write("memory", "memory.memsw.limit_in_bytes",
                         std::to_string(r.memory_swap.value_or(*r.memory_limit))));
      if (!limit) limit = write("memory", "memory.limit_in_bytes", std::to_string(*r.memory_limit));
    }
    HOBBES_CHECK(std::move(limit));
  }
  if (r.memory_reservation)
    HOBBES_CHECK(
        write("memory", "memory.soft_limit_in_bytes", std::to_string(*r.memory_reservation)));
  if (r.cpu_shares && *r.cpu_shares != 0)
    HOBBES_CHECK(write("cpu", "cpu.shares", std::to_string(*r.cpu_shares)));
  {
    // The kernel wants quota / period <= the parent's at every moment, so growing and shrinking
    // need opposite orders.
    auto set_period = [&]() -> Result<void> {
      if (r.cpu_period.value_or(0) == 0) return {};
      return write("cpu", "cpu.cfs_period_us", std::to_string(*r.cpu_period));
    };
    auto period = set_period();
    if (!period && r.cpu_quota.value_or(0) == 0) return period;
    if (r.cpu_quota.value_or(0) != 0)
      HOBBES_CHECK(write("cpu", "cpu.cfs_quota_us", std::to_string(*r.cpu_quota)));
    if (!period) HOBBES_CHECK(set_period());
  }
  if (r.pids_limit)
    HOBBES_CHECK(write("pids", "pids.max", number_text(*r.pids_limit == 0 ? -1 : *r.pids_limit)));
  for (const oci::DeviceRule& rule : r.devices) {
    auto number = [](std::optional<std::int64_t> n) {
      return n ? std::to_string(*n) : std::string("*");
    };
    std::string text = rule.type == 'a' ? "a *:* rwm"
                                        : std::string(1, rule.type) + " " + number(rule.major) +
                                              ":" + number(rule.minor) + " " + rule.access;
    HOBBES_CHECK(write("devices", rule.allow ? "devices.allow" : "devices.deny", text));
  }
  if (r.swappiness)
    HOBBES_CHECK(write("memory", "memory.swappiness", std::to_string(*r.swappiness)));
  if (r.disable_oom_killer) HOBBES_CHECK(write("memory", "memory.oom_control", "1"));
  if (r.cpu_idle) HOBBES_CHECK(write("cpu", "cpu.idle", std::to_string(*r.cpu_idle)));
  if (r.cpu_burst) HOBBES_CHECK(write("cpu", "cpu.cfs_burst_us", std::to_string(*r.cpu_burst)));
  if (r.realtime_period && *r.realtime_period != 0)
    HOBBES_CHECK(write("cpu", "cpu.rt_period_us", std::to_string(*r.realtime_period)));
  if (r.realtime_runtime && *r.realtime_runtime != 0)
    HOBBES_CHECK(write("cpu", "cpu.rt_runtime_us", std::to_string(*r.realtime_runtime)));
  for (const auto& [size, limit] : r.hugepages)
    HOBBES_CHECK(write("hugetlb", "hugetlb." + size + ".limit_in_bytes", std::to_string(limit)));
  // The file's name depends on the scheduler of the disks.
  const bool bfq = files_->exists(directory("blkio") + "/blkio.bfq.weight");
  const std::string weight = bfq ? "blkio.bfq.weight" : "blkio.weight";
  if (r.block_weight) HOBBES_CHECK(write("blkio", weight, std::to_string(*r.block_weight)));
  for (const oci::BlockWeight& one : r.block_weights)
    HOBBES_CHECK(write("blkio", weight + "_device",
                       device_number(one.major, one.minor) + " " + std::to_string(one.weight)));
  for (const oci::BlockLimit& limit : r.block_limits)
    HOBBES_CHECK(write("blkio", "blkio.throttle." + limit.name,
                       device_number(limit.major, limit.minor) + " " + std::to_string(limit.rate)));
  for (const auto& [device, limit] : r.rdma)
    HOBBES_CHECK(write("rdma", "rdma.max", rdma_text(device, limit)));
  for (const auto& [file, unused] : r.unified)
    return Error{Code::unsupported, "set " + file + " of control group " + path_,
                 "\"unified\" is for cgroup v2, and this node has v1",
                 "use the properties of resources"};
  return {};
}

Result<void> Cgroup::apply_v2(const oci::Resources& r) const {
  if (!r.cpus.empty()) HOBBES_CHECK(write("cpuset", "cpuset.cpus", r.cpus));
  if (!r.mems.empty()) HOBBES_CHECK(write("cpuset", "cpuset.mems", r.mems));
  if (r.memory_limit) HOBBES_CHECK(write("memory", "memory.max", number_text(*r.memory_limit)));
  if (r.memory_swap && r.memory_limit && files_->exists(directory("memory") + "/memory.swap.max")) {
    std::int64_t swap =
        *r.memory_swap < 0 ? -1 : std::max<std::int64_t>(0, *r.memory_swap - *r.memory_limit);
    HOBBES_CHECK(write("memory", "memory.swap.max", number_text(swap)));
  }
  if (r.memory_reservation)
    HOBBES_CHECK(write("memory", "memory.low", number_text(*r.memory_reservation)));
  if (r.cpu_shares && *r.cpu_shares != 0)
    HOBBES_CHECK(write("cpu", "cpu.weight", std::to_string(weight_of_shares(*r.cpu_shares))));
  if (r.cpu_quota.value_or(0) != 0 || r.cpu_period.value_or(0) != 0) {
    // What is not named stays: the kernel keeps the period by itself, the quota must be repeated.
    std::string quota = number_text(r.cpu_quota.value_or(-1));
    if (r.cpu_quota.value_or(0) == 0)
      if (auto now = files_->read(directory("cpu") + "/cpu.max"); now)
        quota = now->substr(0, now->find(' '));
    HOBBES_CHECK(
        write("cpu", "cpu.max",
              r.cpu_period.value_or(0) != 0 ? quota + " " + std::to_string(*r.cpu_period) : quota));
  }
  if (r.pids_limit)
    HOBBES_CHECK(write("pids", "pids.max", number_text(*r.pids_limit == 0 ? -1 : *r.pids_limit)));
  if (!r.devices.empty()) HOBBES_CHECK(attach_device_filter(layout_.v2 + path_, r.devices));
  for (const auto& [name, set] :
       {std::pair{"memory.swappiness", r.swappiness.has_value()},
        std::pair{"memory.disableOOMKiller", r.disable_oom_killer},
        std::pair{"cpu.realtimeRuntime", r.realtime_runtime.value_or(0) != 0},
        std::pair{"cpu.realtimePeriod", r.realtime_period.value_or(0) != 0}})
    if (set)
      return Error{Code::unsupported, std::string("set linux.resources.") + name,
                   "cgroup v2 has no such limit", "take it out of the bundle"};
  if (r.cpu_idle) HOBBES_CHECK(write("cpu", "cpu.idle", std::to_string(*r.cpu_idle)));
  if (r.cpu_burst) HOBBES_CHECK(write("cpu", "cpu.max.burst", std::to_string(*r.cpu_burst)));
  for (const auto& [size, limit] : r.hugepages)
    HOBBES_CHECK(write("hugetlb", "hugetlb." + size + ".max", std::to_string(limit)));
  const bool bfq = files_->exists(directory("io") + "/io.bfq.weight");
  // v1's 10 .. 1000 as io.weight's 1 .. 10000.
  auto scaled = [&](std::uint64_t weight) {
    return std::to_string(bfq || weight < 10 ? weight : 1 + (weight - 10) * 9999 / 990);
  };
  const std::string weights = bfq ? "io.bfq.weight" : "io.weight";
  if (r.block_weight) HOBBES_CHECK(write("io", weights, scaled(*r.block_weight)));
  for (const oci::BlockWeight& one : r.block_weights)
    HOBBES_CHECK(
        write("io", weights, device_number(one.major, one.minor) + " " + scaled(one.weight)));
  for (const oci::BlockLimit& limit : r.block_limits)
    HOBBES_CHECK(write("io", "io.max",
                       device_number(limit.major, limit.minor) + " " + limit.v2 + "=" +
                           (limit.rate == 0 ? std::string("max") : std::to_string(limit.rate))));
  for (const auto& [device, limit] : r.rdma)
    HOBBES_CHECK(write("rdma", "rdma.max", rdma_text(device, limit)));
  for (const auto& [file, value] : r.unified) HOBBES_CHECK(write("", file, value));
  return {};
}

Result<void> Cgroup::enter(pid_t pid) const {
  for (const std::string& folder : directories()) {
    auto moved = files_->write(folder + "/cgroup.procs", std::to_string(pid));
    if (!moved)
      return std::move(moved.error())
          .within("move process " + std::to_string(pid) + " into control group " + path_);
  }
  return {};
}

Result<std::vector<std::string>> Cgroup::subgroup_folders(const std::string& words) const {
  std::size_t colon = words.find(':');
  std::string names = colon == std::string::npos ? "" : words.substr(0, colon),
              below = words.substr(colon == std::string::npos ? 0 : colon + 1);
  auto wrong = [&](const std::string& why) {
    return Error{Code::invalid, "enter control group '" + words + "' of the enclave", why,
                 "name a group below the enclave's, as [CONTROLLER[,CONTROLLER...]:]PATH"};
  };
  std::string inside;
  std::istringstream parts(below);
  for (std::string part; std::getline(parts, part, '/');) {
    if (part == "..") return wrong(below + " is not a sub cgroup path");
    if (!part.empty() && part != ".") inside += "/" + part;
  }
  Cgroup group(layout_, path_ + inside, *files_);
  std::vector<std::string> folders;
  if (colon == std::string::npos) {
    folders = group.directories();
  } else if (!layout_.v2.empty()) {
    return wrong("cgroup v2 has one tree for all controllers");
  } else {
    std::istringstream list(names);
    for (std::string name; std::getline(list, name, ',');) {
      std::string folder = group.directory(name);
      if (folder.empty()) return wrong("this node has no " + name + " cgroup controller");
      if (std::find(folders.begin(), folders.end(), folder) == folders.end())
        folders.push_back(folder);
    }
    if (folders.empty()) return wrong("no controller stands before the colon");
  }
  for (const std::string& folder : folders)
    if (!files_->exists(folder + "/cgroup.procs"))
      return Error{Code::not_found, "enter control group '" + words + "' of the enclave",
                   folder + " does not exist", "make it first"};
  return folders;
}

Result<void> Cgroup::enter_subgroup(pid_t pid, const std::string& words) const {
  HOBBES_TRY(folders, subgroup_folders(words));
  for (const std::string& folder : folders)
    HOBBES_CHECK(files_->write(folder + "/cgroup.procs", std::to_string(pid)));
  return {};
}

Result<void> Cgroup::freeze(bool frozen_wanted, std::chrono::milliseconds deadline) const {
  if (layout_.v2.empty()) {
    HOBBES_CHECK(write("freezer", "freezer.state", frozen_wanted ? "FROZEN" : "THAWED"));
  } else {
    HOBBES_CHECK(write("", "cgroup.freeze", frozen_wanted ? "1" : "0"));
  }
  for (auto end = Clock::now() + deadline; frozen() != frozen_wanted; pause_briefly()) {
    if (Clock::now() > end)
      return Error{Code::timeout,
                   (frozen_wanted ? "freeze control group " : "thaw control group ") + path_,
                   "the kernel did not finish within " + std::to_string(deadline.count()) + " ms",
                   "try again"};
    // A v1 freezer stuck in FREEZING makes progress only when asked again.
    if (layout_.v2.empty() && frozen_wanted) (void)write("freezer", "freezer.state", "FROZEN");
  }
  return {};
}

bool Cgroup::frozen() const {
  if (layout_.v2.empty()) {
    auto state = files_->read(directory("freezer") + "/freezer.state");
    return state && trimmed(*state) == "FROZEN";
  }
  auto events = files_->read(layout_.v2 + path_ + "/cgroup.events");
  return events && events->find("frozen 1") != std::string::npos;
}

Result<std::vector<pid_t>> Cgroup::processes() const {
  // All hierarchies: on v1 one enters them one after the other, and what is born meanwhile is in
  // some only. Groups an enclave made below its own are read too.
  std::vector<pid_t> out;
  std::vector<std::string> pending = directories();
  while (!pending.empty()) {
    std::string folder = pending.back();
    pending.pop_back();
    auto text = files_->read(folder + "/cgroup.procs", 16 << 20);
    if (!text) {
      if (text.error().code == Code::not_found) continue;
      return std::move(text).error();
    }
    std::istringstream numbers(*text);
    for (pid_t pid = 0; numbers >> pid;) out.push_back(pid);
    if (auto names = files_->list(folder))
      for (const std::string& name : *names)
        if (files_->exists(folder + "/" + name + "/cgroup.procs"))
          pending.push_back(folder + "/" + name);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// A number may be somebody else's by the time it is used: the descriptor is taken first, then its
// group looked up.
void Cgroup::kill_member(pid_t pid) const {
  if (pid <= 0) return;
  Fd process = open_pidfd(pid);
  auto groups = files_->read("/proc/" + std::to_string(pid) + "/cgroup");
  bool member = groups && (groups->find(":" + path_ + "\n") != std::string::npos ||
                           groups->find(":" + path_ + "/") != std::string::npos);
  if (process && member) (void)signal_pidfd(process, SIGKILL);
}

Result<void> Cgroup::kill_all(std::chrono::milliseconds deadline) const {
  for (auto end = Clock::now() + deadline;; pause_briefly()) {
    HOBBES_TRY(pids, processes());
    if (pids.empty()) return {};
    // Linux 5.14 and newer kill a group whole; else one by one, each seen to be the one that is
    // meant.
    bool whole = !layout_.v2.empty() && files_->exists(layout_.v2 + path_ + "/cgroup.kill") &&
                 files_->write(layout_.v2 + path_ + "/cgroup.kill", "1");
    if (!whole)
      for (pid_t pid : pids) kill_member(pid);
    // A v1 frozen task, or one on its way there, dies only when thawed.
    if (layout_.v2.empty() && files_->exists(directory("freezer") + "/freezer.state"))
      (void)write("freezer", "freezer.state", "THAWED");
    if (frozen()) (void)freeze(false, std::chrono::milliseconds(0));
    if (Clock::now() > end)
      return Error{
          Code::timeout, "kill the processes of control group " + path_,
          std::to_string(pids.size()) + " still run, the first is " + std::to_string(pids[0]),
          "see its state in /proc/" + std::to_string(pids[0]) + "/stack"};
  }
}

Result<void> Cgroup::remove(std::chrono::milliseconds deadline) const {
  auto end = Clock::now() + deadline;
  for (const std::string& folder : directories()) {
    // Children first; the enclave may have made some.
    std::vector<std::string> order = {folder};
    for (std::size_t i = 0; i < order.size(); ++i) {
      auto names = files_->list(order[i]);
      if (!names) continue;
      for (const std::string& name : *names)
        if (files_->exists(order[i] + "/" + name + "/cgroup.procs"))
          order.push_back(order[i] + "/" + name);
    }
    for (auto at = order.rbegin(); at != order.rend(); ++at) {
      for (;;) {  // a dying process keeps its group busy for a moment
        auto removed = files_->remove_directory(*at);
        if (removed) break;
        if (removed.error().code != Code::busy || Clock::now() > end)
          return std::move(removed.error()).within("remove control group " + path_);
        pause_briefly();
      }
    }
    // The shared parent of default paths goes with its last child.
    std::string parent = folder.substr(0, folder.rfind('/'));
    if (parent.size() > 7 && parent.substr(parent.size() - 7) == "/hobbes")
      (void)files_->remove_directory(parent);
  }
  return {};
}

std::vector<std::string> Cgroup::subgroups() const {
  std::vector<std::string> out;
  for (const std::string& folder : directories())
    for (const std::string& name : files_->list(folder).value_or({}))
      if (files_->exists(folder + "/" + name + "/cgroup.procs") &&
          std::find(out.begin(), out.end(), name) == out.end())
        out.push_back(name);
  return out;
}

bool Cgroup::exists() const {
  for (const std::string& folder : directories())
    if (files_->exists(folder)) return true;
  return false;
}

std::map<std::string, std::uint64_t> Cgroup::statistics() const {
  std::map<std::string, std::uint64_t> out;
  auto take = [&](const std::string& name, const std::string& controller, const std::string& file) {
    auto text = files_->read(directory(controller) + "/" + file);
    if (text) out[name] = std::strtoull(text->c_str(), nullptr, 10);
  };
  auto take_field = [&](const std::string& name, const std::string& controller,
                        const std::string& file, const std::string& field) {
    auto text = files_->read(directory(controller) + "/" + file);
    if (!text) return;
    std::istringstream words(*text);
    std::string key;
    for (std::uint64_t value = 0; words >> key >> value;)
      if (key == field) out[name] = value;
  };
  if (layout_.v2.empty()) {
    take("memory.usage", "memory", "memory.usage_in_bytes");
    take("memory.limit", "memory", "memory.limit_in_bytes");
    take("cpu.usage_ns", "cpuacct", "cpuacct.usage");
    take("pids.current", "pids", "pids.current");
    take_field("cpu.throttled_periods", "cpu", "cpu.stat", "nr_throttled");
    take_field("memory.oom_kills", "memory", "memory.oom_control", "oom_kill");
    take_field("memory.faults", "memory", "memory.stat", "total_pgfault");
  } else {
    take("memory.usage", "memory", "memory.current");
    take("memory.limit", "memory", "memory.max");
    take("pids.current", "pids", "pids.current");
    take_field("cpu.usage_us", "cpu", "cpu.stat", "usage_usec");
    take_field("cpu.throttled_periods", "cpu", "cpu.stat", "nr_throttled");
    take_field("memory.oom_kills", "memory", "memory.events", "oom_kill");
    take_field("memory.faults", "memory", "memory.stat", "pgfault");
    if (auto used = out.find("cpu.usage_us"); used != out.end())
      out["cpu.usage_ns"] = used->second * 1000;
  }
  return out;
}

}  // namespace hobbes
