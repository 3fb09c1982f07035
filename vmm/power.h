// How a guest ends: ACPI's sleep and reset registers (ACPI 6.4, 4.8.3) and the panic port (QEMU's docs/specs/pvpanic).
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
inline constexpr std::uint8_t reset_value = HOBBES_VM_RESET;
static_assert(HOBBES_VM_POWER_OFF == (1U << 5U | sleep_type_off << 2U));

class SleepControl final : public Device {
 public:
  explicit SleepControl(std::function<void(Ending)> end) : end_(std::move(end)) {}
  void read(std::uint64_t, std::span<std::byte> data) override {
    for (std::byte& byte : data) byte = std::byte{0};
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    auto value = std::to_integer<unsigned>(data[0]);
    constexpr unsigned enable = 1U << 5U;
    if (offset == 0 && (value & enable) != 0 && (value >> 2U & 7U) == sleep_type_off) end_(Ending::powered_off);
  }

 private:
  std::function<void(Ending)> end_;
};

class ResetRegister final : public Device {
 public:
  explicit ResetRegister(std::function<void(Ending)> end) : end_(std::move(end)) {}
  void read(std::uint64_t, std::span<std::byte> data) override {
    for (std::byte& byte : data) byte = std::byte{0};
  }
  void write(std::uint64_t, std::span<const std::byte> data) override {
    if (std::to_integer<std::uint8_t>(data[0]) == reset_value) end_(Ending::rebooted);
  }

 private:
  std::function<void(Ending)> end_;
};

class PanicPort final : public Device {
 public:
  explicit PanicPort(std::function<void(Ending)> end) : end_(std::move(end)) {}
  void read(std::uint64_t, std::span<std::byte> data) override {
    for (std::byte& byte : data) byte = std::byte{HOBBES_VM_PANICKED};  // understands "panicked"
  }
  void write(std::uint64_t, std::span<const std::byte> data) override {
    if ((std::to_integer<unsigned>(data[0]) & HOBBES_VM_PANICKED) != 0) end_(Ending::panicked);
  }

 private:
  std::function<void(Ending)> end_;
};

}  // namespace hobbes::vmm
