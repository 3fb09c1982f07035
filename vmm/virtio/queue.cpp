#include "vmm/virtio/queue.h"

#define VIRTIO_RING_NO_LEGACY  // its helpers are not C++
#include <linux/virtio_ring.h>

#include <algorithm>

namespace hobbes::vmm {
namespace {

// The two indices are what driver and device tell each other by; everything else is ordered by
// them.
std::uint16_t* index_at(const GuestMemory& memory, Gpa address) {
  auto bytes = memory.at(address, 2);
  return bytes.empty() || address % 2 != 0 ? nullptr
                                           : reinterpret_cast<std::uint16_t*>(bytes.data());
}

Error broken(const std::string& why) {
  return {Code::corrupt, "read a virtqueue", why, "this is a fault of the guest's driver"};
}

}  // namespace

std::uint64_t DescriptorChain::readable_size() const {
  std::uint64_t out = 0;
  for (const auto& part : readable) out += part.size();
  return out;
}

std::uint64_t DescriptorChain::writable_size() const {
  std::uint64_t out = 0;
  for (const auto& part : writable) out += part.size();
  return out;
}

bool DescriptorChain::take(std::uint64_t offset, std::span<std::byte> to) const {
  for (const auto& part : readable) {
    if (offset >= part.size()) {
      offset -= part.size();
      continue;
    }
    std::size_t n = std::min<std::size_t>(part.size() - offset, to.size());
    std::memcpy(to.data(), part.data() + offset, n);
    to = to.subspan(n);
    offset = 0;
    if (to.empty()) break;
  }
  return to.empty();
}

std::uint64_t DescriptorChain::give(std::uint64_t offset, std::span<const std::byte> from) const {
  std::uint64_t given = 0;
  for (const auto& part : writable) {
    if (from.empty()) break;
    if (offset >= part.size()) {
      offset -= part.size();
      continue;
    }
    std::size_t n = std::min<std::size_t>(part.size() - offset, from.size());
    std::memcpy(part.data() + offset, from.data(), n);
    from = from.subspan(n);
    offset = 0;
    given += n;
  }
  return given;
}

Result<std::optional<DescriptorChain>> Queue::pop(const GuestMemory& memory) {
  if (!ready) return std::optional<DescriptorChain>();
  const std::uint16_t* index = index_at(memory, available + offsetof(vring_avail, idx));
  if (index == nullptr) return broken("its available ring is not in memory");
  auto waiting = static_cast<std::uint16_t>(__atomic_load_n(index, __ATOMIC_ACQUIRE) - next_);
  if (waiting == 0) return std::optional<DescriptorChain>();
  if (waiting > size) return broken("it offers more requests than it has room for");
  DescriptorChain out;
  if (!memory.read(available + offsetof(vring_avail, ring) + 2ULL * (next_ % size), out.head))
    return broken("its available ring is not in memory");
  std::uint16_t at = out.head;
  for (unsigned steps = 0;; ++steps) {
    if (steps == size) return broken("a chain of descriptors has a loop");
    if (at >= size) return broken("a descriptor number is out of range");
    vring_desc descriptor{};
    if (!memory.read(descriptors + sizeof(vring_desc) * at, descriptor))
      return broken("its descriptors are not in memory");
    if ((descriptor.flags & VRING_DESC_F_INDIRECT) != 0)
      return broken("it uses indirect descriptors, which were not offered");
    if (descriptor.len != 0) {
      auto bytes = memory.at(descriptor.addr, descriptor.len);
      if (bytes.empty()) return broken("a descriptor points outside of memory");
      if ((descriptor.flags & VRING_DESC_F_WRITE) != 0)
        out.writable.push_back(bytes);
      else if (out.writable.empty())
        out.readable.push_back(bytes);
      else
        return broken("a readable descriptor follows a writable one");
    }
    if ((descriptor.flags & VRING_DESC_F_NEXT) == 0) break;
    at = descriptor.next;
  }
  ++next_;
  return std::optional(std::move(out));
}

bool Queue::push(const GuestMemory& memory, std::uint16_t head, std::uint64_t written) {
  vring_used_elem element{head, static_cast<__u32>(written)};
  if (!memory.write(used + offsetof(vring_used, ring) + sizeof element * (returned_ % size),
                    element))
    return false;
  std::uint16_t* index = index_at(memory, used + offsetof(vring_used, idx));
  if (index == nullptr) return false;
  __atomic_store_n(index, ++returned_,
                   __ATOMIC_SEQ_CST);  // before the look at whether the driver wants to hear of it
  return true;
}

bool Queue::wants_interrupt(const GuestMemory& memory) const {
  const std::uint16_t* flags = index_at(memory, available + offsetof(vring_avail, flags));
  return flags != nullptr &&
         (__atomic_load_n(flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT) == 0;
}

}  // namespace hobbes::vmm
