// The page that keeps a memory block from leaving Linux, and whose it is. The kernel names such a
// page only in its log (dump_page() in mm/debug.c, called by mm/memory_hotplug.c and
// mm/page_isolation.c).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"

namespace hobbes {

/// The kernel's log from the construction on. One thread.
class KernelLog {
 public:
  KernelLog();
  /// What was written since, a line per record; what cannot be read (no rights, overwritten
  /// meanwhile) is missing.
  [[nodiscard]] std::string since();

 private:
  Fd log_;
};

/// A page that could not be moved.
struct UnmovablePage {
  std::uint64_t address = 0;  ///< physical, bytes
  std::string reason;         ///< the kernel's word: "migration failure", "unmovable page"
};
/// The last page of a range of physical memory (bytes) that a log names as held; nothing: it names
/// none.
std::optional<UnmovablePage> unmovable_page(std::string_view log, std::uint64_t address,
                                            std::uint64_t size);

/// A process by its number and name.
struct Process {
  int pid = 0;
  std::string name;
};
/// The processes (at most three) that map a page. Needs CAP_SYS_ADMIN, without which nobody is
/// found, and stops looking after three seconds.
std::vector<Process> who_maps(const UnmovablePage& page);

/// "page 0x129000000 (migration failure), which process 812 (lmp) maps".
std::string describe(const UnmovablePage& page, const std::vector<Process>& mappers);

}  // namespace hobbes
