#include "enclave/drivers/linux/mount.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace hobbes {
namespace {

// What a file system says of its options, from its context's log
// (Documentation/filesystems/mount_api.rst): "e tmpfs: Bad value".
std::string complaint_of(const Fd& context) {
  std::string out;
  char line[512];
  for (int i = 0; i < 16; ++i) {
    ssize_t n = ::read(context.get(), line, sizeof line);
    if (n <= 2) break;
    std::string text(line + 2, static_cast<std::size_t>(n) - 2);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    out += (out.empty() ? "" : "; ") + text;
  }
  return out;
}

Error refused(const std::string& what, int error, const Fd& context) {
  Error out = os_error("mount " + what, error);
  if (std::string said = complaint_of(context); !said.empty()) out.cause += " (" + said + ")";
  return out;
}

}  // namespace

Result<Mount> Mount::make(const std::string& type, const std::string& source,
                          const MountOptions& options) {
  Fd context(static_cast<int>(::syscall(SYS_fsopen, type.c_str(), FSOPEN_CLOEXEC)));
  if (!context)
    return os_error("mount a file system of type " + type, errno,
                    errno == ENODEV ? "load its module, or use another type" : "");
  auto tell = [&](unsigned command, const char* key, const char* value) {
    return ::syscall(SYS_fsconfig, context.get(), command, key, value, 0) == 0;
  };
  std::string name = source.empty() ? type : source;
  if (!tell(FSCONFIG_SET_STRING, "source", name.c_str()))
    return refused(type + " from " + name, errno, context);
  for (const std::string& option : options.data) {
    std::size_t equals = option.find('=');
    std::string key = option.substr(0, equals),
                value = equals == std::string::npos ? "" : option.substr(equals + 1);
    bool taken = equals == std::string::npos
                     ? tell(FSCONFIG_SET_FLAG, key.c_str(), nullptr)
                     : tell(FSCONFIG_SET_STRING, key.c_str(), value.c_str());
    if (!taken) return refused(type + " with option " + option, errno, context);
  }
  if (!tell(FSCONFIG_CMD_CREATE, nullptr, nullptr)) return refused(type, errno, context);
  // Nosuid and the like from the beginning: a user namespace may not mount without what is locked.
  std::uint64_t first = (options.set | options.recursive_set) &
                        (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
  Fd root(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, first)));
  if (!root) return refused(type, errno, context);
  return Mount(std::move(root));
}

Result<Mount> Mount::clone(int fd, const std::string& path, bool recursive) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
                   (recursive ? static_cast<unsigned>(AT_RECURSIVE) : 0U) |
                   (path.empty() ? static_cast<unsigned>(AT_EMPTY_PATH) : 0U);
  Fd root(static_cast<int>(::syscall(SYS_open_tree, fd, path.c_str(), flags)));
  if (!root) return os_error("mount " + (path.empty() ? "an open file" : path), errno);
  return Mount(std::move(root));
}

Result<void> set_mount_attributes(const Fd& at, std::uint64_t set, std::uint64_t clear,
                                  std::uint64_t propagation, bool recursive,
                                  const std::string& what) {
  if (set == 0 && clear == 0 && propagation == 0) return {};
  mount_attr attributes{};
  attributes.attr_set = set;
  // One of the atime settings is always there: a change of it clears whichever it is.
  attributes.attr_clr = (set & MOUNT_ATTR__ATIME) != 0 || (clear & MOUNT_ATTR__ATIME) != 0
                            ? clear | MOUNT_ATTR__ATIME
                            : clear;
  attributes.propagation = propagation;
  unsigned flags = AT_EMPTY_PATH | (recursive ? static_cast<unsigned>(AT_RECURSIVE) : 0U);
  if (::syscall(SYS_mount_setattr, at.get(), "", flags, &attributes, sizeof attributes) != 0)
    return os_error("set the options of " + what, errno,
                    errno == ENOSYS ? "Linux 5.12 or newer is needed" : "");
  return {};
}

Result<void> Mount::configure(const MountOptions& options, const std::string& what) const {
  HOBBES_CHECK(set_mount_attributes(root_, options.set, options.clear, 0, false, what));
  HOBBES_CHECK(
      set_mount_attributes(root_, options.recursive_set, options.recursive_clear, 0, true, what));
  return set_mount_attributes(root_, 0, 0, options.propagation, options.recursive_propagation,
                              what);
}

Result<void> Mount::map_ids(const Fd& user_namespace, bool recursive,
                            const std::string& what) const {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<__u64>(user_namespace.get());
  unsigned flags = AT_EMPTY_PATH | (recursive ? static_cast<unsigned>(AT_RECURSIVE) : 0U);
  if (::syscall(SYS_mount_setattr, root_.get(), "", flags, &attributes, sizeof attributes) != 0)
    return os_error(
        "map the ids of " + what, errno,
        errno == EINVAL
            ? "its file system cannot; copy the files to another one, or leave the mapping out"
            : "");
  return {};
}

Result<void> Mount::set_read_only(bool recursive, const std::string& what) const {
  return set_mount_attributes(root_, MOUNT_ATTR_RDONLY, 0, 0, recursive, what);
}

Result<void> Mount::attach(const Fd& target, const std::string& what) const {
  if (::syscall(SYS_move_mount, root_.get(), "", target.get(), "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    return os_error("mount " + what, errno);
  return {};
}

}  // namespace hobbes
