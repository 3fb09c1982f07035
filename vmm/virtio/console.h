// A console (virtio 1.2, 5.3), one port: whole lines for one notification, where a serial port
// costs an exit for each character.
#pragma once
#include <linux/virtio_console.h>

#include <atomic>
#include <functional>
#include <string_view>

#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

/// Thread-safe once the machine is made.
class Console final : public VirtioDevice {
 public:
  /// What the guest prints is given to `sink` piece by piece, on the thread that brings the
  /// notification.
  explicit Console(std::function<void(std::string_view)> sink) : sink_(std::move(sink)) {}
  [[nodiscard]] std::uint32_t type() const override { return 3; }
  [[nodiscard]] std::uint64_t features() const override { return 1ULL << VIRTIO_CONSOLE_F_SIZE; }
  [[nodiscard]] unsigned queues() const override { return 2; }
  [[nodiscard]] std::span<const std::byte> configuration() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  Result<void> notified(unsigned queue) override;
  void reset() override;

  /// The guest prints here. A driver alone is no sign of somebody who reads.
  [[nodiscard]] bool used() const { return used_; }
  /// What somebody types, taken as far as the guest has given room: returns how many bytes. When
  /// not all were, `room` is called once there may be some, or nobody wants them any more.
  std::size_t type(std::string_view text);
  /// Called with the transport's lock held. Before the guest runs.
  void on_room(std::function<void()> room) { room_ = std::move(room); }
  /// The window's size in characters, which the guest's driver may look at.
  void resize(std::uint16_t columns, std::uint16_t rows);

  static constexpr std::size_t piece = 4096;
  static constexpr std::uint64_t request_limit =
      64 * 1024;  ///< of what is longer, the rest is dropped

 private:
  std::function<void(std::string_view)> sink_;
  std::function<void()> room_ = [] {};
  virtio_console_config config_{};
  std::atomic<bool> used_{false};
  bool room_wanted_ = false;
};

}  // namespace hobbes::vmm
