// Memory that comes and goes while the guest runs (virtio 1.2, 5.15): a region of addresses, of
// which the guest plugs as much as is requested.
#pragma once
#include <linux/virtio_mem.h>

#include <atomic>
#include <vector>

#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

class VirtioMem final : public VirtioDevice {
 public:
  /// `region` is address space with memory behind it, in whole blocks; nothing of it is plugged
  /// yet.
  explicit VirtioMem(const Region& region);
  [[nodiscard]] std::uint32_t type() const override { return 24; }
  [[nodiscard]] unsigned queues() const override { return 1; }
  [[nodiscard]] std::span<const std::byte> configuration() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  Result<void> notified(unsigned queue) override;

  /// Asks the guest to have this many bytes plugged, in whole blocks; it does so when it can, or
  /// not at all. On any thread.
  void request(std::uint64_t bytes);
  /// Bytes the guest has plugged. On any thread.
  [[nodiscard]] std::uint64_t plugged() const { return plugged_; }

  static constexpr std::uint64_t block = 2 * mib;

 private:
  std::uint16_t serve(const virtio_mem_req& request, std::uint16_t& state);
  void set(std::uint64_t first, std::uint64_t count, bool plugged);

  Region region_;
  virtio_mem_config config_{};
  std::vector<bool> blocks_;  // plugged
  std::atomic<std::uint64_t> plugged_{0};
};

}  // namespace hobbes::vmm
