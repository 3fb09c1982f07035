// Small files and directories: the only way Hobbes touches sysfs, cgroupfs and its own state files.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// The narrow door to the file system. Tests put a faulty one behind it. Implementations are
/// stateless and thread-safe.
class Files {
 public:
  virtual ~Files() = default;
  /// The whole file, at most `limit` bytes; a larger file, and a pipe, whose other end may never
  /// come, is Code::invalid.
  [[nodiscard]] virtual Result<std::string> read(const std::string& path,
                                                 std::size_t limit = 1 << 20) const = 0;
  /// One write(2) of `text` to an existing file, as sysfs and cgroupfs want it.
  [[nodiscard]] virtual Result<void> write(const std::string& path,
                                           std::string_view text) const = 0;
  /// As write, for a file whose write may take long or never end: Code::timeout after that time.
  /// The calling thread is woken by SIGALRM, whose handling is as before afterwards; one caller of
  /// a process at a time.
  [[nodiscard]] virtual Result<void> write_within(const std::string& path, std::string_view text,
                                                  std::chrono::milliseconds time) const = 0;
  /// Creates one directory; an existing one is Code::exists.
  [[nodiscard]] virtual Result<void> make_directory(const std::string& path,
                                                    mode_t mode = 0755) const = 0;
  /// Removes one empty directory; a missing one is success.
  [[nodiscard]] virtual Result<void> remove_directory(const std::string& path) const = 0;
  /// Names in a directory without "." and "..", unsorted.
  [[nodiscard]] virtual Result<std::vector<std::string>> list(const std::string& path) const = 0;
  [[nodiscard]] virtual bool exists(const std::string& path) const = 0;

  /// The real file system; lives for the whole program.
  static const Files& system();
};

/// Creates every missing directory of an absolute path.
[[nodiscard]] Result<void> make_directories(const std::string& path, mode_t mode = 0755);
/// Replaces a file so that a reader, or a crash, sees the old or the new content and nothing
/// between.
[[nodiscard]] Result<void> replace_file(const std::string& path, std::string_view content,
                                        mode_t mode = 0644);
/// Removes a file or a whole tree without following links or crossing into mounts; a missing path
/// is success, and so is what others remove meanwhile.
[[nodiscard]] Result<void> remove_tree(const std::string& path);
/// Writes everything, retrying short writes and EINTR.
[[nodiscard]] Result<void> write_all(int fd, std::string_view data, const std::string& what);
/// All that a file, pipe or terminal of the caller's own has to say ("-" is standard input),
/// however long that takes; at most `limit` bytes.
[[nodiscard]] Result<std::string> read_stream(const std::string& path, std::size_t limit);
/// Where a symbolic link points.
[[nodiscard]] Result<std::string> read_link(const std::string& path);
/// `path` made absolute against the working directory, with ".", ".." and double slashes folded
/// lexically.
[[nodiscard]] std::string absolute(const std::string& path);

}  // namespace hobbes
