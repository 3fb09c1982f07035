#include "vmm/virtio/mem.h"

#include <sys/mman.h>

#include <algorithm>

namespace hobbes::vmm {

VirtioMem::VirtioMem(const Region& region) : region_(region), blocks_(region.size / block) {
  config_.block_size = block;
  config_.addr = region.address;
  config_.region_size = config_.usable_region_size = region.size;
}

void VirtioMem::set(std::uint64_t first, std::uint64_t count, bool plugged) {
  std::fill_n(blocks_.begin() + static_cast<std::ptrdiff_t>(first), count, plugged);
  // What is unplugged is the node's again.
  if (!plugged) (void)::madvise(region_.host + first * block, count * block, MADV_DONTNEED);
  auto blocks = static_cast<std::uint64_t>(std::count(blocks_.begin(), blocks_.end(), true));
  config_.plugged_size = blocks * block;
  plugged_ = config_.plugged_size;
}

std::uint16_t VirtioMem::serve(const virtio_mem_req& request, std::uint16_t& state) {
  if (request.type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
    set(0, blocks_.size(), false);
    return VIRTIO_MEM_RESP_ACK;
  }
  // The three others have the same shape.
  std::uint64_t address = request.u.plug.addr, count = request.u.plug.nb_blocks;
  if (request.type > VIRTIO_MEM_REQ_STATE || address < region_.address ||
      (address - region_.address) % block != 0 || count == 0)
    return VIRTIO_MEM_RESP_ERROR;
  std::uint64_t first = (address - region_.address) / block;
  if (first > blocks_.size() || count > blocks_.size() - first) return VIRTIO_MEM_RESP_ERROR;
  auto from = blocks_.begin() + static_cast<std::ptrdiff_t>(first);
  auto plugged =
      static_cast<std::uint64_t>(std::count(from, from + static_cast<std::ptrdiff_t>(count), true));
  if (request.type == VIRTIO_MEM_REQ_STATE) {
    state = plugged == count ? VIRTIO_MEM_STATE_PLUGGED
            : plugged == 0   ? VIRTIO_MEM_STATE_UNPLUGGED
                             : VIRTIO_MEM_STATE_MIXED;
    return VIRTIO_MEM_RESP_ACK;
  }
  bool plug = request.type == VIRTIO_MEM_REQ_PLUG;
  if (plugged != (plug ? 0 : count)) return VIRTIO_MEM_RESP_ERROR;
  if (plug && config_.plugged_size + count * block > config_.requested_size)
    return VIRTIO_MEM_RESP_NACK;
  set(first, count, plug);
  return VIRTIO_MEM_RESP_ACK;
}

Result<void> VirtioMem::notified(unsigned number) {
  return transport().each(number, [this](const DescriptorChain& chain) -> Result<std::uint64_t> {
    virtio_mem_req request{};
    virtio_mem_resp response{};
    std::uint16_t state = 0;
    response.type = chain.take(0, std::as_writable_bytes(std::span(&request, 1)))
                        ? serve(request, state)
                        : std::uint16_t{VIRTIO_MEM_RESP_ERROR};
    response.u.state.state = state;
    return chain.give(0, std::as_bytes(std::span(&response, 1)));
  });
}

void VirtioMem::request(std::uint64_t bytes) {
  transport().locked([&]() -> Result<void> {
    config_.requested_size = std::min(bytes, region_.size) / block * block;
    transport().configuration_changed();
    return {};
  });
}

}  // namespace hobbes::vmm
