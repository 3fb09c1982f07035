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
/// somebody else writes meanwhile counts as where it was. Interrupts that the kernel does not move
/// stay. Takes three system calls for each interrupt; not thread-safe.
class InterruptSteering {
 public:
  /// `interrupts`: the folder of the kernel; `memory`: the file.
  explicit InterruptSteering(std::string memory, std::string interrupts = "/proc/irq",
                             const Files& files = Files::system())
      : memory_(std::move(memory)), folder_(std::move(interrupts)), files_(files) {}

  /// Moves every interrupt that is there now and can be moved off `cpus`; those of an earlier call
  /// get their other CPUs back. One that would have no CPU left has all of its own. Called again,
  /// it finds interrupts that are new, and tries again what failed. Errors: those of reading the
  /// folder and of the file, after which some may have been moved and none is forgotten;
  /// Code::corrupt for a file that cannot be understood, which is put aside.
  Result<void> keep_off(const CpuSet& cpus) const;

 private:
  struct Moved {
    std::string home, now, next;  // lists of CPUs: before all, and around a move
    bool operator==(const Moved&) const = default;
  };
  using Interrupts = std::map<std::string, Moved>;
  [[nodiscard]] Result<Interrupts> remembered() const;
  [[nodiscard]] Result<void> remember(const Interrupts& moved) const;
  [[nodiscard]] Result<Interrupts> plan(const Interrupts& before, const CpuSet& cpus) const;
  [[nodiscard]] std::string place_of(const std::string& number) const {
    return folder_ + "/" + number + "/smp_affinity_list";
  }

  std::string memory_, folder_;
  const Files& files_;
};

}  // namespace hobbes
