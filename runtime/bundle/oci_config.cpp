// config.json -> oci::Config. One function per object of the runtime-spec, in its order.
#include "bundle/oci_config.h"

#include <sys/personality.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <set>

#include "bundle/mount_options.h"
#include "core/procfs.h"

namespace hobbes {
namespace {

constexpr std::int64_t id_most = 0xfffffffe;

const std::vector<std::string> rlimit_names = {
    "RLIMIT_CPU",      "RLIMIT_FSIZE", "RLIMIT_DATA",   "RLIMIT_STACK",
    "RLIMIT_CORE",     "RLIMIT_RSS",   "RLIMIT_NPROC",  "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",  "RLIMIT_AS",    "RLIMIT_LOCKS",  "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE", "RLIMIT_NICE",  "RLIMIT_RTPRIO", "RLIMIT_RTTIME"};
static_assert(RLIMIT_CPU == 0 && RLIMIT_NPROC == 6 && RLIMIT_NOFILE == 7 && RLIMIT_RTTIME == 15,
              "rlimit_names is indexed by the kernel's numbers");

std::optional<std::uint64_t> limit_of(const Inspect& at) {
  if (at.present() && at.json().is_number_unsigned()) return at.json().get<std::uint64_t>();
  if (auto value = at.integer(-1, INT64_MAX)) return static_cast<std::uint64_t>(*value);
  return std::nullopt;
}

oci::User read_user(const Inspect& at) {
  oci::User user;
  if (!at.object()) return user;
  user.uid = static_cast<uid_t>(at.at("uid").integer(0, id_most).value_or(0));
  user.gid = static_cast<gid_t>(at.at("gid").integer(0, id_most).value_or(0));
  if (auto umask = at.at("umask").integer(0, 0777)) user.umask = static_cast<mode_t>(*umask);
  at.at("additionalGids").each([&](const Inspect& gid) {
    if (auto value = gid.integer(0, id_most))
      user.additional_gids.push_back(static_cast<gid_t>(*value));
  });
  return user;
}

std::vector<std::string> capability_set(const Inspect& at) {
  std::vector<std::string> names;
  at.each([&](const Inspect& item) {
    // A name that nobody knows is a capability that nobody has: engines list those of newer
    // kernels.
    if (auto name = item.text()) names.push_back(*name);
  });
  return names;
}

std::vector<oci::IdMapping> id_mappings(const Inspect& at) {
  std::vector<oci::IdMapping> out;
  at.each([&](const Inspect& item) {
    if (!item.object()) return;
    auto inside = item.at("containerID").integer(0, id_most);
    auto outside = item.at("hostID").integer(0, id_most);
    auto size = item.at("size").integer(1, 0xffffffff);
    if (!inside || !outside || !size) {
      if (!item.at("size").present()) item.missing("size", "how many ids the mapping covers");
      return;
    }
    out.push_back({static_cast<std::uint32_t>(*inside), static_cast<std::uint32_t>(*outside),
                   static_cast<std::uint32_t>(*size)});
  });
  return out;
}

oci::Mount read_mount(const Inspect& at) {
  oci::Mount mount;
  if (!at.object()) return mount;
  if (!at.at("destination").present()) at.missing("destination", "an absolute path");
  // The spec wants absolute destinations but callers in the field still send relative ones; they
  // mean "from /".
  if (auto destination = at.at("destination").text()) {
    mount.destination = destination->rfind('/', 0) == 0 ? *destination : "/" + *destination;
    if (mount.destination == "/") at.at("destination").wrong("a path below /");
  }
  mount.type = at.at("type").text().value_or("");
  mount.source = at.at("source").text().value_or("");
  mount.options = at.at("options").texts();
  mount.uid_mappings = id_mappings(at.at("uidMappings"));
  mount.gid_mappings = id_mappings(at.at("gidMappings"));
  if (mount.uid_mappings.empty() != mount.gid_mappings.empty())
    at.at("uidMappings")
        .wrong("mappings of users together with mappings of groups", "give both, or none");
  // A bind mount has no use for a file system's settings ("mode=755"), which callers add to any
  // mount. Other words that it does not know would be dropped without a notice; the other types
  // hand them to their file system, which refuses them.
  MountOptions options = parse_mount_options(mount.options);
  const bool bind = is_bind(mount);
  if (bind)
    for (const std::string& word : options.data)
      if (word.find('=') == std::string::npos || word.rfind("idmap=", 0) == 0 ||
          word.rfind("ridmap=", 0) == 0)
        at.at("options").wrong("options of bind mounts, which \"" + word + "\" is not",
                               "see mountOptions in `hobbes-run features`");
  if (!bind && (options.id_mapped || !mount.uid_mappings.empty()))
    at.at(options.id_mapped ? "options" : "uidMappings")
        .wrong("an id-mapped mount of type bind", "remove the mapping");
  return mount;
}

std::vector<oci::Hook> read_hooks(const Inspect& at) {
  std::vector<oci::Hook> hooks;
  at.each([&](const Inspect& item) {
    if (!item.object()) return;
    oci::Hook hook;
    if (!item.at("path").present()) item.missing("path", "the absolute path of a program");
    hook.path = item.at("path").absolute_path().value_or("");
    hook.args = item.at("args").texts();
    hook.env = item.at("env").texts();
    if (auto timeout = item.at("timeout").integer(1, 86400))
      hook.timeout_seconds = static_cast<int>(*timeout);
    hooks.push_back(std::move(hook));
  });
  return hooks;
}

oci::Device read_device(const Inspect& at) {
  oci::Device device;
  if (!at.object()) return device;
  if (!at.at("path").present()) at.missing("path", "an absolute path");
  device.path = at.at("path").absolute_path().value_or("");
  if (auto type = at.at("type").one_of({"c", "b", "u", "p"})) device.type = "cbcp"[*type];
  device.major = static_cast<unsigned>(at.at("major").integer(0, 4095).value_or(0));
  device.minor = static_cast<unsigned>(at.at("minor").integer(0, (1 << 20) - 1).value_or(0));
  device.mode = static_cast<mode_t>(at.at("fileMode").integer(0, 07777).value_or(0666));
  device.uid = static_cast<uid_t>(at.at("uid").integer(0, id_most).value_or(0));
  device.gid = static_cast<gid_t>(at.at("gid").integer(0, id_most).value_or(0));
  return device;
}

oci::DeviceRule read_device_rule(const Inspect& at) {
  oci::DeviceRule rule;
  if (!at.object()) return rule;
  rule.allow = at.at("allow").boolean().value_or(false);
  if (auto type = at.at("type").one_of({"a", "c", "b", "u"})) rule.type = "acbc"[*type];
  // -1 means any, as the reference runtime accepts.
  auto number = [](std::optional<std::int64_t> value) {
    return value && *value >= 0 ? value : std::nullopt;
  };
  rule.major = number(at.at("major").integer(-1, 4095));
  rule.minor = number(at.at("minor").integer(-1, (1 << 20) - 1));
  if (auto access = at.at("access").text()) {
    if (access->find_first_not_of("rwm") != std::string::npos)
      at.at("access").wrong("letters of \"rwm\"");
    rule.access = *access;
  }
  return rule;
}

void read_block_io(const Inspect& at, oci::Resources& out) {
  if (!at.object()) return;
  if (auto weight = at.at("weight").integer(0, 1000); weight && *weight != 0)
    out.block_weight = static_cast<std::uint64_t>(*weight);
  if (at.at("leafWeight").integer(0, 1000).value_or(0) != 0)
    at.at("leafWeight").wrong("nothing: Linux has none since 5.0", "remove it");
  at.at("weightDevice").each([&](const Inspect& item) {
    if (!item.object()) return;
    auto major = item.at("major").integer(0, 4095),
         minor = item.at("minor").integer(0, (1 << 20) - 1);
    auto weight = item.at("weight").integer(0, 1000);
    if (item.at("leafWeight").integer(0, 1000).value_or(0) != 0)
      item.at("leafWeight").wrong("nothing: Linux has none since 5.0", "remove it");
    if (major && minor && weight && *weight != 0)
      out.block_weights.push_back({*major, *minor, static_cast<std::uint64_t>(*weight)});
  });
  static const std::vector<std::array<const char*, 3>> throttles = {
      {"throttleReadBpsDevice", "read_bps_device", "rbps"},
      {"throttleWriteBpsDevice", "write_bps_device", "wbps"},
      {"throttleReadIOPSDevice", "read_iops_device", "riops"},
      {"throttleWriteIOPSDevice", "write_iops_device", "wiops"}};
  for (const auto& [key, v1, v2] : throttles)
    at.at(key).each([&, v1 = std::string(v1), v2 = std::string(v2)](const Inspect& item) {
      if (!item.object()) return;
      auto major = item.at("major").integer(0, 4095),
           minor = item.at("minor").integer(0, (1 << 20) - 1);
      auto rate = item.at("rate").integer(0, INT64_MAX);
      if (major && minor && rate)
        out.block_limits.push_back({v1, v2, *major, *minor, static_cast<std::uint64_t>(*rate)});
    });
}

oci::Resources read_resources_at(const Inspect& at) {
  oci::Resources out;
  if (!at.object()) return out;
  Inspect memory = at.at("memory");
  if (memory.object()) {
    out.memory_limit = memory.at("limit").integer(-1, INT64_MAX);
    out.memory_reservation = memory.at("reservation").integer(-1, INT64_MAX);
    out.memory_swap = memory.at("swap").integer(-1, INT64_MAX);
  }
  Inspect cpu = at.at("cpu");
  if (cpu.object()) {
    if (auto shares = cpu.at("shares").integer(0, 1 << 20))
      out.cpu_shares = static_cast<std::uint64_t>(*shares);
    out.cpu_quota = cpu.at("quota").integer(-1, INT64_MAX);
    if (auto period = cpu.at("period").integer(0, 1000000))
      out.cpu_period = static_cast<std::uint64_t>(*period);
    if (auto cpus = cpu.at("cpus").list()) out.cpus = cpus->text();
    if (auto mems = cpu.at("mems").list()) out.mems = mems->text();
  }
  if (memory.object()) {
    if (auto value = memory.at("swappiness").integer(0, 200))
      out.swappiness = static_cast<std::uint64_t>(*value);
    out.disable_oom_killer = memory.at("disableOOMKiller").boolean().value_or(false);
    if (out.memory_swap && !out.memory_limit)
      memory.at("swap").wrong("together with a limit", "add \"limit\": swap counts both");
    // Linux has one accounting since 5.4, and always counts what is below.
    for (const char* gone : {"kernel", "kernelTCP"})
      if (memory.at(gone).integer(-1, INT64_MAX).value_or(-1) > 0)
        memory.at(gone).wrong("nothing: the kernel's memory counts in \"limit\"", "remove it");
    if (!memory.at("useHierarchy").boolean().value_or(true))
      memory.at("useHierarchy").wrong("true, which Linux has only", "remove it");
    (void)memory.at("checkBeforeUpdate").boolean();
    if (memory.at("checkBeforeUpdate").boolean().value_or(false))
      memory.at("checkBeforeUpdate").wrong("false", "remove it");
  }
  if (cpu.object()) {
    out.cpu_idle = cpu.at("idle").integer(0, 1);
    out.cpu_burst = cpu.at("burst").integer(0, INT64_MAX);
    out.realtime_runtime = cpu.at("realtimeRuntime").integer(-1, INT64_MAX);
    out.realtime_period = cpu.at("realtimePeriod").integer(0, INT64_MAX);
  }
  at.at("hugepageLimits").each([&](const Inspect& item) {
    if (!item.object()) return;
    auto size = item.at("pageSize").text();
    auto limit = item.at("limit").integer(0, INT64_MAX);
    if (size && size->find('/') != std::string::npos)
      item.at("pageSize").wrong("a size such as 2MB");
    if (size && limit) out.hugepages[*size] = static_cast<std::uint64_t>(*limit);
  });
  read_block_io(at.at("blockIO"), out);
  Inspect network = at.at("network");
  if (network.object()) {
    if (network.at("classID").integer(0, 0xffffffff).value_or(0) != 0)
      network.at("classID").wrong("nothing: packets are not marked by control groups",
                                  "use a network namespace");
    network.at("priorities").each([&](const Inspect& item) {
      (void)item.at("name").text();
      (void)item.at("priority").integer(0, INT64_MAX);
      item.wrong("nothing: packets are not marked by control groups", "use a network namespace");
    });
  }
  at.at("rdma").members([&](const std::string& device, const Inspect& limit) {
    auto number = [&](const char* key) -> std::optional<std::uint32_t> {
      auto value = limit.at(key).integer(0, 0xffffffff);
      return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
    };
    out.rdma[device] = {number("hcaHandles"), number("hcaObjects")};
  });
  if (at.at("pids").object())
    out.pids_limit = at.at("pids").at("limit").integer(INT64_MIN, INT64_MAX);
  at.at("devices").each(
      [&](const Inspect& item) { out.devices.push_back(read_device_rule(item)); });
  out.unified = at.at("unified").text_map();
  for (const auto& [file, unused] : out.unified)
    if (file.find('/') != std::string::npos)
      at.at("unified").at(file).wrong("a file name without /");
  return out;
}

const std::vector<std::string> seccomp_actions = {
    "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",  "SCMP_ACT_ERRNO",        "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW", "SCMP_ACT_LOG",          "SCMP_ACT_NOTIFY"};
const std::vector<std::string> seccomp_operators = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
    "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};

oci::Seccomp read_seccomp(const Inspect& at) {
  oci::Seccomp out;
  auto action_at = [](const Inspect& where) {
    auto index = where.one_of(seccomp_actions);
    return index ? seccomp_actions[*index] : std::string();
  };
  auto errno_at = [](const Inspect& where) -> std::optional<std::uint32_t> {
    auto value = where.integer(0, 4095);
    return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
  };
  auto number_of = [](const Inspect& where) -> std::uint64_t {
    if (where.present() && where.json().is_number_unsigned())
      return where.json().get<std::uint64_t>();
    return static_cast<std::uint64_t>(where.integer(INT64_MIN, INT64_MAX).value_or(0));
  };
  if (!at.at("defaultAction").present()) at.missing("defaultAction", "a seccomp action");
  out.default_action = action_at(at.at("defaultAction"));
  if (out.default_action == "SCMP_ACT_NOTIFY")
    at.at("defaultAction")
        .wrong(
            "another action: every call of the start would wait for an agent that is not connected "
            "yet");
  out.default_errno_ret = errno_at(at.at("defaultErrnoRet"));
  out.architectures = at.at("architectures").texts();
  out.flags = at.at("flags").texts();
  for (const std::string& flag : out.flags)
    if (flag != "SECCOMP_FILTER_FLAG_LOG" && flag != "SECCOMP_FILTER_FLAG_SPEC_ALLOW" &&
        flag != "SECCOMP_FILTER_FLAG_TSYNC")
      at.at("flags").wrong("SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW or _TSYNC, found \"" + flag +
                           "\"");
  for (const std::string& name : out.architectures)
    if (name.rfind("SCMP_ARCH_", 0) != 0)
      at.at("architectures").wrong("names such as SCMP_ARCH_X86_64, found \"" + name + "\"");
  out.listener_path = at.at("listenerPath").text().value_or("");
  if (!out.listener_path.empty() && out.listener_path.front() != '/')
    at.at("listenerPath").wrong("an absolute path of a socket");
  out.listener_metadata = at.at("listenerMetadata").text().value_or("");
  at.at("syscalls").each([&](const Inspect& item) {
    if (!item.object()) return;
    oci::SeccompRule rule;
    rule.names = item.at("names").texts();
    if (rule.names.empty()) item.missing("names", "at least one system call name");
    if (!item.at("action").present()) item.missing("action", "a seccomp action");
    rule.action = action_at(item.at("action"));
    if (rule.action == "SCMP_ACT_NOTIFY") {
      if (out.listener_path.empty())
        item.at("action").wrong("another action, or a listenerPath: who is asked?");
      for (const std::string& name : rule.names)
        if (name == "sendmsg" || name == "write")
          item.at("names").wrong("other calls: SCMP_ACT_NOTIFY cannot be used for the " + name +
                                 " syscall, which the runtime needs to reach the agent");
    }
    rule.errno_ret = errno_at(item.at("errnoRet"));
    item.at("args").each([&](const Inspect& arg) {
      if (!arg.object()) return;
      oci::SeccompArg compare;
      compare.index = static_cast<unsigned>(arg.at("index").integer(0, 5).value_or(0));
      compare.value = number_of(arg.at("value"));
      compare.value_two = number_of(arg.at("valueTwo"));
      if (auto op = arg.at("op").one_of(seccomp_operators)) compare.op = seccomp_operators[*op];
      rule.args.push_back(compare);
    });
    out.syscalls.push_back(std::move(rule));
  });
  return out;
}

// What no part of Hobbes acts on is refused where it would ask for something.
void refuse(const Inspect& at, const std::string& why, const std::string& remedy) {
  if (!at.present()) return;
  const Json& value = at.json();
  bool asks = value.is_string()                       ? !value.get<std::string>().empty()
              : value.is_object() || value.is_array() ? !value.empty()
                                                      : value != Json(false);
  if (asks) at.wrong(why, remedy);
}

std::optional<unsigned long> read_personality(const Inspect& at) {
  if (!at.object()) return std::nullopt;
  const std::vector<std::string> domains = {"LINUX", "LINUX32"};
  at.at("flags").each(
      [&](const Inspect& flag) { flag.wrong("no flags: the runtime-spec names none"); });
  auto domain = at.at("domain").one_of(domains);
  return domain ? std::optional<unsigned long>(*domain == 0 ? PER_LINUX : PER_LINUX32)
                : std::nullopt;
}

std::vector<oci::TimeOffset> read_time_offsets(const Inspect& at) {
  std::vector<oci::TimeOffset> out;
  if (!at.object()) return out;
  at.only({"monotonic", "boottime"});
  for (const char* clock : {"monotonic", "boottime"}) {
    Inspect one = at.at(clock);
    if (!one.object()) continue;
    out.push_back(
        {clock, one.at("secs").integer(-(1LL << 40), 1LL << 40).value_or(0),
         static_cast<std::uint32_t>(one.at("nanosecs").integer(0, 999'999'999).value_or(0))});
  }
  return out;
}

std::optional<oci::MemoryPolicy> read_memory_policy(const Inspect& at) {
  if (!at.object()) return std::nullopt;
  const std::vector<std::string> modes = {"MPOL_DEFAULT",
                                          "MPOL_PREFERRED",
                                          "MPOL_BIND",
                                          "MPOL_INTERLEAVE",
                                          "MPOL_LOCAL",
                                          "MPOL_PREFERRED_MANY",
                                          "MPOL_WEIGHTED_INTERLEAVE"};
  const std::vector<std::string> flags = {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES",
                                          "MPOL_F_STATIC_NODES"};
  oci::MemoryPolicy out;
  if (!at.at("mode").present()) at.missing("mode", "a memory policy such as MPOL_BIND");
  out.mode = static_cast<int>(at.at("mode").one_of(modes).value_or(0));
  if (auto nodes = at.at("nodes").list()) out.nodes = *nodes;
  at.at("flags").each([&](const Inspect& item) {
    if (auto flag = item.one_of(flags)) out.flags |= 1 << (13 + *flag);  // linux/mempolicy.h
  });
  return out;
}

std::map<std::string, std::string> net_devices(const Inspect& at) {
  std::map<std::string, std::string> out;
  // As the kernel's dev_valid_name() has it; with a "%d" the kernel would choose a number.
  auto is_name = [](const std::string& name) {
    return !name.empty() && name.size() < 16 && name != "." && name != ".." &&
           name.find_first_of("/:% \t\n\v\f\r") == std::string::npos;
  };
  std::set<std::string> inside;
  at.members([&](const std::string& name, const Inspect& device) {
    if (!device.object()) return;
    std::string renamed = device.at("name").text().value_or("");
    if (renamed.empty()) renamed = name;
    if (!is_name(name) || !is_name(renamed))
      device.wrong("names of network devices, of 1 to 15 characters");
    if (!inside.insert(renamed).second)
      device.wrong("each name in the enclave once", "rename one of the two");
    out[name] = renamed;
  });
  return out;
}

oci::Linux read_linux(const Inspect& at) {
  oci::Linux out;
  if (!at.object()) return out;
  const std::vector<std::string> types = {"pid", "network", "mount",  "ipc",
                                          "uts", "user",    "cgroup", "time"};
  std::set<std::string> seen;
  at.at("namespaces").each([&](const Inspect& item) {
    if (!item.object()) return;
    if (!item.at("type").present()) item.missing("type", "a namespace type");
    auto type = item.at("type").one_of(types);
    auto path = item.at("path").absolute_path();
    if (!type) return;
    if (!seen.insert(types[*type]).second)
      item.at("type").wrong("each type once", "remove the second one");
    out.namespaces.push_back({types[*type], path.value_or("")});
  });
  out.uid_mappings = id_mappings(at.at("uidMappings"));
  out.gid_mappings = id_mappings(at.at("gidMappings"));
  if ((!out.uid_mappings.empty() || !out.gid_mappings.empty()) && seen.count("user") == 0)
    at.at("uidMappings")
        .wrong("mappings together with a user namespace", "add {\"type\": \"user\"} to namespaces");
  at.at("devices").each([&](const Inspect& item) { out.devices.push_back(read_device(item)); });
  out.cgroups_path = at.at("cgroupsPath").text().value_or("");
  if (("/" + out.cgroups_path + "/").find("/../") != std::string::npos)
    at.at("cgroupsPath").wrong("a path without ..");
  out.resources = read_resources_at(at.at("resources"));
  const std::vector<std::string> propagations = {"shared",  "slave",  "private",  "unbindable",
                                                 "rshared", "rslave", "rprivate", "runbindable"};
  if (auto index = at.at("rootfsPropagation").text(); index && !index->empty()) {
    if (auto known = at.at("rootfsPropagation").one_of(propagations))
      out.rootfs_propagation = propagations[*known];
  }
  if (at.at("seccomp").object()) out.seccomp = read_seccomp(at.at("seccomp"));
  out.sysctl = at.at("sysctl").text_map();
  for (const auto& [key, unused] : out.sysctl) {
    std::string path = sysctl_path(key);
    if (("/" + path + "/").find("/../") != std::string::npos || path.empty() ||
        path.front() == '/') {
      at.at("sysctl").at(key).wrong("a kernel parameter name");
      continue;
    }
    if (path == "kernel/hostname") {
      at.at("sysctl").at(key).wrong("another parameter", "set \"hostname\"");
      continue;
    }
    // What is not of a namespace is the host's.
    std::string needed = namespace_of_parameter(path);
    if (needed.empty())
      at.at("sysctl").at(key).wrong(
          "a parameter of a namespace (net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*, "
          "user.*)",
          "it would change the host");
    else if (seen.count(needed) == 0)
      at.at("sysctl").at(key).wrong("a parameter of a namespace that the bundle has",
                                    "add {\"type\": \"" + needed + "\"} to namespaces");
  }
  out.personality = read_personality(at.at("personality"));
  out.time_offsets = read_time_offsets(at.at("timeOffsets"));
  bool own_time = std::any_of(out.namespaces.begin(), out.namespaces.end(), [](const auto& space) {
    return space.type == "time" && space.path.empty();
  });
  if (!out.time_offsets.empty() && !own_time)
    at.at("timeOffsets")
        .wrong("offsets together with a new time namespace",
               "add {\"type\": \"time\"} to namespaces");
  out.memory_policy = read_memory_policy(at.at("memoryPolicy"));
  out.mount_label = at.at("mountLabel").text().value_or("");
  refuse(at.at("intelRdt"), "nothing: Hobbes does not partition caches", "remove it");
  out.net_devices = net_devices(at.at("netDevices"));
  if (!out.net_devices.empty() && seen.count("network") == 0)
    at.at("netDevices")
        .wrong("devices together with a network namespace",
               "add {\"type\": \"network\"} to namespaces");
  out.masked_paths = at.at("maskedPaths").texts();
  out.readonly_paths = at.at("readonlyPaths").texts();
  return out;
}

oci::Vm read_vm(const Inspect& at) {
  oci::Vm vm;
  vm.hypervisor_path = at.at("hypervisor").at("path").absolute_path().value_or("");
  refuse(at.at("hypervisor").at("parameters"),
         "nothing: Palacios is the hypervisor and has its words in the hobbes object", "remove it");
  Inspect kernel = at.at("kernel");
  if (kernel.object()) {
    if (!kernel.at("path").present()) kernel.missing("path", "the path of a kernel image");
    vm.kernel_path = kernel.at("path").text().value_or("");
    vm.initrd = kernel.at("initrd").text().value_or("");
    vm.kernel_parameters = kernel.at("parameters").texts();
  }
  vm.vcpus = at.at("hwConfig").at("vcpus").integer(1, 4096).value_or(0);
  vm.memory = at.at("hwConfig").at("memory").size().value_or(0);
  vm.image_path = at.at("image").at("path").text().value_or("");
  vm.image_format = at.at("image").at("format").text().value_or("");
  return vm;
}

}  // namespace

namespace {

std::optional<oci::Scheduler> read_scheduler(const Inspect& at) {
  if (!at.object()) return std::nullopt;
  const std::vector<std::string> policies = {"SCHED_OTHER",   "SCHED_FIFO", "SCHED_RR",
                                             "SCHED_BATCH",   "SCHED_ISO",  "SCHED_IDLE",
                                             "SCHED_DEADLINE"};
  const std::vector<std::string> flags = {"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM",
                                          "SCHED_FLAG_DL_OVERRUN",    "SCHED_FLAG_KEEP_POLICY",
                                          "SCHED_FLAG_KEEP_PARAMS",   "SCHED_FLAG_UTIL_CLAMP_MIN",
                                          "SCHED_FLAG_UTIL_CLAMP_MAX"};
  oci::Scheduler out;
  if (!at.at("policy").present()) at.missing("policy", "a scheduling policy such as SCHED_OTHER");
  out.policy = static_cast<unsigned>(at.at("policy").one_of(policies).value_or(0));
  out.nice = static_cast<int>(at.at("nice").integer(-20, 19).value_or(0));
  out.priority = static_cast<unsigned>(at.at("priority").integer(0, 99).value_or(0));
  at.at("flags").each([&](const Inspect& item) {
    if (auto flag = item.one_of(flags)) out.flags |= 1ULL << *flag;
  });
  for (const auto& [key, field] :
       {std::pair{"runtime", &out.runtime}, std::pair{"deadline", &out.deadline},
        std::pair{"period", &out.period}})
    *field = static_cast<std::uint64_t>(at.at(key).integer(0, INT64_MAX).value_or(0));
  return out;
}

}  // namespace

oci::Process inspect_process(const Inspect& at) {
  oci::Process process;
  if (!at.object()) return process;
  process.terminal = at.at("terminal").boolean().value_or(false);
  if (at.at("consoleSize").object()) {
    oci::ConsoleSize size;
    size.height =
        static_cast<std::uint16_t>(at.at("consoleSize").at("height").integer(0, 65535).value_or(0));
    size.width =
        static_cast<std::uint16_t>(at.at("consoleSize").at("width").integer(0, 65535).value_or(0));
    process.console_size = size;
  }
  process.user = read_user(at.at("user"));
  if (!at.at("args").present()) at.missing("args", "an array with the program and its arguments");
  process.args = at.at("args").texts();
  if (at.at("args").present() && (process.args.empty() || process.args[0].empty()))
    at.at("args").wrong("at least the program's name");
  process.env = at.at("env").texts();
  for (std::size_t i = 0; i < process.env.size(); ++i) {
    std::size_t equals = process.env[i].find('=');
    if (equals == std::string::npos || equals == 0)
      at.at("env")
          .at(std::to_string(i))
          .wrong("NAME=value, found \"" + process.env[i].substr(0, 40) + "\"");
  }
  if (!at.at("cwd").present()) at.missing("cwd", "an absolute path");
  process.cwd = at.at("cwd").absolute_path().value_or("/");
  Inspect capabilities = at.at("capabilities");
  if (capabilities.object()) {
    oci::Capabilities sets;
    sets.bounding = capability_set(capabilities.at("bounding"));
    sets.effective = capability_set(capabilities.at("effective"));
    sets.inheritable = capability_set(capabilities.at("inheritable"));
    sets.permitted = capability_set(capabilities.at("permitted"));
    sets.ambient = capability_set(capabilities.at("ambient"));
    process.capabilities = std::move(sets);
  }
  std::set<std::size_t> limited;
  at.at("rlimits").each([&](const Inspect& item) {
    if (!item.object()) return;
    auto type = item.at("type").one_of(rlimit_names);
    auto soft = limit_of(item.at("soft"));
    auto hard = limit_of(item.at("hard"));
    if (!type || !soft || !hard) return;
    if (!limited.insert(*type).second)
      item.at("type").wrong("each limit once", "remove the second one");
    if (*soft > *hard) item.at("soft").wrong("at most the hard limit " + std::to_string(*hard));
    process.rlimits.push_back({static_cast<int>(*type), *soft, *hard});
  });
  process.no_new_privileges = at.at("noNewPrivileges").boolean().value_or(false);
  if (auto score = at.at("oomScoreAdj").integer(-1000, 1000))
    process.oom_score_adj = static_cast<int>(*score);
  process.apparmor_profile = at.at("apparmorProfile").text().value_or("");
  process.selinux_label = at.at("selinuxLabel").text().value_or("");
  Inspect io = at.at("ioPriority");
  if (io.object()) {
    const std::vector<std::string> classes = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
                                              "IOPRIO_CLASS_IDLE"};
    if (!io.at("class").present()) io.missing("class", "an I/O class such as IOPRIO_CLASS_BE");
    auto io_class = io.at("class").one_of(classes);
    auto priority = io.at("priority").integer(0, 7).value_or(0);
    if (io_class)
      process.io_priority =
          oci::IoPriority{static_cast<int>(*io_class) + 1, static_cast<int>(priority)};
  }
  process.scheduler = read_scheduler(at.at("scheduler"));
  Inspect affinity = at.at("execCPUAffinity");
  if (affinity.object()) {
    if (auto list = affinity.at("initial").list()) process.cpu_affinity_initial = list->text();
    if (auto list = affinity.at("final").list()) process.cpu_affinity_final = list->text();
  }
  return process;
}

