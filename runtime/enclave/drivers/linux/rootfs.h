// Building the file system an enclave sees. All of it runs in the child, in its own mount
// namespace.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/fd.h"
#include "core/procfs.h"
#include "core/result.h"
#include "enclave/drivers/linux/mount.h"
#include "partition/cgroup.h"

namespace hobbes {

struct RootfsRequest {
  const Bundle* bundle = nullptr;
  std::string record_folder;  ///< the enclave's own, where something can be mounted for a moment
  std::string staging;        ///< an empty directory of ours, the mount point in host-root mode
  std::string shared_memory;  ///< bound to /dev/shm in host-root mode; empty: the host's own
  const Cgroup* cgroup = nullptr;
  const CgroupLayout* layout = nullptr;
  bool user_namespace = false;
  bool new_pid_namespace = false;
  bool cgroup_namespace = false;
  bool with_run_directory = false;  ///< binds the mirror and the control socket in
  /// Bind mounts of the bundle by their place in it, cloned by who may reach their sources; the
  /// others are cloned here.
  std::map<std::size_t, Mount> cloned;
  /// A file system with the bundle's devices, each under its place in linux.devices, for a user
  /// namespace, in which none can be made.
  std::optional<Mount> devices;
};

/// The root in the making. Whatever the image or a neighbour with a shared volume does to its paths
/// meanwhile, what was mounted is found again by its descriptor. Not thread-safe.
class Rootfs {
 public:
  /// Mounts everything below the future root and leaves it there. Then hooks may run.
  static Result<Rootfs> build(RootfsRequest& request);
  /// Makes the future root the working directory.
  [[nodiscard]] Result<void> enter_folder() const;
  /// Masked and read-only paths; after the hooks, before enter().
  Result<void> seal();
  /// Makes it the root directory and gives up the old one.
  Result<void> enter(bool no_pivot);
  /// The root read-only, if the bundle says so, and its propagation; after what is still to be made
  /// in it.
  Result<void> finish();

 private:
  friend class RootfsBuilder;
  Rootfs() = default;
  struct Placed {
    std::string destination;
    Mount mount;
  };
  [[nodiscard]] Result<Fd> open_sealed(const std::string& path) const;

  const RootfsRequest* request_ = nullptr;
  std::string path_;
  Fd root_, null_;
  std::vector<Placed> kernel_;  // proc and sysfs, the latest last
};

/// The devices of a bundle in a file system of their own, with owners as the user namespace maps
/// them. For root of the node. Errors: Code::invalid, an owner that is not mapped.
Result<Mount> make_listed_devices(const oci::Linux& linux_);

/// Kernel parameters, in the namespaces of the calling process.
Result<void> set_parameters(const ProcFs& proc, const oci::Config& oci);

}  // namespace hobbes
