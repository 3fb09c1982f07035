#include "enclave/drivers/linux/rootfs.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>

#include "core/file.h"
#include "core/paths.h"

namespace hobbes {
namespace {

struct OptionFlag {
  bool clears;
  unsigned long flag;
};

const std::map<std::string, OptionFlag>& option_flags() {
  static const std::map<std::string, OptionFlag> table = {{"ro", {false, MS_RDONLY}},
                                                          {"rw", {true, MS_RDONLY}},
                                                          {"nosuid", {false, MS_NOSUID}},
                                                          {"suid", {true, MS_NOSUID}},
                                                          {"nodev", {false, MS_NODEV}},
                                                          {"dev", {true, MS_NODEV}},
                                                          {"noexec", {false, MS_NOEXEC}},
                                                          {"exec", {true, MS_NOEXEC}},
                                                          {"sync", {false, MS_SYNCHRONOUS}},
                                                          {"async", {true, MS_SYNCHRONOUS}},
                                                          {"dirsync", {false, MS_DIRSYNC}},
                                                          {"remount", {false, MS_REMOUNT}},
                                                          {"mand", {false, MS_MANDLOCK}},
                                                          {"nomand", {true, MS_MANDLOCK}},
                                                          {"noatime", {false, MS_NOATIME}},
                                                          {"atime", {true, MS_NOATIME}},
                                                          {"nodiratime", {false, MS_NODIRATIME}},
                                                          {"diratime", {true, MS_NODIRATIME}},
                                                          {"relatime", {false, MS_RELATIME}},
                                                          {"norelatime", {true, MS_RELATIME}},
                                                          {"strictatime", {false, MS_STRICTATIME}},
                                                          {"nostrictatime", {true, MS_STRICTATIME}},
                                                          {"bind", {false, MS_BIND}},
                                                          {"rbind", {false, MS_BIND | MS_REC}},
                                                          {"silent", {false, MS_SILENT}},
                                                          {"loud", {true, MS_SILENT}},
                                                          {"defaults", {false, 0}}};
  return table;
}

const std::map<std::string, unsigned long>& propagation_flags() {
  static const std::map<std::string, unsigned long> table = {
      {"private", MS_PRIVATE}, {"rprivate", MS_PRIVATE | MS_REC}, {"shared", MS_SHARED},         {"rshared", MS_SHARED | MS_REC},
      {"slave", MS_SLAVE},     {"rslave", MS_SLAVE | MS_REC},     {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC}};
  return table;
}

std::string descriptor_path(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

Result<void> mount_call(const char* source, const std::string& target, const char* type, unsigned long flags, const char* data,
                        const std::string& what) {
  if (::mount(source, target.c_str(), type, flags, data) != 0) return os_error("mount " + what, errno);
  return {};
}

Result<Fd> open_beneath(int root, const std::string& path, std::uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
  if (!fd) return os_error("open " + path + " below the root", errno);
  return fd;
}

// Flags a bind remount must keep: in a user namespace the kernel locks them.
unsigned long kept_flags(const std::string& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) return 0;
  unsigned long out = 0;
  if ((info.f_flag & ST_RDONLY) != 0) out |= MS_RDONLY;
  if ((info.f_flag & ST_NOSUID) != 0) out |= MS_NOSUID;
  if ((info.f_flag & ST_NODEV) != 0) out |= MS_NODEV;
  if ((info.f_flag & ST_NOEXEC) != 0) out |= MS_NOEXEC;
  if ((info.f_flag & ST_NOATIME) != 0) out |= MS_NOATIME;
  if ((info.f_flag & ST_NODIRATIME) != 0) out |= MS_NODIRATIME;
  if ((info.f_flag & ST_RELATIME) != 0) out |= MS_RELATIME;
  return out;
}

std::string without_option(const std::string& data, const std::string& prefix) {
  std::string out;
  std::istringstream words(data);
  for (std::string word; std::getline(words, word, ',');)
    if (word.rfind(prefix, 0) != 0) out += (out.empty() ? "" : ",") + word;
  return out;
}

Result<void> make_readonly_recursively(const std::string& path) {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::syscall(SYS_mount_setattr, AT_FDCWD, path.c_str(), AT_RECURSIVE, &attributes, sizeof attributes) != 0)
    return os_error("make " + path + " read-only with everything below", errno, "Linux 5.12 or newer is needed");
  return {};
}

Result<void> bind_mount(const std::string& root, const std::string& source, const std::string& destination, unsigned long flags) {
  struct stat info {};
  if (::stat(source.c_str(), &info) != 0) return os_error("mount " + source + " at " + destination, errno);
  HOBBES_TRY(target, open_target(root, destination, !S_ISDIR(info.st_mode)));
  return mount_call(source.c_str(), descriptor_path(target), nullptr, MS_BIND | flags, nullptr, source + " at " + destination);
}

class Builder {
 public:
  Builder(const RootfsRequest& request, std::string root) : request_(request), root_(std::move(root)) {}

