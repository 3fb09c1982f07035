// One way of a channel: whole messages from one writer to one reader (abi/channel.h). Either side
// may be hostile: every word of the other is checked, and read once. Freestanding.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "abi/channel.h"

namespace hobbes {

/// What both ends know of a ring; owns nothing.
struct MessageRing {
  hobbes_channel_ring* shared = nullptr;
  std::uint8_t* data = nullptr;
  std::uint64_t size = 0;  ///< bytes of `data`, a power of two

  enum class Status : std::uint8_t { good, empty, full, corrupt };

  /// Of a frame, with its padding.
  static constexpr std::uint64_t frame(std::size_t message) {
    return (HOBBES_CHANNEL_HEAD + message + HOBBES_CHANNEL_LINE - 1) / HOBBES_CHANNEL_LINE *
           HOBBES_CHANNEL_LINE;
  }
  /// The largest message: behind its frame there is always a free head.
  [[nodiscard]] std::size_t largest() const { return size - 2 * HOBBES_CHANNEL_LINE; }

  [[nodiscard]] std::uint64_t* head_at(std::uint64_t position) const {
    return reinterpret_cast<std::uint64_t*>(data + (position & (size - 1)));
  }
  void copy_in(std::uint64_t position, const void* from, std::size_t count) const {
    const std::uint64_t at = position & (size - 1), first = count < size - at ? count : size - at;
    std::memcpy(data + at, from, first);
    if (first < count)
      std::memcpy(data, static_cast<const std::uint8_t*>(from) + first, count - first);
  }
  void copy_out(std::uint64_t position, void* to, std::size_t count) const {
    const std::uint64_t at = position & (size - 1), first = count < size - at ? count : size - at;
    std::memcpy(to, data + at, first);
    if (first < count) std::memcpy(static_cast<std::uint8_t*>(to) + first, data, count - first);
  }
  static constexpr std::uint32_t after(std::uint32_t number) {
    return number == UINT32_MAX ? 1 : number + 1;
  }
};

/// The writing end. One thread at a time.
class MessageWriter {
 public:
  using Status = MessageRing::Status;
  MessageWriter() = default;
  explicit MessageWriter(const MessageRing& ring) : ring_(ring), room_(ring.size) {}

  [[nodiscard]] std::size_t largest() const { return ring_.largest(); }
  /// Of one message in two parts. full: no room now, or never, beyond largest(). corrupt: the
  /// reader's word cannot be.
  Status put(const void* first, std::size_t first_size, const void* second = nullptr,
             std::size_t second_size = 0) {
    const std::size_t size = first_size + second_size;
    if (first_size > largest() || second_size > largest() || size > largest()) return Status::full;
    const std::uint64_t whole = MessageRing::frame(size);
    if (room_ < whole + HOBBES_CHANNEL_LINE) {
      const std::uint64_t read = __atomic_load_n(&ring_.shared->read, __ATOMIC_ACQUIRE);
      if (written_ - read > ring_.size) return Status::corrupt;
      room_ = ring_.size - (written_ - read);
      if (room_ < whole + HOBBES_CHANNEL_LINE) return Status::full;
    }
    ring_.copy_in(written_ + HOBBES_CHANNEL_HEAD, first, first_size);
    if (second_size != 0)
      ring_.copy_in(written_ + HOBBES_CHANNEL_HEAD + first_size, second, second_size);
    __atomic_store_n(ring_.head_at(written_ + whole), std::uint64_t{0}, __ATOMIC_RELAXED);
    const std::uint64_t head = std::uint64_t{number_} << 32U | size;
    // An exchange, for the full barrier it is: what follows looks at whether the reader sleeps.
    (void)__atomic_exchange_n(ring_.head_at(written_), head, __ATOMIC_SEQ_CST);
    written_ += whole;
    room_ -= whole;
    number_ = MessageRing::after(number_);
    return Status::good;
  }
  /// Whether the reader must be rung; asked after put(), and takes the wish away.
  [[nodiscard]] bool reader_sleeps() const {
    return __atomic_load_n(&ring_.shared->reader_sleeps, __ATOMIC_RELAXED) != 0 &&
           __atomic_exchange_n(&ring_.shared->reader_sleeps, 0U, __ATOMIC_ACQ_REL) != 0;
  }
  /// Before a sleep for want of room: put() is tried once more after it.
  void announce_sleep() const {
    (void)__atomic_exchange_n(&ring_.shared->writer_sleeps, 1U, __ATOMIC_SEQ_CST);
  }
  void close() const { __atomic_store_n(&ring_.shared->closed, 1U, __ATOMIC_SEQ_CST); }

 private:
  MessageRing ring_;
  std::uint64_t written_ = 0, room_ = 0;
  std::uint32_t number_ = 1;
};

/// The reading end. One thread at a time.
class MessageReader {
 public:
  using Status = MessageRing::Status;
  MessageReader() = default;
  explicit MessageReader(const MessageRing& ring) : ring_(ring) {}

  /// The size of the next message. empty: none. corrupt: the writer's words cannot be.
  Status peek(std::size_t* size) const {
    const std::uint64_t head = __atomic_load_n(ring_.head_at(taken_), __ATOMIC_ACQUIRE);
    if (head == 0) return Status::empty;
    if (head >> 32U != number_ || (head & UINT32_MAX) > ring_.largest()) return Status::corrupt;
    *size = head & UINT32_MAX;
    return Status::good;
  }
  /// Copies the message that peek() found, of the size it told, to `to`, goes on to the next and
  /// gives the writer the room.
  void take(void* to, std::size_t size) {
    ring_.copy_out(taken_ + HOBBES_CHANNEL_HEAD, to, size);
    taken_ += MessageRing::frame(size);
    number_ = MessageRing::after(number_);
    __atomic_store_n(&ring_.shared->read, taken_, __ATOMIC_RELEASE);
  }
  /// Whether the writer waits for room and must be rung; takes the wish away. One who has begun to
  /// wait at this moment may be missed.
  [[nodiscard]] bool writer_sleeps() const {
    return __atomic_load_n(&ring_.shared->writer_sleeps, __ATOMIC_RELAXED) != 0 &&
           __atomic_exchange_n(&ring_.shared->writer_sleeps, 0U, __ATOMIC_ACQ_REL) != 0;
  }
  /// The same, and misses nobody.
  [[nodiscard]] bool writer_surely_sleeps() const {
    (void)__atomic_exchange_n(&ring_.shared->read, taken_, __ATOMIC_SEQ_CST);  // a full barrier
    return writer_sleeps();
  }
  /// Before a sleep: peek() is asked once more after it.
  void announce_sleep() const {
    (void)__atomic_exchange_n(&ring_.shared->reader_sleeps, 1U, __ATOMIC_SEQ_CST);
  }
  void awake() const { __atomic_store_n(&ring_.shared->reader_sleeps, 0U, __ATOMIC_RELAXED); }
  [[nodiscard]] bool closed() const {
    return __atomic_load_n(&ring_.shared->closed, __ATOMIC_ACQUIRE) != 0;
  }

 private:
  MessageRing ring_;
  std::uint64_t taken_ = 0;
  std::uint32_t number_ = 1;
};

}  // namespace hobbes
