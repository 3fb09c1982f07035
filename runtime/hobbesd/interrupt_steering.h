// Keeps the interrupts of devices off cores that enclaves have to themselves, where the site's
// policy says so.
#pragma once
#include <map>
#include <string>

#include "core/cpu_set.h"
#include "core/file.h"
#include "core/json.h"

namespace hobbes {

/// Writes /proc/irq/N/smp_affinity_list (Documentation/core-api/irq/irq-affinity.rst). Where each
/// interrupt was before is kept in a file, so that a hobbesd that takes over puts it back. What
/// somebody else writes meanwhile counts as where it was. Interrupts that the kernel does not move,
/// and those that would have no CPU left, stay. Not thread-safe.
class InterruptSteering {
 public:
  /// `interrupts`: the folder of the kernel; `memory`: the file.
  explicit InterruptSteering(std::string memory, std::string interrupts = "/proc/irq",
                             const Files& files = Files::system())
      : memory_(std::move(memory)), folder_(std::move(interrupts)), files_(files) {}

  /// From now on no interrupt that can be moved arrives at `cpus`; those of an earlier call that
  /// are not among them get theirs back. Does nothing when called again with the same. Errors:
  /// Code::os when the file cannot be written; no interrupt has been moved then.
  Result<void> keep_off(const CpuSet& cpus);

 private:
  struct Moved {
    std::string before, now;  // lists of CPUs
  };
  using Interrupts = std::map<std::string, Moved>;
  Result<Interrupts> remembered() const;
  Result<void> remember(const Interrupts& moved) const;

  std::string memory_, folder_;
  const Files& files_;
  CpuSet cpus_;
  bool called_ = false;
};

}  // namespace hobbes
