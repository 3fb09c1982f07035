// Building the file system an enclave sees. All of it runs in the child, in its own mount namespace.
#pragma once
#include <string>

#include "bundles/bundle.h"
#include "core/fd.h"
#include "core/result.h"
#include "partition/cgroup.h"

namespace hobbes {

struct RootfsRequest {
  const Bundle* bundle = nullptr;
  std::string staging;        ///< an empty directory of ours, the mount point in host-root mode
  std::string shared_memory;  ///< bound to /dev/shm in host-root mode; empty: the host's own
  const Cgroup* cgroup = nullptr;
  const CgroupLayout* layout = nullptr;
  bool user_namespace = false;
  bool new_pid_namespace = false;
  bool cgroup_namespace = false;
  bool with_run_directory = false;  ///< binds the mirror and the control socket in
};

/// Parsed mount options. Sources: mount(2), and the option names of mount(8) as the runtime-spec lists them.
struct MountOptions {
  unsigned long flags = 0;        ///< MS_* to set
  unsigned long clear = 0;        ///< MS_* named with their "no" form
  unsigned long propagation = 0;  ///< MS_PRIVATE, ... with MS_REC
  bool recursive_readonly = false;
  bool copy_up = false;  ///< tmpcopyup
  std::string data;      ///< the rest, for the file system
};
MountOptions parse_mount_options(const std::vector<std::string>& options);

/// Mounts everything below the future root and leaves it there. Then hooks may run, then enter_rootfs.
Result<std::string> build_rootfs(const RootfsRequest& request);
/// Makes `root` the root directory and gives up the old one.
Result<void> enter_rootfs(const RootfsRequest& request, const std::string& root, bool no_pivot);
/// Kernel parameters, masked and read-only paths, read-only root; after enter_rootfs.
Result<void> seal_rootfs(const RootfsRequest& request);

/// Opens a path below `root` without ever leaving it through links (openat2 RESOLVE_IN_ROOT), creating what is missing: a
/// directory, or a file when `file`.
Result<Fd> open_target(const std::string& root, const std::string& path, bool file);

}  // namespace hobbes
