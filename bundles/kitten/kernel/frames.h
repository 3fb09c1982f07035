// Physical memory: extents of it, handed out as 4 KiB frames or 2 MiB blocks. Freestanding;
// unit-tested on the host.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kitten {

/// What a frame serves; a refusal to give an extent back names these.
enum class Use : std::uint8_t { books, kernel, tables, stacks, programs, kinds };
const char* name_of(Use use);

/// Not thread-safe: the kernel calls it with its memory lock held.
class Frames {
 public:
  static constexpr std::uint64_t frame = 4096, block = 0x200000;
  static constexpr unsigned capacity = 256;

  /// `translate` makes a physical address readable.
  constexpr explicit Frames(void* (*translate)(std::uint64_t)) : translate_(translate) {}

  /// Adds memory (multiples of 2 MiB), of which the first `reserved` bytes are in use by the kernel
  /// for good. Its books are kept in its own first free frames. False: no room for another extent,
  /// misaligned, too small, or overlapping one that is here.
  bool add(std::uint64_t address, std::uint64_t size, std::uint32_t slot,
           std::uint64_t reserved = 0);
  /// Forgets a wholly free extent. 0 when it is not wholly free (or unknown), else its address, for
  /// unmapping.
  std::uint64_t remove(std::uint32_t slot, std::uint64_t* size);
  /// What keeps an extent from being removed: frames in use by kind. Null: unknown slot.
  [[nodiscard]] const std::uint32_t* in_use(std::uint32_t slot) const;

  /// A cleared frame, 0: none left.
  std::uint64_t take(Use use);
  /// 2 MiB, aligned, not cleared; 0: none left.
  std::uint64_t take_block(Use use);
  void give(std::uint64_t address, Use use);
  void give_block(std::uint64_t address, Use use);

  [[nodiscard]] std::uint64_t total() const;
  [[nodiscard]] std::uint64_t free() const;
  [[nodiscard]] unsigned extents() const { return count_; }

 private:
  struct Extent {
    std::uint64_t address, size;
    std::uint32_t slot;
    std::uint64_t hint;     // frames below are taken
    std::uint64_t* bitmap;  // one bit per frame, 1 taken
    std::uint64_t free;     // frames
    std::uint32_t used[static_cast<std::size_t>(Use::kinds)];
  };
  Extent* holder_of(std::uint64_t address);
  static bool taken(const Extent& extent, std::uint64_t n) {
    return (extent.bitmap[n / 64] >> (n % 64) & 1U) != 0;
  }
  static void mark(Extent& extent, std::uint64_t n, std::uint64_t count, bool value);

  void* (*translate_)(std::uint64_t);
  Extent extents_[capacity] = {};
  unsigned count_ = 0;
};

}  // namespace kitten