  Result<void> mount(const oci::Mount& m) {
    MountOptions options = parse_mount_options(m.options);
    if (m.type == "cgroup" || m.type == "cgroup2") return mount_cgroup(m, options);
    if ((options.flags & MS_BIND) != 0 || m.type == "bind" || m.type == "none") return mount_bind(m, options);
    HOBBES_TRY(target, open_target(root_, m.destination, false));
    std::string where = descriptor_path(target);
    std::string what = m.type + " at " + m.destination;
    const char* source = m.source.empty() ? m.type.c_str() : m.source.c_str();
    Fd before;
    if (options.copy_up) before = std::move(target);
    auto mounted =
        mount_call(source, where, m.type.c_str(), options.flags & ~static_cast<unsigned long>(MS_RDONLY), options.data.c_str(), what);
    // The terminals' usual group may not be mapped in a user namespace; its own is as good.
    if (!mounted && m.type == "devpts" && request_.user_namespace && mounted.error().code == Code::invalid)
      mounted = mount_call(source, where, "devpts", options.flags & ~static_cast<unsigned long>(MS_RDONLY),
                           without_option(options.data, "gid=").c_str(), what);
    // sysfs needs the network namespace's owner; the host's own, read-only, is the usual stand-in.
    if (!mounted && m.type == "sysfs" && mounted.error().code == Code::denied)
      mounted = mount_call("/sys", where, nullptr, MS_BIND | MS_REC, nullptr, what);
    if (!mounted && m.type == "mqueue" && mounted.error().code == Code::denied) return {};
    HOBBES_CHECK(std::move(mounted));
    HOBBES_TRY(inside, open_target(root_, m.destination, false));
    if (options.copy_up) HOBBES_CHECK(copy_up(before, inside));
    if ((options.flags & MS_RDONLY) != 0)
      HOBBES_CHECK(mount_call(nullptr, descriptor_path(inside), nullptr,
                              MS_REMOUNT | MS_BIND | options.flags | kept_flags(descriptor_path(inside)), nullptr, what + " read-only"));
    return propagate(descriptor_path(inside), options, what);
  }

  Result<void> default_devices() {
    struct Standard {
      const char* path;
      unsigned major, minor;
    };
    static constexpr std::array<Standard, 6> devices = {
        {{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}}};
    for (const Standard& d : devices) HOBBES_CHECK(make_device({d.path, 'c', d.major, d.minor, 0666, 0, 0}));
    for (const oci::Device& d : request_.bundle->oci.linux_.devices) HOBBES_CHECK(make_device(d));
    HOBBES_TRY(dev, open_target(root_, "/dev", false));
    for (const auto& [name, target] :
         {std::pair{"fd", "/proc/self/fd"}, std::pair{"stdin", "/proc/self/fd/0"}, std::pair{"stdout", "/proc/self/fd/1"},
          std::pair{"stderr", "/proc/self/fd/2"}, std::pair{"ptmx", "pts/ptmx"}})
      if (::symlinkat(target, dev.get(), name) != 0 && errno != EEXIST && errno != EROFS)
        return os_error("link /dev/" + std::string(name), errno);
    return {};
  }

