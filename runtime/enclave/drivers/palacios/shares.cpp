#include "enclave/drivers/palacios/shares.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "bundle/mount_options.h"
#include "core/beneath.h"
#include "core/file.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

std::string sharing(const std::string& path) { return "share " + path + " with the guest"; }

Result<Fd> clone_mount(const std::string& path, bool with_mounts_below, bool read_only) {
  const std::string attempt = sharing(path);
  const std::uint32_t below = with_mounts_below ? AT_RECURSIVE : 0;
  Fd out(::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | below));
  if (!out) return os_error(attempt, errno, "see mounts in the bundle");
  mount_attr how{};
  how.propagation = MS_PRIVATE;
  how.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (read_only ? MOUNT_ATTR_RDONLY : 0);
  if (::mount_setattr(out.get(), "", AT_EMPTY_PATH | below, &how, sizeof how) != 0)
    return os_error(attempt, errno);
  return out;
}

const std::string sharing_files = "share single files with the guest";

Result<void> leave_mounts(const std::string& attempt) {
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return os_error(attempt, errno);
  return {};
}

// A folder that is put together by mounting, in a process with a mount namespace of its own, since
// nothing can be mounted on what is mounted nowhere.
Result<Fd> put_together(const std::string& attempt, const std::function<Result<Fd>()>& make) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return os_error(attempt, errno);
  MessageSocket answers{Fd(ends[0])};
  Fd theirs(ends[1]);
  pid_t child = ::fork();
  if (child < 0) return os_error(attempt, errno);
  if (child == 0) {
    MessageSocket parent(std::move(theirs));
    auto left = leave_mounts(attempt);
    Result<Fd> folder = left ? make() : std::move(left).error();
    auto said = folder ? parent.send(Json::object(), {folder->get()})
                       : parent.send({{"error", to_json(folder.error())}});
    ::_exit(said ? 0 : 1);
  }
  theirs.reset();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  HOBBES_TRY(answer, answers.receive(std::chrono::seconds(1)));
  if (answer.body.contains("error")) return error_from(answer.body["error"]);
  if (answer.fds.size() != 1) return Error{Code::os, attempt, "no folder came of it", ""};
  return std::move(answer.fds[0]);
}

Result<Fd> gather(const std::vector<SharedFile>& files, const std::string& scratch) {
  const std::string& attempt = sharing_files;
  std::vector<Fd> sources;  // before one of them is covered
  for (const SharedFile& file : files) {
    HOBBES_TRY(source, clone_mount(file.path, false, file.read_only));
    struct stat info {};
    if (::fstat(source.get(), &info) != 0 || !S_ISREG(info.st_mode))
      return Error{Code::invalid, sharing(file.path), "it is neither a folder nor a regular file",
                   ""};
    sources.push_back(std::move(source));
  }
  if (::mount("files", scratch.c_str(), "tmpfs", MS_NODEV | MS_NOSUID, "mode=755,size=64k") != 0)
    return os_error(attempt, errno);
  Fd folder(::open(scratch.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (std::size_t i = 0; i < sources.size(); ++i) {
    std::string name = std::to_string(i);
    Fd place(::openat(folder.get(), name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0400));
    if (!place || ::move_mount(sources[i].get(), "", folder.get(), name.c_str(),
                               MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return os_error(attempt, errno);
  }
  mount_attr fixed{};
  fixed.attr_set = MOUNT_ATTR_RDONLY;
  if (::mount_setattr(folder.get(), "", AT_EMPTY_PATH, &fixed, sizeof fixed) != 0)
    return os_error(attempt, errno);
  Fd out(::open_tree(folder.get(), "",
                     AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  if (!out) return os_error(attempt, errno);
  return out;
}

}  // namespace

Result<Fd> open_folder(const std::string& path, bool with_mounts_below, bool read_only) {
  const std::string attempt = sharing(path);
  HOBBES_TRY(out, clone_mount(path, with_mounts_below, read_only));
  struct stat info {};
  if (::fstat(out.get(), &info) != 0) return os_error(attempt, errno);
  if (!S_ISDIR(info.st_mode))
    return Error{Code::invalid, attempt, "it is not a folder", "share the folder it is in"};
  return std::move(out);
}

Result<Fd> open_files(const std::vector<SharedFile>& files, const std::string& scratch) {
  return put_together(sharing_files, [&] { return gather(files, scratch); });
}

// What the node's kernel and its running programs show is nothing for a guest, which has its own in
// those places: not even its monitor may reach it by this folder.
Result<Fd> open_host_root() {
  const std::string attempt = "share the node's root file system with the guest";
  return put_together(attempt, [&]() -> Result<Fd> {
    for (const char* own : {"/proc", "/sys", "/dev", "/run", "/tmp"}) {
      while (::umount2(own, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
      }
      if (::mount("none", own, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                  "mode=555,size=4k") != 0)
        return os_error(attempt + ": cover " + own, errno);
    }
    return clone_mount("/", true, true);
  });
}

bool is_the_guests(const std::string& destination) {
  const std::string memory = "/dev/shm";  // what programs on both sides share by name
  if (destination == memory || destination.rfind(memory + "/", 0) == 0) return false;
  for (const std::string own : {"/proc", "/sys", "/dev"})
    if (destination == own || destination.rfind(own + "/", 0) == 0) return true;
  return destination == "/run" || destination == "/";
}

Result<bool> is_folder(const std::string& source) {
  struct stat info {};
  if (::stat(source.c_str(), &info) != 0)
    return os_error(sharing(source), errno, "see mounts in the bundle");
  return S_ISDIR(info.st_mode);
}

Result<void> make_mount_points(const Bundle& bundle) {
  for (const char* point : {"/proc", "/sys", "/dev", "/run", "/tmp"})
    HOBBES_CHECK(open_target(bundle.rootfs(), point, false));
  for (const oci::Mount& mount : bundle.oci.mounts) {
    if (is_the_guests(mount.destination) || mount.destination.rfind("/dev/", 0) == 0) continue;
    bool folder = true;
    if (is_bind(mount)) {
      HOBBES_TRY(found, is_folder(bundle.source_of(mount)));
      folder = found;
    }
    HOBBES_CHECK(open_target(bundle.rootfs(), mount.destination, !folder));
  }
  return {};
}

}  // namespace hobbes
