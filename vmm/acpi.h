// The tables by which a guest finds its processors and devices (ACPI 6.4; hardware-reduced: no
// legacy chips).
#pragma once
#include <vector>

#include "vmm/memory.h"

namespace hobbes::vmm {

struct AcpiMachine {
  unsigned cpus = 1;
  struct Virtio {
    Gpa address;
    unsigned gsi;
  };
  std::vector<Virtio> virtio;
};

/// Writes them at acpi_at; the result is the root pointer's address. Errors: Code::exhausted when
/// they do not fit there.
Result<Gpa> write_acpi(const GuestMemory& memory, const AcpiMachine& machine);

}  // namespace hobbes::vmm
