// How a guest ends: ACPI's sleep and reset registers (ACPI 6.4, 4.8.3) and the panic port (QEMU's
// docs/specs/pvpanic).
#pragma once
#include <functional>

#include "abi/vm.h"
#include "vmm/bus.h"

namespace hobbes::vmm {

/// Why the machine stopped.
enum class Ending { powered_off, rebooted, panicked, triple_fault, failed };

constexpr const char* name_of(Ending ending) {
  switch (ending) {
    case Ending::powered_off:
      return "powered off";
    case Ending::rebooted:
      return "rebooted";
    case Ending::panicked:
      return "its kernel panicked";
    case Ending::triple_fault:
      return "triple fault";
    case Ending::failed:
      break;
  }
  return "failed";
}

inline constexpr std::uint8_t sleep_type_off = 5;
static_assert(HOBBES_VM_POWER_OFF == (1U << 5U | sleep_type_off << 2U));

/// A register that ends the machine when the agreed value is written to its first byte; everything
/// else is ignored.
class EndRegister final : public Device {
 public:
  EndRegister(std::uint8_t agreed, std::uint8_t reads_as, std::function<void()> end)
      : agreed_(agreed), reads_as_(reads_as), end_(std::move(end)) {}
  void read(std::uint64_t, std::span<std::byte> data) override {
    for (std::byte& byte : data) byte = std::byte{reads_as_};
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    if (offset == 0 && std::to_integer<std::uint8_t>(data[0]) == agreed_) end_();
  }

 private:
  std::uint8_t agreed_, reads_as_;
  std::function<void()> end_;
};

}  // namespace hobbes::vmm
