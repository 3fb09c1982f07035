// What hobbes-run has taken for a co-kernel and its control process needs to know: handed over as
// JSON in an argument.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "partition/module.h"

namespace hobbes {

struct TakenCore {
  unsigned cpu = 0, apic_id = 0;
};

struct KittenPlan {
  std::string name;
  std::uint64_t handle = 0;
  std::vector<TakenCore> cores;  ///< the first one boots first
  std::vector<Extent> extents;   ///< the first one holds the image
  std::uint64_t entry = 0;       ///< physical
  bool programs = false;         ///< it ends with its first program

  [[nodiscard]] Json json() const;
  static Result<KittenPlan> parse(const std::string& text);
};

/// Descriptors of the control process, in this order from 3 on.
enum KittenDescriptor : int {
  kitten_device = 3,
  kitten_program = 4,
  kitten_socket = 5,
  kitten_console = 6,
  kitten_first_program = 7  ///< a pidfd, where the enclave has one: the kernel ends with it
};

/// How long a co-kernel may be silent before it counts as crashed.
inline constexpr int kitten_deadline_seconds = 6;

}  // namespace hobbes
