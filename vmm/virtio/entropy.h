// Random numbers from this node's kernel (virtio 1.2, 5.4).
#pragma once
#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

class Entropy final : public VirtioDevice {
 public:
  [[nodiscard]] std::uint32_t type() const override { return 4; }
  [[nodiscard]] unsigned queues() const override { return 1; }
  Result<void> notified(unsigned queue) override;
};

}  // namespace hobbes::vmm
