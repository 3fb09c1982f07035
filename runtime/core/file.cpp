#include "core/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace hobbes {
namespace {

// Interrupts this thread's system call once its time is over, and again every 50 ms: the first
// signal may come before the call.
class Alarm {
 public:
  explicit Alarm(std::chrono::milliseconds time) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, &before_);
    sigset_t alarm;
    ::sigemptyset(&alarm);
    ::sigaddset(&alarm, SIGALRM);
    ::pthread_sigmask(SIG_UNBLOCK, &alarm, &mask_);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = ::gettid();
    armed_ = ::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    itimerspec spec{};
    spec.it_value.tv_sec = time.count() / 1000;
    spec.it_value.tv_nsec = time.count() % 1000 * 1'000'000;
    spec.it_interval.tv_nsec = 50'000'000;
    if (armed_) ::timer_settime(timer_, 0, &spec, nullptr);
  }
  [[nodiscard]] bool armed() const { return armed_; }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() {
    if (armed_) ::timer_delete(timer_);
    ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  timer_t timer_{};
  bool armed_ = false;
  struct sigaction before_ {};
  sigset_t mask_{};
};

Result<void> written(ssize_t n, std::string_view text, const std::string& path) {
  if (n < 0) return os_error("write '" + std::string(text.substr(0, 80)) + "' to " + path, errno);
  if (static_cast<std::size_t>(n) != text.size())
    return Error{Code::os, "write " + path, "the kernel took only a part", ""};
  return {};
}

Result<std::string> read_all(const Fd& fd, const std::string& path, std::size_t limit) {
  std::string out;
  char chunk[8192];
  for (;;) {
    ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error("read " + path, errno);
    if (n == 0) return out;
    out.append(chunk, static_cast<std::size_t>(n));
    if (out.size() > limit)
      return Error{Code::invalid, "read " + path,
                   "it is larger than " + std::to_string(limit) + " bytes", ""};
  }
}

class SystemFiles final : public Files {
 public:
  Result<std::string> read(const std::string& path, std::size_t limit) const override {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!fd) return os_error("read " + path, errno);
    struct stat info {};
    if (::fstat(fd.get(), &info) == 0 && S_ISFIFO(info.st_mode))
      return Error{Code::invalid, "read " + path, "it is a pipe", "name a file"};
    return read_all(fd, path, limit);
  }

  Result<void> write(const std::string& path, std::string_view text) const override {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (!fd) return os_error("write " + path, errno);
    ssize_t n = 0;
    do {
      n = ::write(fd.get(), text.data(), text.size());
    } while (n < 0 && errno == EINTR);
    return written(n, text, path);
  }

  Result<void> write_within(const std::string& path, std::string_view text,
                            std::chrono::milliseconds time) const override {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (!fd) return os_error("write " + path, errno);
    Alarm alarm(time);
    if (!alarm.armed()) return os_error("set a time limit for writing " + path, errno);
    ssize_t n = ::write(fd.get(), text.data(), text.size());
    if (n < 0 && errno == EINTR)
      return Error{Code::timeout, "write " + path,
                   "it was not done within " + std::to_string(time.count()) + " ms", ""};
    return written(n, text, path);
  }

  Result<void> make_directory(const std::string& path, mode_t mode) const override {
    if (::mkdir(path.c_str(), mode) != 0) return os_error("create directory " + path, errno);
    return {};
  }

  Result<void> remove_directory(const std::string& path) const override {
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT)
      return os_error("remove directory " + path, errno);
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& path) const override {
    DIR* dir = ::opendir(path.c_str());
    if (dir == nullptr) return os_error("list " + path, errno);
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(dir)) {
      std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    ::closedir(dir);
    return names;
  }

  bool exists(const std::string& path) const override { return ::access(path.c_str(), F_OK) == 0; }
};

// Takes away what is below a folder. Programs may have nested folders as deep as they like, so what
// is deeper than `depth_limit` is moved to the top and is that folder's next entry.
class TreeRemoval {
 public:
  explicit TreeRemoval(int top) : top_(top) {}
  Result<void> run(const std::string& path) {
    constexpr int rounds = 10'000;  // somebody may still make more
    for (int round = 0; round < rounds; ++round) {
      moved_ = false;
      HOBBES_CHECK(empty(top_, path, 0));
      if (!moved_) break;
    }
    return {};
  }

