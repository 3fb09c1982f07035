// What the command line said.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace hobbes {

struct Globals {
  std::string root, log, log_level, log_format = "text";
  bool debug = false, json = false, systemd_cgroup = false;
  std::string rootless, cgroup_manager;
};

struct CreateOptions {
  std::string id, bundle = ".", console_socket, pid_file;
  bool no_pivot = false, no_new_keyring = false, dry_run = false, detach = false, keep = false;
  int preserve_fds = 0;
  std::vector<std::string> labels;
};

struct ExecOptions {
  std::string id, process_file, console_socket, pid_file, cwd, user;
  bool detach = false, tty = false, no_new_privs = false;
  int preserve_fds = 0;
  std::vector<std::string> env, command, capabilities;
};

struct UpdateOptions {
  std::string id, resources, cpuset_cpus, cpuset_mems, memory, memory_size;
  std::optional<std::int64_t> cpu_quota, cpu_shares, cpu_period, pids_limit;
  unsigned cores = 0;
  bool dry_run = false;
};

}  // namespace hobbes
