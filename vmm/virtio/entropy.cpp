#include "vmm/virtio/entropy.h"

#include <sys/random.h>

namespace hobbes::vmm {

Result<void> Entropy::notified(unsigned number) {
  return transport().each(number, [](const DescriptorChain& chain) -> Result<std::uint64_t> {
    std::byte bytes[256];
    ssize_t n = ::getrandom(bytes, sizeof bytes, GRND_NONBLOCK);
    return n > 0
               ? chain.give(0, std::span<const std::byte>(bytes).first(static_cast<std::size_t>(n)))
               : 0;
  });
}

}  // namespace hobbes::vmm
