// A 16550A serial port (National Semiconductor PC16550D data sheet): the console of a kernel that
// has no better one yet.
#pragma once
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "vmm/bus.h"

namespace hobbes::vmm {

/// Thread-safe. What the guest writes is given to `sink` at once, on the vCPU's thread.
class Serial final : public Device {
 public:
  Serial(std::function<void(char)> sink, std::function<void()> interrupt)
      : sink_(std::move(sink)), interrupt_(std::move(interrupt)) {}
  /// What somebody types, taken as far as there is room: returns how many bytes. When not all were,
  /// `room` is called once there is some.
  std::size_t type(std::string_view text);
  /// Called on the vCPU's thread. Before the guest runs.
  void on_room(std::function<void()> room) { room_ = std::move(room); }
  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

 private:
  [[nodiscard]] std::uint8_t identification();
  void raise_if_wanted();

  std::mutex lock_;
  std::function<void(char)> sink_;
  std::function<void()> interrupt_, room_ = [] {};
  std::deque<char> input_;  // typed, or looped back
  std::uint8_t enabled_ = 0, line_ = 0, modem_ = 0, scratch_ = 0;
  std::uint16_t divisor_ = 12;
  bool transmitter_asks_ = false, room_wanted_ = false;
};

}  // namespace hobbes::vmm
