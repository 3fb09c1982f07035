#include "core/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <optional>

namespace hobbes {
namespace {

constexpr int link_limit = 40;  // as the kernel follows

// One missing part below an open folder. Where a link stands that leads to nothing, what it names
// is made instead, by the caller.
Result<std::optional<std::string>> make_part(const Fd& parent, const std::string& part, bool file,
                                             const std::string& shown) {
  int rc = file ? ::mknodat(parent.get(), part.c_str(), S_IFREG | 0644, 0)
                : ::mkdirat(parent.get(), part.c_str(), 0755);
  if (rc == 0) return std::optional<std::string>();
  if (errno != EEXIST) return os_error("make " + shown + " in the root file system", errno);
  char target[PATH_MAX];
  ssize_t n = ::readlinkat(parent.get(), part.c_str(), target, sizeof target);
  if (n <= 0) return std::optional<std::string>();  // it has appeared meanwhile
  return std::optional(std::string(target, static_cast<std::size_t>(n)));
}

// `path` is resolved part by part; `links` is how many links may still be followed.
Result<Fd> open_or_make_within(const Fd& root, const std::string& path, bool file, int links) {
  auto found = open_beneath(root.get(), path, O_PATH);
  if (found || found.error().code != Code::not_found) return found;
  std::string done;
  for (std::size_t begin = 0; begin < path.size();) {
    std::size_t end = std::min(path.find('/', begin), path.size());
    std::string part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    std::string next = done + "/" + part;
    if (!open_beneath(root.get(), next, O_PATH)) {
      HOBBES_TRY(parent, open_beneath(root.get(), done.empty() ? "/" : done, O_PATH | O_DIRECTORY));
      bool leaf = end >= path.size();
      HOBBES_TRY(target, make_part(parent, part, leaf && file, next));
      if (target) {
        if (links == 0) return os_error("open " + path + " below the root", ELOOP);
        std::string rest = leaf ? "" : path.substr(end);
        return open_or_make_within(root,
                                   (target->front() == '/' ? *target : done + "/" + *target) + rest,
                                   file, links - 1);
      }
    }
    done = next;
  }
  return open_beneath(root.get(), path, O_PATH);
}

}  // namespace

Result<Fd> open_beneath(int root, const std::string& path, std::uint64_t flags,
                        std::uint64_t more) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | more;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
  if (!fd) return os_error("open " + path + " below the root", errno);
  return fd;
}

Result<Fd> open_root(const std::string& root) {
  Fd at(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) return os_error("open the root " + root, errno);
  return at;
}

Result<Fd> open_or_make(const Fd& root, const std::string& path, bool file) {
  return open_or_make_within(root, path, file, link_limit);
}

Result<Fd> open_target(const std::string& root, const std::string& path, bool file) {
  HOBBES_TRY(at, open_root(root));
  return open_or_make(at, path, file);
}

}  // namespace hobbes