oci::Resources inspect_resources(const Inspect& at) { return read_resources_at(at); }

oci::Config inspect_config(const Inspect& at) {
  oci::Config out;
  if (!at.at("ociVersion").present())
    at.missing("ociVersion", "a version such as \"1.0.2\" or \"1.3.0\"");
  if (auto version = at.at("ociVersion").text()) {
    out.version = *version;
    if (version->rfind("1.", 0) != 0)
      at.at("ociVersion").wrong("a 1.x version of the runtime-spec");
  }
  if (at.at("process").object()) out.process = inspect_process(at.at("process"));
  if (at.at("root").object()) {
    if (!at.at("root").at("path").present())
      at.at("root").missing("path", "the path of the root file system");
    out.root_path = at.at("root").at("path").text().value_or("");
    out.root_readonly = at.at("root").at("readonly").boolean().value_or(false);
  }
  out.hostname = at.at("hostname").text().value_or("");
  if (out.hostname.size() > 64) at.at("hostname").wrong("at most 64 characters");
  out.domainname = at.at("domainname").text().value_or("");
  if (out.domainname.size() > 64) at.at("domainname").wrong("at most 64 characters");
  at.at("mounts").each([&](const Inspect& item) { out.mounts.push_back(read_mount(item)); });
  Inspect hooks = at.at("hooks");
  if (hooks.object()) {
    out.hooks.prestart = read_hooks(hooks.at("prestart"));
    out.hooks.create_runtime = read_hooks(hooks.at("createRuntime"));
    out.hooks.create_container = read_hooks(hooks.at("createContainer"));
    out.hooks.start_container = read_hooks(hooks.at("startContainer"));
    out.hooks.poststart = read_hooks(hooks.at("poststart"));
    out.hooks.poststop = read_hooks(hooks.at("poststop"));
  }
  out.annotations = at.at("annotations").text_map();
  // podman's --group-add keep-groups.
  if (out.process && out.annotations.count("run.oci.keep_original_groups") != 0)
    out.process->keep_groups = true;
  out.linux_ = read_linux(at.at("linux"));
  const auto& spaces = out.linux_.namespaces;
  const bool own_users = std::any_of(spaces.begin(), spaces.end(), [](const oci::Namespace& space) {
    return space.type == "user";
  });
  for (std::size_t i = 0; i < out.mounts.size(); ++i)
    if (parse_mount_options(out.mounts[i].options).id_mapped &&
        out.mounts[i].uid_mappings.empty() && !own_users)
      at.at("mounts")
          .at(std::to_string(i))
          .at("options")
          .wrong("idmap together with mappings or a user namespace",
                 "add uidMappings and gidMappings");
  for (const auto& [key, value] : out.linux_.sysctl)
    if (!out.domainname.empty() && sysctl_path(key) == "kernel/domainname" &&
        value != out.domainname)
      at.at("domainname")
          .wrong("the same name as linux.sysctl's kernel.domainname", "give it once");
  if (at.at("vm").object()) out.vm = read_vm(at.at("vm"));
  return out;
}

}  // namespace hobbes