 private:
  Result<void> mount_bind(const oci::Mount& m, const MountOptions& options) {
    std::string source = m.source;
    if (source.empty() || source.front() != '/') source = request_.bundle->path + "/" + source;
    HOBBES_CHECK(bind_mount(root_, source, m.destination, options.flags & MS_REC));
    struct stat info {};
    bool file = ::stat(source.c_str(), &info) == 0 && !S_ISDIR(info.st_mode);
    HOBBES_TRY(target, open_target(root_, m.destination, file));
    std::string where = descriptor_path(target);
    unsigned long extra = options.flags & ~static_cast<unsigned long>(MS_BIND | MS_REC);
    if (extra != 0 || options.clear != 0)
      HOBBES_CHECK(mount_call(nullptr, where, nullptr, MS_REMOUNT | MS_BIND | extra | (kept_flags(where) & ~options.clear), nullptr,
                              m.source + " at " + m.destination + " with its options"));
    if (options.recursive_readonly) HOBBES_CHECK(make_readonly_recursively(where));
    return propagate(where, options, m.destination);
  }

  static Result<void> propagate(const std::string& where, const MountOptions& options, const std::string& what) {
    if (options.propagation == 0) return {};
    return mount_call(nullptr, where, nullptr, options.propagation, nullptr, "propagation of " + what);
  }

  // tmpcopyup: what the image had there appears in the new file system.
  static Result<void> copy_up(const Fd& from, const Fd& to) {
    std::error_code failed;
    std::filesystem::copy(descriptor_path(from) + "/.", descriptor_path(to),
                          std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks, failed);
    if (failed) return os_error("copy a directory's content into its new file system", failed.value());
    return {};
  }

