#include "vmm/virtio/entropy.h"

#include <sys/random.h>

namespace hobbes::vmm {

Result<void> Entropy::notified(unsigned number) {
  for (;;) {
    HOBBES_TRY(chain, transport().queue(number).pop(transport().memory()));
    if (!chain) return {};
    std::byte bytes[256];
    ssize_t n = ::getrandom(bytes, sizeof bytes, GRND_NONBLOCK);
    std::uint64_t given = n > 0 ? chain->give(0, std::span<const std::byte>(bytes).first(static_cast<std::size_t>(n))) : 0;
    transport().finish(number, chain->head, given);
  }
}

}  // namespace hobbes::vmm
