#include "core/procfs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

namespace hobbes {
namespace {

bool is_procfs(const Fd& fd) {
  struct statfs info {};
  return ::fstatfs(fd.get(), &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

Error no_procfs(const std::string& path) {
  return {Code::corrupt, "use " + path, "it is not the kernel's own (procfs)",
          "mount proc at /proc and nothing over it"};
}

}  // namespace

Result<ProcFs> ProcFs::open() {
  Fd root(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!root) return os_error("open /proc", errno);
  if (!is_procfs(root)) return no_procfs("/proc");
  return ProcFs(std::move(root));
}

Result<Fd> ProcFs::file(const std::string& path, int flags) const {
  // "self" is a link of the kernel's: it is resolved here, the rest is not allowed any.
  std::string below = path;
  if (below.rfind("self/", 0) == 0) {
    char number[32] = {};
    if (::readlinkat(root_.get(), "self", number, sizeof number - 1) <= 0)
      return os_error("find this process in /proc", errno);
    below = std::string(number) + below.substr(4);
  }
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOCTTY);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  Fd out(static_cast<int>(::syscall(SYS_openat2, root_.get(), below.c_str(), &how, sizeof how)));
  if (!out) return os_error("open /proc/" + path, errno);
  if (!is_procfs(out)) return no_procfs("/proc/" + path);
  return out;
}

Result<void> ProcFs::write(const std::string& path, std::string_view text) const {
  HOBBES_TRY(fd, file(path, O_WRONLY));
  ssize_t n = ::write(fd.get(), text.data(), text.size());
  if (n == static_cast<ssize_t>(text.size())) return {};
  return os_error("write '" + std::string(text.substr(0, 80)) + "' to /proc/" + path,
                  n < 0 ? errno : EIO);
}

std::string namespace_of_parameter(const std::string& path) {
  auto below = [&](const char* prefix) { return path.rfind(prefix, 0) == 0; };
  if (below("net/")) return "network";
  if (below("kernel/msg") || below("kernel/shm") || path == "kernel/sem" || below("fs/mqueue/"))
    return "ipc";
  if (path == "kernel/domainname" || path == "kernel/hostname") return "uts";
  if (below("user/")) return "user";
  return "";
}

std::string sysctl_path(std::string name) {
  std::size_t first = name.find_first_of("./");
  if (first == std::string::npos || name[first] == '/') return name;
  for (char& c : name) c = c == '.' ? '/' : c == '/' ? '.' : c;
  return name;
}

}  // namespace hobbes
