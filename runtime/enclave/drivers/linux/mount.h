// Mounts by descriptors: one is made and set up where nobody sees it, and then put onto a target
// that is open.
#pragma once
#include <cstdint>
#include <string>

#include "bundle/mount_options.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// A mount that is in no folder yet, or was put into one by this object. Its descriptor stays a way
/// to its root whatever happens to the path it was put at. Move-only; not thread-safe. Sources:
/// fsopen(2), open_tree(2), move_mount(2) of the kernel's new mount interface.
class Mount {
 public:
  /// A new instance of a file system. Errors: what the file system said of its options;
  /// Code::denied, Code::unavailable (no such type).
  static Result<Mount> make(const std::string& type, const std::string& source,
                            const MountOptions& options);
  /// What is at `path` (or open as `fd` where the path is ""), once more; with the mounts below it
  /// when `recursive`.
  static Result<Mount> clone(int fd, const std::string& path, bool recursive);

  /// Applies the mount's part of the options. Flags that a user namespace may not clear stay.
  [[nodiscard]] Result<void> configure(const MountOptions& options, const std::string& what) const;
  /// Shows its files with the ids of a user namespace; before attach(). Errors: Code::invalid, a
  /// file system that cannot.
  [[nodiscard]] Result<void> map_ids(const Fd& user_namespace, bool recursive,
                                     const std::string& what) const;
  [[nodiscard]] Result<void> set_read_only(bool recursive, const std::string& what) const;
  /// Puts it onto an open file or folder (O_PATH).
  [[nodiscard]] Result<void> attach(const Fd& target, const std::string& what) const;
  [[nodiscard]] const Fd& root() const { return root_; }
  /// For a new process, whose descriptors get other numbers.
  [[nodiscard]] Fd& descriptor() { return root_; }

 private:
  explicit Mount(Fd root) : root_(std::move(root)) {}
  Fd root_;
};

/// mount_setattr(2) on an open mount point.
Result<void> set_mount_attributes(const Fd& at, std::uint64_t set, std::uint64_t clear,
                                  std::uint64_t propagation, bool recursive,
                                  const std::string& what);

}  // namespace hobbes
