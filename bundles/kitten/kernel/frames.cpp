#include "frames.h"

namespace kitten {
namespace {

std::size_t index_of(Use use) { return static_cast<std::size_t>(use); }

void clear(void* where, std::uint64_t bytes) {
  auto* words = static_cast<std::uint64_t*>(where);
  for (std::uint64_t i = 0; i < bytes / 8; ++i) words[i] = 0;
}

}  // namespace

const char* name_of(Use use) {
  switch (use) {
    case Use::books:
      return "books";
    case Use::kernel:
      return "kernel";
    case Use::tables:
      return "page tables";
    case Use::stacks:
      return "stacks";
    case Use::programs:
      return "programs";
    case Use::kinds:
      break;
  }
  return "?";
}

void Frames::mark(Extent& extent, std::uint64_t n, std::uint64_t count, bool value) {
  for (std::uint64_t i = n; i < n + count; ++i) {
    std::uint64_t bit = 1ULL << (i % 64);
    extent.bitmap[i / 64] = value ? extent.bitmap[i / 64] | bit : extent.bitmap[i / 64] & ~bit;
  }
  extent.free = value ? extent.free - count : extent.free + count;
}

bool Frames::add(std::uint64_t address, std::uint64_t size, std::uint32_t slot,
                 std::uint64_t reserved) {
  if (count_ == capacity || address == 0 || size == 0 || (address | size) % block != 0 ||
      address + size < address || reserved % frame != 0)
    return false;
  for (unsigned i = 0; i < count_; ++i) {
    const Extent& other = extents_[i];
    if (other.slot == slot ||
        (address < other.address + other.size && other.address < address + size))
      return false;
  }
  std::uint64_t frames = size / frame;
  std::uint64_t book_frames = (frames / 8 + frame - 1) / frame;
  if (reserved / frame + book_frames >= frames) return false;
  Extent& extent = extents_[count_];
  extent = {};
  extent.address = address;
  extent.size = size;
  extent.slot = slot;
  extent.bitmap = static_cast<std::uint64_t*>(translate_(address + reserved));
  clear(extent.bitmap, book_frames * frame);
  extent.free = frames;
  mark(extent, 0, reserved / frame + book_frames, true);
  extent.used[index_of(Use::kernel)] = static_cast<std::uint32_t>(reserved / frame);
  extent.used[index_of(Use::books)] = static_cast<std::uint32_t>(book_frames);
  ++count_;
  return true;
}

std::uint64_t Frames::remove(std::uint32_t slot, std::uint64_t* size) {
  for (unsigned i = 0; i < count_; ++i) {
    Extent& extent = extents_[i];
    if (extent.slot != slot) continue;
    for (std::size_t use = index_of(Use::books) + 1; use < index_of(Use::kinds); ++use)
      if (extent.used[use] != 0) return 0;
    std::uint64_t address = extent.address;
    *size = extent.size;
    extent = extents_[--count_];
    return address;
  }
  return 0;
}

const std::uint32_t* Frames::in_use(std::uint32_t slot) const {
  for (unsigned i = 0; i < count_; ++i)
    if (extents_[i].slot == slot) return extents_[i].used;
  return nullptr;
}

std::uint64_t Frames::take(Use use) {
  for (unsigned i = 0; i < count_; ++i) {
    Extent& extent = extents_[i];
    if (extent.free == 0) continue;
    std::uint64_t frames = extent.size / frame;
    for (std::uint64_t word = extent.hint / 64; word * 64 < frames; ++word) {
      if (~extent.bitmap[word] == 0) continue;
      std::uint64_t n =
          word * 64 + static_cast<std::uint64_t>(__builtin_ctzll(~extent.bitmap[word]));
      if (n >= frames) break;
      mark(extent, n, 1, true);
      extent.hint = n + 1;
      ++extent.used[index_of(use)];
      std::uint64_t address = extent.address + n * frame;
      clear(translate_(address), frame);
      return address;
    }
  }
  return 0;
}

std::uint64_t Frames::take_block(Use use) {
  constexpr std::uint64_t count = block / frame;
  for (unsigned i = 0; i < count_; ++i) {
    Extent& extent = extents_[i];
    for (std::uint64_t n = 0; extent.free >= count && n < extent.size / frame; n += count) {
      bool whole = true;
      for (std::uint64_t word = n / 64; word < (n + count) / 64; ++word)
        whole &= extent.bitmap[word] == 0;
      if (!whole) continue;
      mark(extent, n, count, true);
      extent.used[index_of(use)] += count;
      return extent.address + n * frame;
    }
  }
  return 0;
}

Frames::Extent* Frames::holder_of(std::uint64_t address) {
  for (unsigned i = 0; i < count_; ++i)
    if (address >= extents_[i].address && address < extents_[i].address + extents_[i].size)
      return &extents_[i];
  return nullptr;
}

void Frames::give(std::uint64_t address, Use use) {
  Extent* extent = holder_of(address);
  if (extent == nullptr) return;
  std::uint64_t n = (address - extent->address) / frame;
  if (!taken(*extent, n)) return;
  mark(*extent, n, 1, false);
  if (n < extent->hint) extent->hint = n;
  --extent->used[index_of(use)];
}

void Frames::give_block(std::uint64_t address, Use use) {
  Extent* extent = holder_of(address);
  if (extent == nullptr || address % block != 0) return;
  std::uint64_t n = (address - extent->address) / frame;
  if (!taken(*extent, n)) return;
  mark(*extent, n, block / frame, false);
  if (n < extent->hint) extent->hint = n;
  extent->used[index_of(use)] -= static_cast<std::uint32_t>(block / frame);
}

std::uint64_t Frames::total() const {
  std::uint64_t out = 0;
  for (unsigned i = 0; i < count_; ++i) out += extents_[i].size;
  return out;
}

std::uint64_t Frames::free() const {
  std::uint64_t out = 0;
  for (unsigned i = 0; i < count_; ++i) out += extents_[i].free * frame;
  return out;
}

}  // namespace kitten
