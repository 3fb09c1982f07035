#include "enclave/drivers/linux/rootfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <memory>
#include <sstream>
#include <string_view>

#include "core/beneath.h"
#include "core/file.h"
#include "core/paths.h"

namespace hobbes {
namespace {

Result<void> change_root_propagation(unsigned long flags) {
  if (::mount(nullptr, "/", nullptr, flags, nullptr) != 0)
    return os_error("set the propagation of /", errno);
  return {};
}

constexpr const char* copying = "copy a folder's content into its new file system";

Result<void> copy_file(int from, int to, const char* name, const struct stat& info) {
  Fd source(::openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  Fd target(::openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!source || !target) return os_error(copying, errno);
  for (;;) {
    ssize_t n = ::sendfile(target.get(), source.get(), nullptr, 1 << 20);
    if (n < 0) return os_error(copying, errno);
    if (n == 0) break;
  }
  if (::fchown(target.get(), info.st_uid, info.st_gid) != 0 ||
      ::fchmod(target.get(), info.st_mode & 07777U) != 0)
    return os_error(copying, errno);
  return {};
}

// tmpcopyup: what the image had there appears in the new file system. Each entry is opened from its
// folder, and no link is followed.
Result<void> copy_folder(int from, int to) {
  int readable = ::openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::unique_ptr<DIR, int (*)(DIR*)> entries(readable >= 0 ? ::fdopendir(readable) : nullptr,
                                              &::closedir);
  if (!entries) return os_error(copying, errno);
  while (const dirent* entry = ::readdir(entries.get())) {
    const char* name = entry->d_name;
    struct stat info {};
    if (std::string_view(name) == "." || std::string_view(name) == ".." ||
        ::fstatat(readable, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    if (S_ISREG(info.st_mode)) {
      HOBBES_CHECK(copy_file(readable, to, name, info));
    } else if (S_ISDIR(info.st_mode)) {
      Fd inner(::openat(readable, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!inner || ::mkdirat(to, name, info.st_mode & 07777U) != 0)
        return os_error(copying, errno);
      Fd made(::openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!made || ::fchown(made.get(), info.st_uid, info.st_gid) != 0)
        return os_error(copying, errno);
      HOBBES_CHECK(copy_folder(inner.get(), made.get()));
    } else if (S_ISLNK(info.st_mode)) {
      char target[PATH_MAX] = {};
      if (::readlinkat(readable, name, target, sizeof target - 1) > 0 &&
          ::symlinkat(target, to, name) != 0)
        return os_error(copying, errno);
    }
  }
  return {};
}

mode_t format_of(char type) { return type == 'b' ? S_IFBLK : type == 'p' ? S_IFIFO : S_IFCHR; }

bool is_device(const struct stat& info, char type, unsigned major, unsigned minor) {
  return (info.st_mode & S_IFMT) == format_of(type) &&
         (type == 'p' || info.st_rdev == makedev(major, minor));
}

Result<void> make_node(const Fd& parent, const std::string& name, const oci::Device& d) {
  mode_t umask_before = ::umask(0);
  int rc =
      ::mknodat(parent.get(), name.c_str(), format_of(d.type) | d.mode, makedev(d.major, d.minor));
  int error = errno;
  ::umask(umask_before);
  return rc == 0 ? Result<void>() : os_error("make device " + d.path, error);
}

// Below a process's /proc only what tools replace to show an enclave its own numbers (as lxcfs
// does) may be covered.
bool may_cover(const std::string& destination) {
  static constexpr std::array<const char*, 11> known = {"/proc/cpuinfo",
                                                        "/proc/diskstats",
                                                        "/proc/meminfo",
                                                        "/proc/stat",
                                                        "/proc/swaps",
                                                        "/proc/uptime",
                                                        "/proc/loadavg",
                                                        "/proc/slabinfo",
                                                        "/proc/net/dev",
                                                        "/proc/sys/kernel/ns_last_pid",
                                                        "/proc/sys/crypto/fips_enabled"};
  if (destination.rfind("/proc/", 0) != 0) return true;
  return std::find(known.begin(), known.end(), destination) != known.end();
}

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || path.rfind(folder + "/", 0) == 0;
}

}  // namespace

class RootfsBuilder {
 public:
  RootfsBuilder(RootfsRequest& request, Rootfs& out) : request_(request), out_(out) {}

  Result<void> mount_all() {
    const auto& mounts = request_.bundle->oci.mounts;
    for (std::size_t i = 0; i < mounts.size(); ++i)
      HOBBES_CHECK(mount(
          {absolute(mounts[i].destination), mounts[i].type, mounts[i].source, mounts[i].options},
          i));
    return {};
  }

  Result<void> default_devices() {
    struct Standard {
      const char* path;
      unsigned major, minor;
    };
    static constexpr std::array<Standard, 6> devices = {{{"/dev/null", 1, 3},
                                                         {"/dev/zero", 1, 5},
                                                         {"/dev/full", 1, 7},
                                                         {"/dev/random", 1, 8},
                                                         {"/dev/urandom", 1, 9},
                                                         {"/dev/tty", 5, 0}}};
    const auto& own = request_.bundle->oci.linux_.devices;
    for (const Standard& d : devices) {
      bool listed = std::any_of(own.begin(), own.end(),
                                [&](const oci::Device& device) { return device.path == d.path; });
      if (!listed) HOBBES_CHECK(make_device({d.path, 'c', d.major, d.minor, 0666, 0, 0}));
    }
    HOBBES_CHECK(listed_devices(own));
    if (request_.bundle->oci.process->terminal)
      HOBBES_CHECK(target("/dev/console", true));  // a place for the terminal, made in time
    HOBBES_TRY(dev, target("/dev", false));
    for (const auto& [name, link] :
         {std::pair{"fd", "/proc/self/fd"}, std::pair{"stdin", "/proc/self/fd/0"},
          std::pair{"stdout", "/proc/self/fd/1"}, std::pair{"stderr", "/proc/self/fd/2"},
          std::pair{"ptmx", "pts/ptmx"}})
      if (::symlinkat(link, dev.get(), name) != 0 && errno != EEXIST && errno != EROFS)
        return os_error("link /dev/" + std::string(name), errno);
    return {};
  }

  // hobbesd's folder without what belongs to other enclaves: their configuration, their output, and
  // the sockets that start them.
  Result<void> show_run_directory(const std::string& place) {
    HOBBES_TRY(bound, bind(run_directory(), place, true));
    HOBBES_CHECK(bound.set_read_only(true, place));
    MountOptions options;
    options.data = {"mode=700", "nr_blocks=1", "nr_inodes=1"};
    for (const char* name : {"enclaves", "users", "logs"}) {
      auto folder = open_beneath(bound.root().get(), name, O_PATH | O_DIRECTORY);
      if (!folder && folder.error().code == Code::not_found) continue;
      if (!folder) return std::move(folder).error();
      HOBBES_TRY(nothing, Mount::make("tmpfs", "tmpfs", options));
      HOBBES_CHECK(nothing.attach(*folder, place + "/" + name));
      HOBBES_CHECK(nothing.set_read_only(false, place + "/" + name));
    }
    return {};
  }

  // A /dev that is to be read-only becomes so when its devices are there.
  Result<void> finish() {
    for (const Mount& mount : late_read_only_) HOBBES_CHECK(mount.set_read_only(false, "/dev"));
    return {};
  }

  // What is at a path of the host, at a place in the root.
  Result<Mount> bind(const std::string& source, const std::string& destination, bool recursive) {
    HOBBES_TRY(mount, Mount::clone(AT_FDCWD, source, recursive));
    return put(std::move(mount), source, destination);
  }

 private:
  Result<Mount> put(Mount mount, const std::string& source, const std::string& destination) {
    struct stat info {};
    if (::fstat(mount.root().get(), &info) != 0)
      return os_error("mount " + source + " at " + destination, errno);
    HOBBES_TRY(at, target(destination, !S_ISDIR(info.st_mode)));
    HOBBES_CHECK(mount.attach(at, source + " at " + destination));
    return mount;
  }

  [[nodiscard]] Result<Fd> target(const std::string& path, bool file) const {
    return open_or_make(out_.root_, path, file);
  }

  Result<void> mount(const oci::Mount& m, std::size_t number) {
    MountOptions options = parse_mount_options(m.options);
    if (takes_label(m.type)) add_label(options);
    if (m.type == "cgroup" || m.type == "cgroup2") return mount_cgroup(m, options);
    if (is_bind(m)) return mount_bind(m, options, number);
    const std::string what = m.type + " at " + m.destination;
    const bool kernels = m.type == "proc" || m.type == "sysfs";
    HOBBES_TRY(at, kernels ? open_plain(m.destination) : target(m.destination, false));
    auto made = Mount::make(m.type, m.source, options);
    // The terminals' usual group may not be mapped in a user namespace; its own is as good.
    if (!made && m.type == "devpts" && request_.user_namespace) {
      MountOptions without = options;
      std::erase_if(without.data,
                    [](const std::string& option) { return option.rfind("gid=", 0) == 0; });
      made = Mount::make(m.type, m.source, without);
    }
    // sysfs needs the network namespace's owner; the host's own, read-only, is the usual stand-in.
    if (!made && m.type == "sysfs" && made.error().code == Code::denied)
      made = Mount::clone(AT_FDCWD, "/sys", true);
    if (!made && m.type == "mqueue" && made.error().code == Code::denied) return {};
    if (!made) return std::move(made.error()).within("mount " + what);
    if (m.type == "mqueue") HOBBES_CHECK(label_root(*made, what));
    HOBBES_CHECK(made->attach(at, what));
    if (options.copy_up) HOBBES_CHECK(copy_folder(at.get(), made->root().get()));
    const bool late = m.destination == "/dev" && options.read_only();
    if (late) options.set &= ~static_cast<std::uint64_t>(MOUNT_ATTR_RDONLY);
    HOBBES_CHECK(made->configure(options, what));
    if (late)
      late_read_only_.push_back(std::move(*made));
    else if (kernels)
      out_.kernel_.push_back({m.destination, std::move(*made)});
    return {};
  }

  // A file system of the enclave's own has one SELinux context for all of its files.
  static bool takes_label(const std::string& type) {
    return type == "tmpfs" || type == "devpts" || type == "ramfs";
  }

  [[nodiscard]] const std::string& label() const { return request_.bundle->oci.linux_.mount_label; }

  void add_label(MountOptions& options) const {
    if (!label().empty()) options.data.push_back("context=" + label());
  }

  // Message queues take no context as an option.
  Result<void> label_root(const Mount& made, const std::string& what) const {
    if (label().empty()) return {};
    const std::string path = "/proc/self/fd/" + std::to_string(made.root().get());
    if (::setxattr(path.c_str(), "security.selinux", label().c_str(), label().size() + 1, 0) != 0)
      return os_error("give the SELinux context " + label() + " to " + what, errno);
    return {};
  }

  // /proc and /sys are where the kernel is looked for later: no link may say where that is.
  [[nodiscard]] Result<Fd> open_plain(const std::string& destination) const {
    HOBBES_CHECK(target(destination, false));
    auto plain =
        open_beneath(out_.root_.get(), destination, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (plain || plain.error().code == Code::not_found) return plain;
    return Error{Code::denied, "mount at " + destination,
                 destination + " is a link in the root file system, or below one",
                 "make it a folder in the image"};
  }

  Result<void> mount_bind(const oci::Mount& m, const MountOptions& options, std::size_t number) {
    const std::string source = request_.bundle->source_of(m),
                      what = m.source + " at " + m.destination;
    if (!may_cover(m.destination))
      return Error{Code::denied, "mount " + what,
                   "it would cover a part of /proc that the kernel is asked by",
                   "mount it somewhere else"};
    auto cloned = request_.cloned.find(number);
    auto bound = cloned == request_.cloned.end()
                     ? bind(source, m.destination, options.recursive)
                     : put(std::move(cloned->second), source, m.destination);
    if (!bound) return std::move(bound).error();
    return bound->configure(options, what);
  }

  Result<void> mount_cgroup(const oci::Mount& m, const MountOptions& options) {
    const CgroupLayout& layout = *request_.layout;
    if (!layout.v2.empty()) {
      if (request_.cgroup_namespace) {
        auto made = Mount::make("cgroup2", "cgroup", {});
        if (made) {
          HOBBES_TRY(at, target(m.destination, false));
          HOBBES_CHECK(made->attach(at, m.destination));
          return made->configure(options, m.destination);
        }
      }
      HOBBES_TRY(bound, bind(request_.cgroup->directory(""), m.destination, false));
      return bound.configure(options, m.destination);
    }
    MountOptions folder;
    folder.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    folder.data = {"mode=755"};
    add_label(folder);
    HOBBES_TRY(made, Mount::make("tmpfs", "tmpfs", folder));
    HOBBES_TRY(at, target(m.destination, false));
    HOBBES_CHECK(made.attach(at, m.destination));
    HOBBES_CHECK(made.configure(folder, m.destination));
    for (const auto& [controller, unused] : layout.v1) {
      HOBBES_TRY(bound, bind(request_.cgroup->directory(controller),
                             m.destination + "/" + controller, false));
      HOBBES_CHECK(bound.configure(options, m.destination));
    }
    return made.configure(options, m.destination);
  }

  // Devices that were made outside of the user namespace are mounts of their own file system, which
  // is out of sight again afterwards.
  Result<void> listed_devices(const std::vector<oci::Device>& own) {
    if (!request_.devices) {
      for (const oci::Device& d : own) HOBBES_CHECK(make_device(d));
      return {};
    }
    const std::string& place = request_.record_folder;
    HOBBES_TRY(at, open_root(place));
    HOBBES_CHECK(request_.devices->attach(at, "devices"));
    for (std::size_t i = 0; i < own.size(); ++i) {
      HOBBES_TRY(device, Mount::clone(request_.devices->root().get(), std::to_string(i), false));
      HOBBES_TRY(there, target(own[i].path, true));
      HOBBES_CHECK(device.attach(there, "device " + own[i].path));
    }
    if (::umount2(place.c_str(), MNT_DETACH) != 0) return os_error("unmount the devices", errno);
    return {};
  }

  // In a user namespace no device can be made: the host's is bound, if it is the one that is meant.
  Result<void> bind_device(const oci::Device& d) {
    HOBBES_TRY(mount, Mount::clone(AT_FDCWD, d.path, false));
    struct stat info {};
    if (::fstat(mount.root().get(), &info) != 0 || !is_device(info, d.type, d.major, d.minor))
      return Error{Code::invalid, "make device " + d.path,
                   "the host's " + d.path + " is another device", "name the host's device numbers"};
    HOBBES_TRY(at, target(d.path, true));
    return mount.attach(at, "device " + d.path);
  }

  Result<void> make_device(const oci::Device& d) {
    std::size_t slash = d.path.rfind('/');
    std::string name = d.path.substr(slash + 1);
    HOBBES_TRY(parent, target(slash == 0 ? "/" : d.path.substr(0, slash), false));
    if (request_.user_namespace) return bind_device(d);
    auto made = make_node(parent, name, d);
    if (!made && made.error().code == Code::exists) {
      struct stat info {};
      if (::fstatat(parent.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
          is_device(info, d.type, d.major, d.minor))
        return {};
      return Error{Code::exists, "make device " + d.path,
                   "the root file system has something else there", "remove it from the image"};
    }
    if (!made && made.error().code == Code::denied) return bind_device(d);
    if (!made) return made;
    if ((d.uid != 0 || d.gid != 0) &&
        ::fchownat(parent.get(), name.c_str(), d.uid, d.gid, AT_SYMLINK_NOFOLLOW) != 0)
      return os_error("give device " + d.path + " its owner", errno);
    return {};
  }

  RootfsRequest& request_;
  Rootfs& out_;
  std::vector<Mount> late_read_only_;
};

namespace {

// Services of the host have their sockets and logs in /run. What is left of it is what resolves
// names.
template <class Put>
Result<void> hide_run(Put put) {
  struct Kept {
    const char* path;
    std::optional<Mount> mount;
  };
  std::vector<Kept> kept;
  for (const char* path : {"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"})
    if (::access(path, F_OK) == 0) {
      HOBBES_TRY(mount, Mount::clone(AT_FDCWD, path, false));
      kept.push_back({path, std::move(mount)});
    }
  MountOptions options;
  options.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  options.data = {"mode=755", "size=1m"};
  HOBBES_TRY(empty, Mount::make("tmpfs", "tmpfs", options));
  HOBBES_CHECK(put(empty, "/run"));
  for (const Kept& one : kept) {
    HOBBES_TRY(target, open_or_make(empty.root(), std::string(one.path).substr(4), false));
    HOBBES_CHECK(one.mount->attach(target, one.path));
    HOBBES_CHECK(one.mount->set_read_only(false, one.path));
  }
  return empty.configure(options, "/run");
}

// Host-root mode: the host's tree, read-only, with private /tmp and the node's (or composition's)
// shared memory.
Result<std::optional<Mount>> build_host_root(const RootfsRequest& request,
                                             const std::string& root) {
  HOBBES_TRY(tree, Mount::clone(AT_FDCWD, "/", true));
  HOBBES_TRY(at, open_root(root));
  HOBBES_CHECK(tree.attach(at, "the host's root at " + root));
  HOBBES_CHECK(tree.set_read_only(true, "the host's root"));
  auto put = [&](const Mount& mount, const std::string& place) -> Result<void> {
    HOBBES_TRY(where, open_beneath(tree.root().get(), place, O_PATH));
    return mount.attach(where, place);
  };
  MountOptions plain;
  plain.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  MountOptions scratch = plain;
  scratch.data = {"mode=1777"};
  HOBBES_TRY(temporary, Mount::make("tmpfs", "tmpfs", scratch));
  HOBBES_CHECK(temporary.configure(plain, "a private /tmp"));
  HOBBES_CHECK(put(temporary, "/tmp"));
  std::string shared = request.shared_memory.empty() ? "/dev/shm" : request.shared_memory;
  HOBBES_TRY(memory, Mount::clone(AT_FDCWD, shared, false));
  plain.clear = MOUNT_ATTR_RDONLY;
  HOBBES_CHECK(memory.configure(plain, shared + " at /dev/shm"));
  HOBBES_CHECK(put(memory, "/dev/shm"));
  // Pseudo-terminals of its own: those of the host have people before them.
  MountOptions terminals;
  terminals.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  terminals.data = {"newinstance", "ptmxmode=0666", "mode=0620"};
  HOBBES_TRY(pts, Mount::make("devpts", "devpts", terminals));
  HOBBES_CHECK(put(pts, "/dev/pts"));
  HOBBES_CHECK(pts.configure(terminals, "/dev/pts"));
  HOBBES_CHECK(hide_run(put));
  std::optional<Mount> proc;
  if (request.new_pid_namespace) {
    MountOptions options;
    options.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;
    HOBBES_TRY(made, Mount::make("proc", "proc", options));
    HOBBES_CHECK(put(made, "/proc"));
    HOBBES_CHECK(made.configure(options, "proc"));
    proc = std::move(made);
  }
  return proc;
}

struct Propagation {
  const char* name;
  unsigned long flags;
};
constexpr std::array<Propagation, 8> propagations = {{{"private", MS_PRIVATE},
                                                      {"rprivate", MS_PRIVATE | MS_REC},
                                                      {"shared", MS_SHARED},
                                                      {"rshared", MS_SHARED | MS_REC},
                                                      {"slave", MS_SLAVE},
                                                      {"rslave", MS_SLAVE | MS_REC},
                                                      {"unbindable", MS_UNBINDABLE},
                                                      {"runbindable", MS_UNBINDABLE | MS_REC}}};

unsigned long propagation_of(const Bundle& bundle) {
  for (const Propagation& one : propagations)
    if (bundle.oci.linux_.rootfs_propagation == one.name) return one.flags;
  return 0;
}

}  // namespace

Result<Rootfs> Rootfs::build(RootfsRequest& request) {
  const Bundle& bundle = *request.bundle;
  // Nothing that is mounted here shows outside: pivot_root would refuse a shared parent, and an
  // unbindable root could not be cloned.
  unsigned long wanted = propagation_of(bundle);
  HOBBES_CHECK(change_root_propagation(
      (wanted & MS_PRIVATE) != 0 ? wanted : static_cast<unsigned long>(MS_SLAVE | MS_REC)));

  Rootfs out;
  out.request_ = &request;
  // The character device 1:3 of the host, to mask files with; an image's own could be anything.
  out.null_.reset(::open("/dev/null", O_PATH | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!out.null_ || ::fstat(out.null_.get(), &info) != 0 || !is_device(info, 'c', 1, 3))
    return Error{Code::corrupt, "use the host's /dev/null", "it is not the character device 1:3",
                 "repair /dev"};

  std::optional<Mount> proc;
  if (bundle.hobbes.host_root) {
    out.path_ = request.staging;
    HOBBES_TRY(mounted, build_host_root(request, out.path_));
    proc = std::move(mounted);
  } else {
    out.path_ = bundle.rootfs();
    HOBBES_TRY(tree, Mount::clone(AT_FDCWD, out.path_, true));
    HOBBES_CHECK(set_mount_attributes(tree.root(), 0, 0, MS_PRIVATE, true,
                                      "the root file system " + out.path_));
    HOBBES_TRY(at, open_root(out.path_));
    HOBBES_CHECK(tree.attach(at, "the root file system " + out.path_));
  }
  HOBBES_TRY(root, open_root(out.path_));
  out.root_ = std::move(root);
  if (proc) out.kernel_.push_back({"/proc", std::move(*proc)});
  RootfsBuilder builder(request, out);
  HOBBES_CHECK(builder.mount_all());
  if (!bundle.hobbes.host_root) HOBBES_CHECK(builder.default_devices());
  HOBBES_CHECK(builder.finish());
  // The mirror and hobbesd's socket: at their standard place in an image, where they are in the
  // host's tree.
  if (request.with_run_directory)
    HOBBES_CHECK(
        builder.show_run_directory(bundle.hobbes.host_root ? run_directory() : "/run/hobbes"));
  return out;
}

// A part of the kernel's file systems is looked for in the mount that was made, not at its path;
// everything else inside the root.
Result<Fd> Rootfs::open_sealed(const std::string& path) const {
  for (auto placed = kernel_.rbegin(); placed != kernel_.rend(); ++placed) {
    if (!is_below(path, placed->destination)) continue;
    std::string below = path.substr(placed->destination.size());
    return open_beneath(placed->mount.root().get(), below.empty() ? "/" : below, O_PATH,
                        RESOLVE_NO_SYMLINKS);
  }
  return open_beneath(root_.get(), path, O_PATH);
}

Result<void> Rootfs::seal() {
  const oci::Config& oci = request_->bundle->oci;
  auto each = [&](const std::vector<std::string>& paths, auto&& seal_one) -> Result<void> {
    for (const std::string& path : paths) {
      auto found = open_sealed(absolute(path));
      if (!found && (found.error().code == Code::not_found || found.error().code == Code::invalid))
        continue;
      if (!found) return std::move(found.error()).within("seal " + path);
      HOBBES_CHECK(seal_one(*found, path));
    }
    return {};
  };
  auto make_read_only = [](const Fd& found, const std::string& path) -> Result<void> {
    HOBBES_TRY(again, Mount::clone(found.get(), "", true));
    HOBBES_CHECK(again.attach(found, path));
    return again.set_read_only(false, path);
  };
  auto mask = [&](const Fd& found, const std::string& path) -> Result<void> {
    struct stat info {};
    if (::fstat(found.get(), &info) != 0) return os_error("mask " + path, errno);
    if (!S_ISDIR(info.st_mode)) {
      HOBBES_TRY(nothing, Mount::clone(null_.get(), "", false));
      return nothing.attach(found, path + " masked");
    }
    MountOptions empty;
    empty.data = {"nr_blocks=1", "nr_inodes=1"};
    HOBBES_TRY(folder, Mount::make("tmpfs", "tmpfs", empty));
    HOBBES_CHECK(folder.attach(found, path + " masked"));
    return folder.set_read_only(false, path);
  };
  // The host's tree comes without the kernel's controls, whether or not its bundle says so.
  if (request_->bundle->hobbes.host_root) {
    HOBBES_CHECK(each({"/proc/acpi", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                       "/proc/sysrq-trigger", "/proc/scsi"},
                      make_read_only));
    HOBBES_CHECK(each(
        {"/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/sys/firmware"}, mask));
  }
  HOBBES_CHECK(each(oci.linux_.readonly_paths, make_read_only));
  return each(oci.linux_.masked_paths, mask);
}

namespace {

// mountinfo writes spaces, tabs, line ends and backslashes as three octal digits (proc(5)).
std::string unescape_mount_path(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                      (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  return out;
}

// A move of the root leaves the old root's mounts below it. A proc or sysfs among them that nothing
// masks would let the enclave's user namespaces mount their own unmasked ones.
Result<void> hide_kernel_mounts(const std::string& new_root) {
  HOBBES_TRY(text, Files::system().read("/proc/self/mountinfo"));
  std::istringstream lines(text);
  std::vector<std::string> found;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string skipped, place, type;
    words >> skipped >> skipped >> skipped >> skipped >> place;
    while (words >> skipped && skipped != "-") {
    }
    words >> type;
    if (type != "proc" && type != "sysfs") continue;
    place = unescape_mount_path(place);
    if ((place + "/").rfind(new_root + "/", 0) != 0) found.push_back(place);
  }
  for (auto place = found.rbegin(); place != found.rend(); ++place) {
    if (::umount2(place->c_str(), MNT_DETACH) == 0) continue;
    if (errno != EINVAL && errno != EPERM) return os_error("unmount the host's " + *place, errno);
    if (::mount("tmpfs", place->c_str(), "tmpfs", 0, nullptr) != 0)
      return os_error("hide the host's " + *place, errno);
  }
  return {};
}

}  // namespace

Result<void> Rootfs::enter_folder() const {
  return ::fchdir(root_.get()) == 0 ? Result<void>() : os_error("enter " + path_, errno);
}

Result<void> Rootfs::enter(bool no_pivot) {
  Fd old(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  HOBBES_CHECK(enter_folder());
  if (no_pivot) {
    HOBBES_CHECK(hide_kernel_mounts(path_));
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0)
      return os_error("move " + path_ + " to /", errno);
    if (::chroot(".") != 0) return os_error("change the root to " + path_, errno);
  } else {
    // Stacks the old root on the new one, where it is unmounted: no directory for it is needed in
    // the image.
    if (::syscall(SYS_pivot_root, ".", ".") != 0)
      return os_error("pivot into " + path_, errno, "try --no-pivot");
    if (::fchdir(old.get()) != 0) return os_error("pivot into " + path_, errno);
    if (::mount(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr) != 0)
      return os_error("set the propagation of the old root", errno);
    if (::umount2(".", MNT_DETACH) != 0) return os_error("leave the old root", errno);
  }
  if (::chdir("/") != 0) return os_error("enter the new root", errno);
  return {};
}

Result<void> Rootfs::finish() {
  unsigned long wanted = propagation_of(*request_->bundle);
  if ((wanted & (MS_SHARED | MS_UNBINDABLE)) != 0) HOBBES_CHECK(change_root_propagation(wanted));
  if (!request_->bundle->oci.root_readonly) return {};
  Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return set_mount_attributes(root, MOUNT_ATTR_RDONLY, 0, 0, false, "the root");
}

Result<Mount> make_listed_devices(const oci::Linux& linux_) {
  MountOptions options;
  options.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
  options.data = {"mode=755"};
  HOBBES_TRY(made, Mount::make("tmpfs", "tmpfs", options));
  auto outside = [](const std::vector<oci::IdMapping>& maps,
                    std::uint32_t id) -> std::optional<std::uint32_t> {
    for (const oci::IdMapping& map : maps)
      if (id >= map.container_id && id - map.container_id < map.size)
        return map.host_id + (id - map.container_id);
    // A device whose bundle names no owner belongs to root of the node if root is not mapped.
    return id == 0 ? std::optional<std::uint32_t>(0) : std::nullopt;
  };
  for (std::size_t i = 0; i < linux_.devices.size(); ++i) {
    const oci::Device& d = linux_.devices[i];
    auto uid = outside(linux_.uid_mappings, d.uid), gid = outside(linux_.gid_mappings, d.gid);
    if (!uid || !gid)
      return Error{Code::invalid, "make device " + d.path,
                   "its owner is not mapped in the user namespace",
                   "map it, or name another owner"};
    const std::string name = std::to_string(i);
    HOBBES_CHECK(make_node(made.root(), name, d));
    if (::fchownat(made.root().get(), name.c_str(), *uid, *gid, AT_SYMLINK_NOFOLLOW) != 0)
      return os_error("give device " + d.path + " its owner", errno);
  }
  return std::move(made);
}

Result<void> set_parameters(const ProcFs& proc, const oci::Config& oci) {
  for (const auto& [key, value] : oci.linux_.sysctl)
    HOBBES_CHECK(proc.write("sys/" + sysctl_path(key), value));
  return {};
}

}  // namespace hobbes
