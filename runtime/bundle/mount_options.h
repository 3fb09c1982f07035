// The options of an entry in `mounts`, told apart by what they are about.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "bundle/oci.h"

namespace hobbes {

/// Parsed mount options. Sources: mount(8), mount_setattr(2), and the option names that the
/// runtime-spec lists (config.md, "Linux mount options").
struct MountOptions {
  std::uint64_t set = 0, clear = 0;                      ///< MOUNT_ATTR_* of the mount
  std::uint64_t recursive_set = 0, recursive_clear = 0;  ///< the same, of it and every mount below
  std::uint64_t propagation = 0;  ///< MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE
  bool recursive_propagation = false;
  bool bind = false, recursive = false;              ///< bind, rbind
  bool copy_up = false;                              ///< tmpcopyup
  bool id_mapped = false, recursive_id_map = false;  ///< idmap, ridmap
  std::vector<std::string> data;                     ///< the rest, for the file system: "size=1m"
  [[nodiscard]] bool read_only() const;
};
/// Whether it shows again what is at a place, instead of a file system of its own.
bool is_bind(const oci::Mount& mount);
/// Whether the ids of its files are to be mapped (mount_setattr(2), MOUNT_ATTR_IDMAP): by an
/// option, or since it has mappings.
bool is_id_mapped(const oci::Mount& mount);
MountOptions parse_mount_options(const std::vector<std::string>& options);
/// Every option that is not the file system's, sorted; `hobbes-run features` prints them.
std::vector<std::string> known_mount_options();

}  // namespace hobbes
