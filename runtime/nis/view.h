// Reading a mirror that is already mapped. Freestanding: no libc, no allocation, no locks, so that
// Linux programs, VM guests and the co-kernel use this same code. Everything in the mapping is
// untrusted: bounds are checked against the mapped size, never against the mapping's own claims
// alone.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "abi/nis.h"

namespace hobbes {

/// A read-only look at `size` mapped bytes at `base`; owns nothing. Any number of threads may use
/// one.
class NisView {
 public:
  enum class Status { good, absent, stale, corrupt };

  NisView() = default;
  NisView(const void* base, std::size_t size)
      : base_(static_cast<const std::byte*>(base)), size_(size) {}

  /// Whether this is a mirror this code can read.
  [[nodiscard]] Status check() const {
    if (base_ == nullptr || size_ < sizeof(hobbes_nis_header)) return Status::corrupt;
    const hobbes_nis_header& h = header();
    if (h.magic != HOBBES_NIS_MAGIC || h.major != HOBBES_NIS_MAJOR) return Status::corrupt;
    bool shape = h.header_size >= sizeof(hobbes_nis_header) && h.record_size >= record_minimum &&
                 h.record_size % 8 == 0 && h.change_size >= HOBBES_CHANGE_SIZE_MINOR_1 &&
                 h.change_size % 8 == 0 &&
                 h.slot_size >= sizeof(hobbes_nis_slot_head) + 2ULL * h.record_size &&
                 h.slot_size % 8 == 0 && h.slot_size <= 1U << 20U && power_of_two(h.log_capacity) &&
                 power_of_two(h.index_capacity) && h.log_capacity <= 1U << 24U &&
                 h.index_capacity <= 1U << 26U;
    if (!shape) return Status::corrupt;
    bool inside = h.log_offset % 8 == 0 && h.index_offset % 8 == 0 && h.slots_offset % 64 == 0 &&
                  h.log_offset <= size_ && h.log_capacity * h.change_size <= size_ - h.log_offset &&
                  h.index_offset <= size_ && h.index_capacity * 8 <= size_ - h.index_offset &&
                  h.slots_offset <= size_;
    return inside ? Status::good : Status::corrupt;
  }

  [[nodiscard]] const hobbes_nis_header& header() const {
    return *reinterpret_cast<const hobbes_nis_header*>(base_);
  }
  [[nodiscard]] std::uint64_t head() const { return load(&header().log_head); }
  [[nodiscard]] bool retired() const { return load(&header().retired) != 0; }
  /// Slots the file holds now; `stale` answers mean it outgrew this mapping: map it again.
  [[nodiscard]] std::uint64_t slots() const { return load(&header().slots); }

  /// Copies the record of a slot. absent: the slot is free.
  Status slot(std::uint64_t number, hobbes_record* out) const {
    const hobbes_nis_header& h = header();
    if (number >= slots()) return Status::absent;
    std::uint64_t offset = h.slots_offset + number * h.slot_size;
    if (number > 0xffffffffULL || offset > size_ || size_ - offset < h.slot_size)
      return Status::stale;
    const std::byte* place = base_ + offset;
    const auto* version = reinterpret_cast<const std::uint64_t*>(place);
    std::size_t words =
        (h.record_size < sizeof(hobbes_record) ? h.record_size : sizeof(hobbes_record)) / 8;
    for (;;) {
      std::uint64_t before = load(version);
      const auto* from = reinterpret_cast<const std::uint64_t*>(
          place + sizeof(hobbes_nis_slot_head) + (before & 1U) * h.record_size);
      auto* to = reinterpret_cast<std::uint64_t*>(out);
      for (std::size_t i = 0; i < words; ++i) to[i] = load(from + i);
      for (std::size_t i = words; i < sizeof(hobbes_record) / 8; ++i) to[i] = 0;
      if (load(version) == before) break;
    }
    out->name[HOBBES_NAME_SIZE - 1] = '\0';
    return out->type == HOBBES_FREE || out->type >= HOBBES_RECORD_TYPES ? Status::absent
                                                                        : Status::good;
  }

  Status by_id(std::uint64_t id, hobbes_record* out) const {
    Status status = slot(id & 0xffffffffULL, out);
    return status == Status::good && out->id != id ? Status::absent : status;
  }

  Status by_name(std::uint16_t type, std::uint64_t scope, const char* name,
                 hobbes_record* out) const {
    const hobbes_nis_header& h = header();
    const auto* index = reinterpret_cast<const std::uint64_t*>(base_ + h.index_offset);
    std::uint64_t hash = name_hash(type, scope, name);
    for (std::uint64_t probe = 0; probe < h.index_capacity; ++probe) {
      std::uint64_t entry = load(index + ((hash + probe) & (h.index_capacity - 1)));
      if (entry == 0) return Status::absent;
      if ((entry & 0xffffffffULL) == HOBBES_INDEX_DELETED || entry >> 32U != hash >> 32U) continue;
      Status status = slot((entry & 0xffffffffULL) - 1, out);
      if (status == Status::stale) return status;
      if (status == Status::good && out->type == type && out->scope == scope &&
          same(out->name, name))
        return status;
    }
    return Status::absent;
  }

  /// The next record of `type` (0: any) at or after slot *cursor; moves the cursor past it.
  Status next(std::uint16_t type, std::uint64_t* cursor, hobbes_record* out) const {
    for (; *cursor < slots(); ++*cursor) {
      Status status = slot(*cursor, out);
      if (status == Status::stale) return status;
      if (status != Status::good || (type != HOBBES_FREE && out->type != type)) continue;
      ++*cursor;
      return Status::good;
    }
    return Status::absent;
  }

  /// Copies the change with this sequence. absent: not written yet. stale: overwritten, start over
  /// from head().
  Status change(std::uint64_t sequence, hobbes_change* out) const {
    const hobbes_nis_header& h = header();
    if (sequence == 0 || sequence > head()) return Status::absent;
    const auto* from = reinterpret_cast<const std::uint64_t*>(
        base_ + h.log_offset + (sequence & (h.log_capacity - 1)) * h.change_size);
    auto* to = reinterpret_cast<std::uint64_t*>(out);
    *out = hobbes_change{};
    std::size_t words = std::min<std::size_t>(h.change_size, sizeof(hobbes_change)) / 8;
    for (std::size_t i = 0; i < words; ++i) to[i] = load(from + i);
    out->name[HOBBES_CHANGE_NAME_SIZE - 1] = '\0';
    return out->sequence == sequence && load(from) == sequence ? Status::good : Status::stale;
  }

  static std::uint64_t name_hash(std::uint16_t type, std::uint64_t scope, const char* name) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    auto mix = [&](std::uint64_t byte) { hash = (hash ^ (byte & 0xffU)) * 0x100000001b3ULL; };
    mix(type);
    mix(type >> 8U);
    for (unsigned i = 0; i < 8; ++i) mix(scope >> (8 * i));
    for (; *name != '\0'; ++name) mix(static_cast<unsigned char>(*name));
    return hash;
  }

 private:
  static constexpr std::size_t record_minimum = 176;  // everything before the body

  // Acquire on every word keeps the version check after the copy without a fence; on x86-64 it
  // costs nothing.
  static std::uint64_t load(const std::uint64_t* word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
  }
  static bool power_of_two(std::uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }
  static bool same(const char* a, const char* b) {
    for (; *a == *b; ++a, ++b)
      if (*a == '\0') return true;
    return false;
  }

  const std::byte* base_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace hobbes
