// The parts of an OCI runtime-spec 1.3 config.json that Hobbes acts on, as plain values.
// Source: https://github.com/opencontainers/runtime-spec (config.md, config-linux.md,
// config-vm.md). Everything else in the file is carried along untouched (Bundle::config).
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/cpu_set.h"

namespace hobbes::oci {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::optional<mode_t> umask;
  std::vector<gid_t> additional_gids;
};

struct Capabilities {  // names such as "CAP_KILL"
  std::vector<std::string> bounding, effective, inheritable, permitted, ambient;
};

struct Rlimit {
  int resource = 0;  // RLIMIT_*
  std::uint64_t soft = 0, hard = 0;
};

struct ConsoleSize {
  std::uint16_t height = 0, width = 0;
};

struct IoPriority {
  int io_class = 0, priority = 0;  // IOPRIO_CLASS_*
};

struct Scheduler {  // as sched_setattr(2) names them
  unsigned policy = 0, priority = 0;
  int nice = 0;
  std::uint64_t flags = 0, runtime = 0, deadline = 0, period = 0;
};

struct TimeOffset {
  std::string clock;  // "monotonic" or "boottime"
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
};

struct MemoryPolicy {
  int mode = 0, flags = 0;  // MPOL_*
  CpuSet nodes;
};

struct BlockLimit {
  std::string name;  // of a v1 file, "read_bps_device", or of a v2 key, "rbps"
  std::string v2;
  std::int64_t major = 0, minor = 0;
  std::uint64_t rate = 0;
  bool operator==(const BlockLimit&) const = default;
};

struct BlockWeight {
  std::int64_t major = 0, minor = 0;
  std::uint64_t weight = 0;  // 10 .. 1000
  bool operator==(const BlockWeight&) const = default;
};

struct RdmaLimit {
  std::optional<std::uint32_t> handles, objects;
  bool operator==(const RdmaLimit&) const = default;
};

struct Process {
  bool terminal = false;
  std::optional<ConsoleSize> console_size;
  User user;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string cwd = "/";
  Capabilities capabilities;  // absent: none
  bool keep_groups = false;   // those of the runtime's caller
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
  std::optional<IoPriority> io_priority;
  std::optional<Scheduler> scheduler;
  std::string cpu_affinity_initial, cpu_affinity_final;  // execCPUAffinity, list syntax
  std::string apparmor_profile, selinux_label;
};

struct IdMapping {
  std::uint32_t container_id = 0, host_id = 0, size = 0;
};

struct Mount {
  std::string destination, type, source;
  std::vector<std::string> options;
  std::vector<IdMapping> uid_mappings{},
      gid_mappings{};  // of an id-mapped mount; empty: the user namespace's
};

struct Hook {
  std::string path;
  std::vector<std::string> args, env;
  std::optional<int> timeout_seconds;
};

struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart,
      poststop;
};

struct Namespace {
  std::string type;  // "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"
  std::string path;  // join this one; empty: make a new one
};

struct Device {
  std::string path;
  char type = 'c';  // 'c', 'b', 'p'
  unsigned major = 0, minor = 0;
  mode_t mode = 0666;
  uid_t uid = 0;
  gid_t gid = 0;
};

struct DeviceRule {
  bool allow = false;
  char type = 'a';                           // 'a', 'c', 'b'
  std::optional<std::int64_t> major, minor;  // absent: any
  std::string access = "rwm";
  bool operator==(const DeviceRule&) const = default;
};

struct Resources {
  std::optional<std::int64_t> memory_limit, memory_reservation, memory_swap;  // bytes, -1 unlimited
  std::optional<std::uint64_t> cpu_shares;
  std::optional<std::int64_t> cpu_quota;    // microseconds per period, -1 unlimited
  std::optional<std::uint64_t> cpu_period;  // microseconds
  std::string cpus, mems;                   // list syntax
  std::optional<std::int64_t> pids_limit;   // <= 0 unlimited
  std::vector<DeviceRule> devices;
  std::map<std::string, std::string> unified;  // cgroup v2 file -> value
  std::optional<std::uint64_t> swappiness;
  bool disable_oom_killer = false;
  std::optional<std::int64_t> cpu_idle, cpu_burst;
  std::optional<std::int64_t> realtime_runtime, realtime_period;  // v1
  std::map<std::string, std::uint64_t> hugepages;                 // "2MB" -> bytes
  std::optional<std::uint64_t> block_weight;                      // 10 .. 1000
  std::vector<BlockWeight> block_weights;                         // of single devices
  std::vector<BlockLimit> block_limits;
  std::map<std::string, RdmaLimit> rdma;
  bool operator==(const Resources&) const = default;
};

struct SeccompArg {
  unsigned index = 0;
  std::uint64_t value = 0, value_two = 0;
  std::string op;  // "SCMP_CMP_EQ", ...
};

struct SeccompRule {
  std::vector<std::string> names;
  std::string action;
  std::optional<std::uint32_t> errno_ret;
  std::vector<SeccompArg> args;
};

struct Seccomp {
  std::string default_action;
  std::optional<std::uint32_t> default_errno_ret;
  std::vector<std::string> architectures, flags;
  std::vector<SeccompRule> syscalls;
  std::string listener_path, listener_metadata;  // of the agent that SCMP_ACT_NOTIFY asks
};

struct Linux {
  std::vector<Namespace> namespaces;
  std::vector<IdMapping> uid_mappings, gid_mappings;
  std::vector<Device> devices;
  std::string cgroups_path;
  Resources resources;
  std::string rootfs_propagation;
  std::optional<Seccomp> seccomp;
  std::map<std::string, std::string> sysctl;
  std::optional<unsigned long> personality;
  std::vector<TimeOffset> time_offsets;
  std::optional<MemoryPolicy> memory_policy;
  std::vector<std::string> masked_paths, readonly_paths;
  std::string mount_label;                         // SELinux
  std::map<std::string, std::string> net_devices;  // name on the node -> name in the enclave
};

struct Vm {  // runtime-spec config-vm.md
  std::string hypervisor_path, kernel_path, initrd, image_path, image_format;
  std::vector<std::string> kernel_parameters;
  std::uint64_t vcpus = 0, memory = 0;  // hwConfig; memory in bytes, 0: not said
};

struct Config {
  std::string version;
  std::optional<Process> process;
  std::string root_path;  // as written: relative to the bundle, or absolute; empty when absent
  bool root_readonly = false;
  std::string hostname, domainname;
  std::vector<Mount> mounts;
  Hooks hooks;
  std::map<std::string, std::string> annotations;
  Linux linux_;
  std::optional<Vm> vm;
};

}  // namespace hobbes::oci
