// A disk: a raw file or block device (virtio 1.2, 5.2).
#pragma once
#include <linux/virtio_blk.h>

#include "core/fd.h"
#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

class Block final : public VirtioDevice {
 public:
  /// Takes an open file. Errors: Code::invalid when it is no disk.
  static Result<Block> make(Fd file, bool read_only);
  [[nodiscard]] std::uint32_t type() const override { return 2; }
  [[nodiscard]] std::uint64_t features() const override;
  [[nodiscard]] unsigned queues() const override { return 1; }
  [[nodiscard]] std::span<const std::byte> configuration() const override {
    return std::as_bytes(std::span(&sectors_, 1));
  }
  Result<void> notified(unsigned queue) override;

 private:
  struct Answer {
    std::uint8_t status;
    std::uint64_t written;
  };
  [[nodiscard]] Answer serve(const DescriptorChain& chain) const;
  [[nodiscard]] bool transfer(const DescriptorChain& chain, std::uint64_t sector, bool write) const;

  Fd file_;
  bool read_only_ = false;
  std::uint64_t sectors_ = 0;
};

}  // namespace hobbes::vmm
