// The kernel's own files below /proc, reached without believing a path.
#pragma once
#include <string>
#include <string_view>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// /proc as it was when this was made: what anybody mounts or links there later changes nothing.
/// Not thread-safe, like any value.
class ProcFs {
 public:
  /// Errors: Code::corrupt, what is at /proc is no procfs; Code::os.
  static Result<ProcFs> open();
  /// Opens a file by its path below /proc, such as "self/oom_score_adj". No link is followed but
  /// "self" and "thread-self", no other mount is entered, and what is found is a procfs file.
  /// Errors: Code::not_found, Code::denied, Code::corrupt.
  [[nodiscard]] Result<Fd> file(const std::string& path, int flags) const;
  /// One write(2) to such a file.
  [[nodiscard]] Result<void> write(const std::string& path, std::string_view text) const;

 private:
  explicit ProcFs(Fd root) : root_(std::move(root)) {}
  Fd root_;
};

/// "net.ipv4.conf.eth0/7.forwarding" or "net/ipv4/conf/eth0.7/forwarding" as a path below
/// /proc/sys: the separator that comes first separates, and the other one stands for it inside a
/// part (sysctl(8)).
std::string sysctl_path(std::string name);
/// The type of the namespace (as the runtime-spec names it) that a parameter below /proc/sys is of;
/// empty: it is the whole kernel's.
std::string namespace_of_parameter(const std::string& path);

}  // namespace hobbes
