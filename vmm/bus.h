// The addresses a guest reaches devices by: ports and memory-mapped registers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hobbes::vmm {

/// Called by any vCPU thread at any time; `data` is 1, 2, 4 or 8 bytes. Offsets are within the
/// range the device was added with.
class Device {
 public:
  virtual ~Device() = default;
  virtual void read(std::uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

/// Where nobody answers, reads are all ones and writes are lost, as on hardware. Not changed once
/// vCPUs run.
class Bus {
 public:
  void add(std::uint64_t base, std::uint64_t size, Device& device) {
    ranges_.push_back({base, size, &device});
  }
  void read(std::uint64_t address, std::span<std::byte> data) const {
    for (std::byte& byte : data) byte = std::byte{0xff};
    for (const Range& range : ranges_)
      if (range.holds(address, data.size())) return range.device->read(address - range.base, data);
  }
  void write(std::uint64_t address, std::span<const std::byte> data) const {
    for (const Range& range : ranges_)
      if (range.holds(address, data.size())) return range.device->write(address - range.base, data);
  }

 private:
  struct Range {
    std::uint64_t base, size;
    Device* device;
    [[nodiscard]] bool holds(std::uint64_t address, std::uint64_t length) const {
      return address >= base && address - base < size && length <= size - (address - base);
    }
  };
  std::vector<Range> ranges_;
};

}  // namespace hobbes::vmm
