#include "enclave/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "bundle/bundle.h"
#include "core/beneath.h"
#include "core/file.h"
#include "core/identity.h"

namespace hobbes {
namespace {

constexpr int deepest = 256;  // folders in folders; each is a descriptor or two
constexpr std::size_t part = 1 << 20;

Result<Place> in_machine(const EnclaveRecord& record, const std::string& path) {
  const std::string attempt = "find " + path + " in enclave '" + record.id + "'";
  HOBBES_TRY(text, Files::system().read(record.folder() + "/config.json", json_size_limit));
  HOBBES_TRY(config, parse_json(text, "config.json"));
  const Json root = config.value("root", Json::object());
  std::string folder = root.is_object() ? text_at(root, "path") : "";
  if (folder.empty())
    return Error{Code::unsupported, attempt,
                 "the files of this virtual machine are its own image's",
                 "copy them through a program: hobbes-run exec"};
  if (folder.front() != '/') folder = record.bundle + "/" + folder;
  for (const Json& mount : config.value("mounts", Json::array())) {
    const std::string at = absolute(text_at(mount, "destination"));
    if (at != "/" && (path + "/").rfind(at + "/", 0) == 0)
      return Error{Code::unsupported, attempt, at + " is a mount of the virtual machine",
                   "use its source on the node: " + text_at(mount, "source")};
  }
  HOBBES_TRY(opened, open_root(folder));
  return Place{std::move(opened), path};
}

Result<Place> in_enclave(const EnclaveRecord& record, const std::string& path) {
  if (record.kind == Kind::palacios) return in_machine(record, path);
  const std::string attempt = "find " + path + " in enclave '" + record.id + "'";
  if (!record.process.alive()) return not_running(record, attempt);
  if (record.kind == Kind::kitten) {
    HOBBES_TRY(text, Files::system().read(record.folder() + "/config.json", json_size_limit));
    HOBBES_TRY(config, parse_json(text, "config.json"));
    if (!config.contains("process"))
      return Error{Code::unsupported, attempt, "the enclave is a kernel without programs",
                   "give its bundle a process"};
  }
  const std::string link = "/proc/" + std::to_string(record.process.pid) + "/root";
  Fd root(::open(link.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return os_error(attempt, errno, "only its user and root may");
  if (!record.process.alive()) return not_running(record, attempt);  // it may be another one's
  return Place{std::move(root), path};
}

struct Split {
  std::string folder, name;
};
Split split(const std::string& path) {
  const std::size_t at = path.rfind('/');
  return {path.substr(0, at == 0 ? 1 : at), path.substr(at + 1)};
}

// Only what is a regular file is ever opened: to open a device or a pipe has effects.
Result<Fd> opened_regular(const Fd& pin, int flags, const std::string& attempt) {
  struct stat info {};
  if (::fstat(pin.get(), &info) != 0) return os_error(attempt, errno);
  if (!S_ISREG(info.st_mode))
    return Error{Code::unsupported, attempt, "it is no regular file", "leave it out"};
  Fd out(::open(("/proc/self/fd/" + std::to_string(pin.get())).c_str(), flags | O_CLOEXEC));
  if (!out) return os_error(attempt, errno);
  return out;
}

class Copy {
 public:
  explicit Copy(const std::function<void(const Copied&)>& progress) : progress_(progress) {}
  [[nodiscard]] const Copied& copied() const { return copied_; }

  Result<void> entry(int from, const std::string& name, int to, const std::string& as, int depth) {
    const std::string attempt = "copy " + name;
    struct stat info {};
    if (::fstatat(from, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return os_error(attempt, errno);
    if (S_ISREG(info.st_mode)) return file(from, name, to, as);
    if (S_ISLNK(info.st_mode)) return link(from, name, to, as);
    if (S_ISDIR(info.st_mode)) return folder(from, name, to, as, depth);
    return Error{Code::unsupported, attempt, "it is a device, a pipe or a socket", "leave it out"};
  }

 private:
  Result<void> file(int from, const std::string& name, int to, const std::string& as) {
    const std::string attempt = "copy " + name;
    Fd pin(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!pin) return os_error(attempt, errno);
    HOBBES_TRY(in, opened_regular(pin, O_RDONLY, attempt));
    Fd out(::openat(to, as.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!out && errno == EEXIST) {
      Fd there(::openat(to, as.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      if (!there) return os_error(attempt, errno);
      HOBBES_TRY(opened, opened_regular(there, O_WRONLY, attempt));
      out = std::move(opened);
    }
    struct stat info {
    }, target{};
    if (!out || ::fstat(in.get(), &info) != 0 || ::fstat(out.get(), &target) != 0)
      return os_error(attempt, errno);
    if (info.st_dev == target.st_dev && info.st_ino == target.st_ino)
      return Error{Code::invalid, attempt, "it would be copied onto itself", ""};
    if (::ftruncate(out.get(), 0) != 0) return os_error(attempt, errno);
    std::unique_ptr<char[]> buffer(new char[part]);
    for (;;) {
      ssize_t n = ::read(in.get(), buffer.get(), part);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error(attempt, errno);
      if (n == 0) break;
      HOBBES_CHECK(write_all(out.get(), {buffer.get(), static_cast<std::size_t>(n)}, as));
      copied_.bytes += static_cast<std::uint64_t>(n);
      progress_(copied_);
    }
    const timespec times[2] = {info.st_atim, info.st_mtim};
    if (::fchmod(out.get(), info.st_mode & 0777) != 0 || ::futimens(out.get(), times) != 0)
      return os_error(attempt, errno);
    ++copied_.files;
    return {};
  }

  Result<void> link(int from, const std::string& name, int to, const std::string& as) {
    char target[PATH_MAX + 1] = {};
    ssize_t n = ::readlinkat(from, name.c_str(), target, PATH_MAX);
    if (n < 0) return os_error("copy " + name, errno);
    if (::symlinkat(target, to, as.c_str()) != 0 &&
        (errno != EEXIST || ::unlinkat(to, as.c_str(), 0) != 0 ||
         ::symlinkat(target, to, as.c_str()) != 0))
      return os_error("copy " + name, errno);
    ++copied_.files;
    return {};
  }

  Result<void> folder(int from, const std::string& name, int to, const std::string& as, int depth) {
    const std::string attempt = "copy " + name;
    if (depth >= deepest) return Error{Code::unsupported, attempt, "folders nest too deep", ""};
    constexpr int how = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    Fd in(::openat(from, name.c_str(), how));
    struct stat info {};
    if (!in || ::fstat(in.get(), &info) != 0) return os_error(attempt, errno);
    if (::mkdirat(to, as.c_str(), 0700) != 0 && errno != EEXIST) return os_error(attempt, errno);
    Fd out(::openat(to, as.c_str(), how));
    struct stat target {};
    if (!out || ::fstat(out.get(), &target) != 0) return os_error(attempt, errno);
    made_.emplace_back(target.st_dev, target.st_ino);
    for (const auto& [device, inode] : made_)
      if (info.st_dev == device && info.st_ino == inode)
        return Error{Code::invalid, attempt, "it would be copied into itself", ""};
    std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(::dup(in.get())), &::closedir);
    if (!list) return os_error(attempt, errno);
    std::vector<std::string> names;
    while (const dirent* one = ::readdir(list.get()))
      if (std::string(one->d_name) != "." && std::string(one->d_name) != "..")
        names.emplace_back(one->d_name);
    for (const std::string& inner : names) {
      auto done = entry(in.get(), inner, out.get(), inner, depth + 1);
      if (!done) return std::move(done.error()).within(attempt);
    }
    if (::fchmod(out.get(), info.st_mode & 0777) != 0) return os_error(attempt, errno);
    return {};
  }

  const std::function<void(const Copied&)>& progress_;
  Copied copied_;
  std::vector<std::pair<dev_t, ino_t>> made_;  // a copy into itself would never end
};

}  // namespace

Result<Place> place_named(const std::string& state_root, const std::string& text) {
  const std::size_t colon = text.find(':');
  // As docker has it: a path with a slash before its colon is a path.
  if (colon == std::string::npos || text.find('/') < colon) {
    HOBBES_TRY(root, open_root("/"));
    return Place{std::move(root), absolute(text)};
  }
  const std::string id = text.substr(0, colon), path = "/" + text.substr(colon + 1);
  HOBBES_CHECK(check_id(id));
  HOBBES_TRY(record, EnclaveRecord::load(state_root, id));
  return in_enclave(record, absolute(path));
}

Result<Fd> open_file(const Place& place) {
  HOBBES_TRY(pin, open_beneath(place.root.get(), place.path, O_PATH | O_CLOEXEC));
  return opened_regular(pin, O_RDONLY, "read " + place.path);
}

Result<Copied> copy_tree(const Place& from, const Place& to,
                         const std::function<void(const Copied&)>& progress) {
  const Split source = split(from.path);
  Split target = split(to.path);
  const std::string attempt = "copy " + from.path;
  if (source.name.empty())
    return Error{Code::invalid, attempt, "it is a root directory", "name what is in it"};
  constexpr std::uint64_t folder = O_PATH | O_DIRECTORY | O_CLOEXEC;
  auto in = open_beneath(from.root.get(), source.folder, folder);
  if (!in) return std::move(in.error()).within(attempt);
  if (auto existing = open_beneath(to.root.get(), to.path, folder)) {
    Copy copy(progress);
    HOBBES_CHECK(copy.entry(in->get(), source.name, existing->get(), source.name, 0));
    return copy.copied();
  }
  auto out = open_beneath(to.root.get(), target.folder, folder);
  if (!out) return std::move(out.error()).within(attempt + " to " + to.path);
  Copy copy(progress);
  HOBBES_CHECK(copy.entry(in->get(), source.name, out->get(), target.name, 0));
  return copy.copied();
}

}  // namespace hobbes
