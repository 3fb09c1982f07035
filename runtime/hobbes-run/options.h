// What the command line said.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "bundle/overrides.h"

namespace hobbes {

struct Globals {
  std::string root, log, log_level, log_format = "text";
  bool debug = false, json = false, systemd_cgroup = false;
  std::string rootless, cgroup_manager;
};

struct CreateOptions {
  std::string id, bundle = ".", config, console_socket, pid_file;
  bool tty = false, no_pivot = false, no_new_keyring = false, dry_run = false, detach = false,
       keep = false, bound = false;
  int preserve_fds = 0;
  std::vector<std::string> labels;
  BundleOverrides overrides;
};

struct ExecOptions {
  std::string id, process_file, console_socket, pid_file, cwd, user, apparmor, process_label;
  bool detach = false, tty = false, no_new_privs = false, ignore_paused = false;
  int preserve_fds = 0;
  std::vector<std::string> env, command, capabilities, cgroups;
  std::vector<std::uint32_t> additional_gids;
};

struct UpdateOptions {
  std::string id, resources, cpuset_cpus, cpuset_mems, memory, memory_reservation, memory_swap,
      memory_size;
  std::optional<std::int64_t> cpu_quota, cpu_burst, cpu_rt_runtime, pids_limit;
  std::optional<std::uint64_t> cpu_shares, cpu_period, cpu_rt_period, blkio_weight, cpu_idle;
  unsigned cores = 0;
  bool dry_run = false;
};

}  // namespace hobbes
