// The machine as programs of a co-kernel see it: its processors and its memory in the files of
// /proc and /sys where libraries look for them. Linux's own show what Linux has left.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/cpu_set.h"
#include "core/file.h"
#include "core/result.h"

namespace hobbes {

/// A folder of such files, as long as the enclave is there.
class MachineFiles {
 public:
  /// `system`: of the node, whose /proc and /sys are read.
  explicit MachineFiles(std::string folder, const Files& system = Files::system())
      : folder_(std::move(folder)), system_(system) {}

  /// Writes them for these processors and this memory, by NUMA node in bytes; before processors are
  /// taken from Linux, which forgets them then. What was written for one before stays. Files that
  /// are mounted already show it. Errors: Code::os.
  Result<void> write(const CpuSet& cpus, const std::map<unsigned, std::uint64_t>& memory) const;
  /// What shows them in a sandbox with these mounts: those that lie in its /proc and /sys.
  [[nodiscard]] std::vector<oci::Mount> mounts(const Bundle& bundle) const;

 private:
  [[nodiscard]] Result<void> copy_processor(unsigned cpu) const;
  [[nodiscard]] Result<void> put(const std::string& name, const std::string& text) const;

  std::string folder_;
  const Files& system_;
};

}  // namespace hobbes
