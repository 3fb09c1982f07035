// A split virtqueue (virtio 1.2, 2.7), device side. The guest may write anything into it at any
// time.
#pragma once
#include <optional>
#include <vector>

#include "vmm/memory.h"

namespace hobbes::vmm {

/// One request: what the guest gives, then what it wants filled. Spans stay valid as long as the
/// guest memory does.
struct DescriptorChain {
  std::uint16_t head = 0;
  std::vector<std::span<const std::byte>> readable;
  std::vector<std::span<std::byte>> writable;

  [[nodiscard]] std::uint64_t readable_size() const;
  [[nodiscard]] std::uint64_t writable_size() const;
  /// Copies from the readable part; false when it is shorter.
  [[nodiscard]] bool take(std::uint64_t offset, std::span<std::byte> to) const;
  /// Copies into the writable part; what does not fit is cut. The number of bytes written.
  std::uint64_t give(std::uint64_t offset, std::span<const std::byte> from) const;
};

inline constexpr std::uint16_t queue_size_limit = 256;

class Queue {
 public:
  std::uint16_t size = queue_size_limit;
  bool ready = false;
  Gpa descriptors = 0, available = 0, used = 0;

  /// The next request, if any. Errors: Code::corrupt, the guest broke the rules; the device is then
  /// unusable until it is reset.
  Result<std::optional<DescriptorChain>> pop(const GuestMemory& memory);
  /// The last pop() is taken back.
  void unpop() { --next_; }
  /// Returns a request. False when the used ring is not in memory.
  bool push(const GuestMemory& memory, std::uint16_t head, std::uint64_t written);
  /// The driver wants to hear of what was pushed.
  [[nodiscard]] bool wants_interrupt(const GuestMemory& memory) const;
  void reset() { *this = Queue(); }

 private:
  std::uint16_t next_ = 0, returned_ = 0;
};

}  // namespace hobbes::vmm