 private:
  static constexpr unsigned depth_limit = 100;

  Result<void> empty(int folder, const std::string& path, unsigned depth) {
    const int opened = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return unless_gone(path);
    DIR* stream = ::fdopendir(opened);
    if (stream == nullptr) return os_error("remove " + path, errno);
    Result<void> result;
    while (const dirent* entry = ::readdir(stream)) {
      std::string_view child = entry->d_name;
      if (child == "." || child == "..") continue;
      result = remove(folder, entry->d_name, path + "/" + entry->d_name, depth);
      if (!result) break;
    }
    ::closedir(stream);
    return result;
  }

  // Another process may be removing the same tree: what is gone is what was wanted.
  static Result<void> unless_gone(const std::string& path) {
    if (errno == ENOENT) return {};
    return os_error("remove " + path, errno);
  }

  Result<void> remove(int folder, const char* name, const std::string& path, unsigned depth) {
    if (::unlinkat(folder, name, 0) == 0) return {};
    if (errno != EISDIR && errno != EPERM && errno != EBUSY) return unless_gone(path);
    if (::unlinkat(folder, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return {};
    if (depth == depth_limit) {
      const std::string place = ".deep." + std::to_string(next_++);
      if (::renameat2(folder, name, top_, place.c_str(), RENAME_NOREPLACE) != 0 && errno != EEXIST)
        return unless_gone(path);
      moved_ = true;
      return {};
    }
    Fd child(::openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child) return unless_gone(path);
    HOBBES_CHECK(empty(child.get(), path, depth + 1));
    if (::unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno != ENOENT && !moved_)
      return os_error("remove " + path, errno);
    return {};
  }

  int top_;
  unsigned next_ = 0;
  bool moved_ = false;
};

}  // namespace

const Files& Files::system() {
  static const SystemFiles files;
  return files;
}

Result<void> make_directories(const std::string& path, mode_t mode) {
  for (std::size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    std::string prefix = path.substr(0, at);
    if (at != std::string::npos) ++at;
    if (::mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST && errno != EISDIR) {
      // A parent we may not write to can still exist; only a missing one is an error.
      if (int error = errno; ::access(prefix.c_str(), F_OK) != 0)
        return os_error("create directory " + prefix, error);
    }
  }
  return {};
}

Result<void> replace_file(const std::string& path, std::string_view content, mode_t mode) {
  std::string temporary = path + ".new." + std::to_string(::getpid());
  // In a folder of others, what waits under that name is not ours to write through.
  (void)::unlink(temporary.c_str());
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd) return os_error("write " + path, errno);
  HOBBES_CHECK(write_all(fd.get(), content, path));
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    int error = errno;
    ::unlink(temporary.c_str());
    return os_error("replace " + path, error);
  }
  return {};
}

Result<void> remove_tree(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM && errno != EBUSY) return os_error("remove " + path, errno);
  Fd top(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!top && errno == ENOENT) return {};
  if (!top) return os_error("remove " + path, errno);
  HOBBES_CHECK(TreeRemoval(top.get()).run(path));
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return os_error("remove " + path, errno);
  return {};
}

Result<void> write_all(int fd, std::string_view data, const std::string& what) {
  while (!data.empty()) {
    ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error("write " + what, errno);
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<std::string> read_stream(const std::string& path, std::size_t limit) {
  Fd fd(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return os_error("read " + path, errno);
  return read_all(fd, path, limit);
}

Result<std::string> read_link(const std::string& path) {
  char target[PATH_MAX];
  ssize_t n = ::readlink(path.c_str(), target, sizeof target);
  if (n < 0) return os_error("read link " + path, errno);
  return std::string(target, static_cast<std::size_t>(n));
}

std::string absolute(const std::string& path) {
  std::error_code ignored;
  std::string folded = std::filesystem::absolute(path, ignored).lexically_normal().string();
  while (folded.size() > 1 && folded.back() == '/') folded.pop_back();
  return folded;
}

}  // namespace hobbes
