// Both ends of the rings of abi/ring.h. Freestanding: Linux programs and the co-kernel use this
// same code.
#pragma once
#include <cstddef>
#include <cstdint>

#include "abi/ring.h"

namespace hobbes {

/// A view of ring memory; owns nothing. One thread per side.
class Ring {
 public:
  enum class Status { good, empty, full, corrupt };
  static constexpr std::size_t frame_header = 4;

  Ring() = default;
  /// `bytes`: the whole memory, header included.
  Ring(void* memory, std::size_t bytes)
      : ring_(static_cast<hobbes_ring*>(memory)),
        data_(static_cast<std::uint8_t*>(memory) + sizeof(hobbes_ring)),
        capacity_(bytes - sizeof(hobbes_ring)) {}

  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  /// The largest payload of one frame.
  [[nodiscard]] std::size_t largest() const { return capacity_ / 2 - 8; }

  /// Adds one frame. full: no room now. corrupt: the reader's counter cannot be.
  Status put(const void* payload, std::size_t size) {
    if (size > largest()) return Status::full;
    std::uint64_t head = own(&ring_->head), tail = other(&ring_->tail);
    if (head - tail > capacity_) return Status::corrupt;
    std::size_t whole = padded(size);
    if (capacity_ - (head - tail) < whole) return Status::full;
    auto length = static_cast<std::uint32_t>(size);
    copy_in(head, &length, sizeof length);
    copy_in(head + frame_header, payload, size);
    publish(&ring_->head, head + whole);
    return Status::good;
  }

  /// Takes one frame, copied before anybody looks at it. corrupt: the writer's counters or lengths
  /// cannot be; then `reset`.
  Status take(void* payload, std::size_t room, std::size_t* size) {
    std::uint64_t tail = own(&ring_->tail), head = other(&ring_->head);
    if (head == tail) return Status::empty;
    std::uint32_t length = 0;
    if (head - tail > capacity_ || head - tail < frame_header) return Status::corrupt;
    copy_out(tail, &length, sizeof length);
    if (length > largest() || length > room || padded(length) > head - tail) return Status::corrupt;
    copy_out(tail + frame_header, payload, length);
    publish(&ring_->tail, tail + padded(length));
    *size = length;
    return Status::good;
  }
  /// The reader's way out of corruption: forgets everything written so far.
  void reset() { publish(&ring_->tail, other(&ring_->head)); }

  /// Adds to a plain stream, overwriting the oldest bytes.
  void write(const void* bytes, std::size_t size) {
    std::uint64_t head = own(&ring_->head);
    copy_in(head, bytes, size);
    publish(&ring_->head, head + size);
  }
  /// Takes from a plain stream what is there, at most `room` bytes. `lost`: bytes overwritten
  /// before they were read.
  std::size_t read(void* bytes, std::size_t room, std::uint64_t* lost) {
    std::uint64_t tail = own(&ring_->tail), head = other(&ring_->head);
    *lost = 0;
    if (head - tail > capacity_) {
      *lost = head - tail - capacity_;
      tail = head - capacity_;
    }
    std::size_t size = head - tail < room ? head - tail : room;
    copy_out(tail, bytes, size);
    publish(&ring_->tail, tail + size);
    return size;
  }

 private:
  static std::size_t padded(std::size_t size) {
    return (frame_header + size + 7) & ~static_cast<std::size_t>(7);
  }
  static std::uint64_t own(const std::uint64_t* counter) {
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
  }
  static std::uint64_t other(const std::uint64_t* counter) {
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
  }
  static void publish(std::uint64_t* counter, std::uint64_t value) {
    __atomic_store_n(counter, value, __ATOMIC_RELEASE);
  }

  void copy_in(std::uint64_t at, const void* from, std::size_t size) {
    const auto* bytes = static_cast<const std::uint8_t*>(from);
    for (std::size_t i = 0; i < size; ++i) data_[(at + i) % capacity_] = bytes[i];
  }
  void copy_out(std::uint64_t at, void* to, std::size_t size) const {
    auto* bytes = static_cast<std::uint8_t*>(to);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = data_[(at + i) % capacity_];
  }

  hobbes_ring* ring_ = nullptr;
  std::uint8_t* data_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace hobbes