  Result<void> mount_cgroup(const oci::Mount& m, const MountOptions& options) {
    const CgroupLayout& layout = *request_.layout;
    bool readonly = (options.flags & MS_RDONLY) != 0;
    auto bind_readonly = [&](const std::string& from, const std::string& to) -> Result<void> {
      HOBBES_CHECK(bind_mount(root_, from, to, 0));
      if (!readonly) return {};
      HOBBES_TRY(target, open_target(root_, to, false));
      return mount_call(nullptr, descriptor_path(target), nullptr, MS_REMOUNT | MS_BIND | options.flags, nullptr, to);
    };
    if (!layout.v2.empty()) {
      HOBBES_TRY(target, open_target(root_, m.destination, false));
      if (request_.cgroup_namespace && mount_call("cgroup", descriptor_path(target), "cgroup2", options.flags, nullptr, m.destination))
        return {};
      return bind_readonly(layout.v2 + request_.cgroup->path(), m.destination);
    }
    HOBBES_TRY(target, open_target(root_, m.destination, false));
    HOBBES_CHECK(mount_call("tmpfs", descriptor_path(target), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755", m.destination));
    for (const auto& [controller, mount_point] : layout.v1)
      HOBBES_CHECK(bind_readonly(mount_point + request_.cgroup->path(), m.destination + "/" + controller));
    if (readonly) {
      HOBBES_TRY(inside, open_target(root_, m.destination, false));
      HOBBES_CHECK(mount_call(nullptr, descriptor_path(inside), nullptr, MS_REMOUNT | MS_BIND | options.flags, nullptr, m.destination));
    }
    return {};
  }

  Result<void> make_device(const oci::Device& d) {
    std::size_t slash = d.path.rfind('/');
    std::string name = d.path.substr(slash + 1);
    HOBBES_TRY(parent, open_target(root_, d.path.substr(0, slash), false));
    if (request_.user_namespace) return bind_mount(root_, d.path, d.path, 0);
    mode_t type = d.type == 'b' ? S_IFBLK : d.type == 'p' ? S_IFIFO : S_IFCHR;
    mode_t umask_before = ::umask(0);
    int rc = ::mknodat(parent.get(), name.c_str(), type | d.mode, makedev(d.major, d.minor));
    int error = errno;
    ::umask(umask_before);
    if (rc != 0 && error == EEXIST) return {};
    if (rc != 0 && error == EPERM) return bind_mount(root_, d.path, d.path, 0);
    if (rc != 0) return os_error("make device " + d.path, error);
    if ((d.uid != 0 || d.gid != 0) && ::fchownat(parent.get(), name.c_str(), d.uid, d.gid, 0) != 0)
      return os_error("give device " + d.path + " its owner", errno);
    return {};
  }

  const RootfsRequest& request_;
  std::string root_;
};

// Host-root mode: the host's tree, read-only, with private /tmp and the node's (or composition's) shared memory.
Result<std::string> build_host_root(const RootfsRequest& request) {
  const std::string& root = request.staging;
  HOBBES_CHECK(mount_call("/", root, nullptr, MS_BIND | MS_REC, nullptr, "the host's root at " + root));
  HOBBES_CHECK(make_readonly_recursively(root));
  if (request.new_pid_namespace)
    HOBBES_CHECK(mount_call("proc", root + "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, nullptr, "proc"));
  HOBBES_CHECK(mount_call("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", "a private /tmp"));
  std::string shared = request.shared_memory.empty() ? "/dev/shm" : request.shared_memory;
  HOBBES_CHECK(mount_call(shared.c_str(), root + "/dev/shm", nullptr, MS_BIND, nullptr, shared + " at /dev/shm"));
  unsigned long kept = kept_flags(root + "/dev/shm") & ~static_cast<unsigned long>(MS_RDONLY);
  HOBBES_CHECK(
      mount_call(nullptr, root + "/dev/shm", nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | kept, nullptr, "/dev/shm writable"));
  // Pseudo-terminals need a writable devpts.
  kept = kept_flags(root + "/dev/pts") & ~static_cast<unsigned long>(MS_RDONLY);
  (void)::mount(nullptr, (root + "/dev/pts").c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NOEXEC | kept, nullptr);
  return root;
}

}  // namespace

MountOptions parse_mount_options(const std::vector<std::string>& options) {
  MountOptions out;
  for (const std::string& option : options) {
    if (auto known = option_flags().find(option); known != option_flags().end()) {
      (known->second.clears ? out.clear : out.flags) |= known->second.flag;
      if (known->second.clears) out.flags &= ~known->second.flag;
    } else if (auto propagation = propagation_flags().find(option); propagation != propagation_flags().end()) {
      out.propagation |= propagation->second;
    } else if (option == "rro") {
      out.recursive_readonly = true;
    } else if (option == "tmpcopyup") {
      out.copy_up = true;
    } else {
      out.data += (out.data.empty() ? "" : ",") + option;
    }
  }
  return out;
}

Result<Fd> open_target(const std::string& root, const std::string& path, bool file) {
  Fd at(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) return os_error("open the root " + root, errno);
  auto found = open_beneath(at.get(), path, O_PATH);
  if (found || found.error().code != Code::not_found) return found;
  // Missing parts are made one by one, each resolved inside the root, so that a link planted in the image leads nowhere.
  std::string done;
  for (std::size_t begin = 0; begin < path.size();) {
    std::size_t end = std::min(path.find('/', begin), path.size());
    std::string part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    std::string next = done + "/" + part;
    if (!open_beneath(at.get(), next, O_PATH)) {
      HOBBES_TRY(parent, open_beneath(at.get(), done.empty() ? "/" : done, O_PATH | O_DIRECTORY));
      bool leaf = end >= path.size();
      int rc = leaf && file ? ::mknodat(parent.get(), part.c_str(), S_IFREG | 0644, 0) : ::mkdirat(parent.get(), part.c_str(), 0755);
      if (rc != 0 && errno != EEXIST) return os_error("make " + next + " in the root file system", errno);
    }
    done = next;
  }
  return open_beneath(at.get(), path, O_PATH);
}

Result<std::string> build_rootfs(const RootfsRequest& request) {
  const Bundle& bundle = *request.bundle;
  unsigned long propagation = MS_SLAVE | MS_REC;
  if (auto named = propagation_flags().find(bundle.oci.linux_.rootfs_propagation); named != propagation_flags().end())
    propagation = named->second;
  HOBBES_CHECK(mount_call(nullptr, "/", nullptr, propagation, nullptr, "propagation of /"));

  std::string root = bundle.rootfs();
  if (bundle.hobbes.host_root) {
    HOBBES_TRY(built, build_host_root(request));
    root = built;
  } else {
    HOBBES_CHECK(mount_call(root.c_str(), root, nullptr, MS_BIND | MS_REC, nullptr, "the root file system " + root));
    // pivot_root refuses a shared parent, and mounts made here must not show outside.
    HOBBES_CHECK(mount_call(nullptr, root, nullptr, MS_PRIVATE | MS_REC, nullptr, "privacy of " + root));
  }
  Builder builder(request, root);
  for (const oci::Mount& m : bundle.oci.mounts) HOBBES_CHECK(builder.mount(m));
  if (!bundle.hobbes.host_root) HOBBES_CHECK(builder.default_devices());
  // The mirror and hobbesd's socket: at their standard place in an image, where they are in the host's tree unless /tmp hides them.
  bool hidden = run_directory().rfind("/tmp/", 0) == 0;
  if (request.with_run_directory && (!bundle.hobbes.host_root || hidden)) {
    std::string place = bundle.hobbes.host_root ? run_directory() : "/run/hobbes";
    HOBBES_CHECK(bind_mount(root, run_directory(), place, MS_REC));
    HOBBES_CHECK(make_readonly_recursively(root + place));
  }
  return root;
}

Result<void> enter_rootfs(const RootfsRequest& request, const std::string& root, bool no_pivot) {
  Fd old(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (::chdir(root.c_str()) != 0) return os_error("enter " + root, errno);
  if (no_pivot) {
    if (::mount(root.c_str(), "/", nullptr, MS_MOVE, nullptr) != 0) return os_error("move " + root + " to /", errno);
    if (::chroot(".") != 0) return os_error("change the root to " + root, errno);
  } else {
    // Stacks the old root on the new one, where it is unmounted: no directory for it is needed in the image.
    if (::syscall(SYS_pivot_root, ".", ".") != 0) return os_error("pivot into " + root, errno, "try --no-pivot");
    if (::fchdir(old.get()) != 0) return os_error("pivot into " + root, errno);
    HOBBES_CHECK(mount_call(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr, "propagation of the old root"));
    if (::umount2(".", MNT_DETACH) != 0) return os_error("leave the old root", errno);
  }
  if (::chdir("/") != 0) return os_error("enter the new root", errno);
  if (auto named = propagation_flags().find(request.bundle->oci.linux_.rootfs_propagation);
      named != propagation_flags().end() && (named->second & (MS_SHARED | MS_UNBINDABLE)) != 0)
    HOBBES_CHECK(mount_call(nullptr, "/", nullptr, named->second, nullptr, "propagation of the root file system"));
  return {};
}

Result<void> seal_rootfs(const RootfsRequest& request) {
  const oci::Config& oci = request.bundle->oci;
  for (const auto& [key, value] : oci.linux_.sysctl) {
    std::string path = "/proc/sys/" + key;
    std::replace(path.begin() + 10, path.end(), '.', '/');
    HOBBES_CHECK(Files::system().write(path, value));
  }
  if (oci.root_readonly)
    HOBBES_CHECK(mount_call(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kept_flags("/"), nullptr, "the root read-only"));
  for (const std::string& path : oci.linux_.readonly_paths) {
    if (::access(path.c_str(), F_OK) != 0) continue;
    HOBBES_CHECK(mount_call(path.c_str(), path, nullptr, MS_BIND | MS_REC, nullptr, path));
    HOBBES_CHECK(mount_call(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kept_flags(path), nullptr, path + " read-only"));
  }
  for (const std::string& path : oci.linux_.masked_paths) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) continue;
    if (S_ISDIR(info.st_mode)) {
      HOBBES_CHECK(mount_call("tmpfs", path, "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1", path + " masked"));
    } else {
      HOBBES_CHECK(mount_call("/dev/null", path, nullptr, MS_BIND, nullptr, path + " masked"));
    }
  }
  return {};
}

}  // namespace hobbes
