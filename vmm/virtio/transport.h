// virtio over memory-mapped registers (virtio 1.2, 4.2), and what a device behind them is.
#pragma once
#include <functional>
#include <mutex>
#include <vector>

#include "vmm/bus.h"
#include "vmm/virtio/queue.h"

namespace hobbes::vmm {

class VirtioTransport;

/// The device's own part. Every method is called with the transport's lock held, by whichever
/// thread brings the news.
class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;
  [[nodiscard]] virtual std::uint32_t type() const = 0;
  [[nodiscard]] virtual std::uint64_t features() const { return 0; }
  [[nodiscard]] virtual unsigned queues() const = 0;
  [[nodiscard]] virtual std::span<const std::byte> configuration() const { return {}; }
  /// The guest has put something into a queue. Errors make the device unusable until it is reset.
  virtual Result<void> notified(unsigned queue) = 0;
  virtual void reset() {}
  struct SharedMemory {
    Gpa address = 0;
    std::uint64_t size = 0;  ///< bytes; 0: none
  };
  /// Its only shared-memory region (virtio 1.2, 2.10), with the id 0.
  [[nodiscard]] virtual SharedMemory shared_memory() const { return {}; }
  void attach(VirtioTransport& transport) { transport_ = &transport; }

 protected:
  [[nodiscard]] VirtioTransport& transport() const { return *transport_; }

 private:
  VirtioTransport* transport_ = nullptr;
};

/// Thread-safe.
class VirtioTransport final : public Device {
 public:
  /// `again`: makes notify(queue) come once more, soon.
  VirtioTransport(const GuestMemory& memory, VirtioDevice& device, std::function<void()> interrupt,
                  std::function<void(unsigned)> again);
  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;
  /// Work for the device: a notification of queue `number`.
  void notify(unsigned number);
  /// Runs something of the device's own under the lock.
  void locked(const std::function<Result<void>()>& act);

  // For the device, with the lock held.
  [[nodiscard]] Queue& queue(unsigned number) { return queues_[number]; }
  [[nodiscard]] const GuestMemory& memory() const { return memory_; }
  [[nodiscard]] bool running() const;
  /// Serves what waits in a queue, each request with `serve`, whose result is the number of bytes
  /// written; at most one queue's length, since the guest may add as fast as it is served. The rest
  /// comes by a notification of its own.
  Result<void> each(unsigned number,
                    const std::function<Result<std::uint64_t>(const DescriptorChain&)>& serve);
  /// Returns a request and tells the driver when it wants to be told.
  void finish(unsigned number, std::uint16_t head, std::uint64_t written);
  /// Tells the driver to look at the configuration again.
  void configuration_changed();

 private:
  [[nodiscard]] std::uint32_t read_register(std::uint64_t offset) const;
  [[nodiscard]] std::uint32_t read_memory_register(std::uint64_t offset) const;
  void write_register(std::uint64_t offset, std::uint32_t value);
  void set_status(std::uint32_t value);
  void settle(const Result<void>& done);

  const GuestMemory& memory_;
  VirtioDevice& device_;
  std::function<void()> interrupt_;
  std::function<void(unsigned)> again_;
  std::mutex lock_;
  std::vector<Queue> queues_;
  std::uint32_t status_ = 0, interrupts_ = 0, selected_queue_ = 0, selected_features_ = 0,
                selected_driver_features_ = 0, selected_memory_ = 0, generation_ = 0;
  std::uint64_t driver_features_ = 0;
};

inline constexpr std::uint64_t virtio_notify_offset = 0x50;

}  // namespace hobbes::vmm
