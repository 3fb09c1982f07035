// Guest memory: what the guest may do anything with, so every address it names is checked against
// it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "vmm/layout.h"

namespace hobbes::vmm {

struct Region {
  Gpa address = 0;
  std::uint64_t size = 0;
  std::byte* host = nullptr;
};

/// Owns one mapping; RAM below 3 GiB and, when there is more, from 4 GiB on. Addresses are stable.
/// Thread-safe after make(): the guest races with everybody, so readers copy first and look then.
class GuestMemory {
 public:
  /// `page_size`: 4096 (huge pages where Linux has some to give), or 2 MiB and more: huge pages set
  /// aside by the node's administrator. Errors: Code::exhausted when there are not enough of those.
  /// `spare`: so many more bytes of address space, whole GiB, that are memory only when the guest
  /// is told so (VirtioMem).
  static Result<GuestMemory> make(std::uint64_t size, std::uint64_t page_size,
                                  std::uint64_t spare = 0);
  GuestMemory(GuestMemory&& other) noexcept { *this = std::move(other); }
  GuestMemory& operator=(GuestMemory&& other) noexcept;
  ~GuestMemory();

  /// `size` bytes at `address`, or an empty span when any of them is not memory. In a window, pages
  /// may be missing: what touches them is a system call, or ends this process and its machine.
  [[nodiscard]] std::span<std::byte> at(Gpa address, std::uint64_t size) const;
  template <class T>
  [[nodiscard]] bool read(Gpa address, T& out) const {
    static_assert(std::is_trivially_copyable_v<T>);
    auto bytes = at(address, sizeof(T));
    if (bytes.empty()) return false;
    std::memcpy(&out, bytes.data(), sizeof(T));
    return true;
  }
  template <class T>
  [[nodiscard]] bool write(Gpa address, const T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    auto bytes = at(address, sizeof(T));
    if (bytes.empty()) return false;
    std::memcpy(bytes.data(), &value, sizeof(T));
    return true;
  }
  /// Memory that is not RAM and whose addresses the guest may name all the same, for transfers from
  /// and to files that it has mapped. Before the guest runs; it outlives this.
  void add(const Region& window) { windows_.push_back(window); }
  [[nodiscard]] const std::vector<Region>& regions() const { return regions_; }
  /// Its size is 0 when there is none.
  [[nodiscard]] const Region& spare() const { return spare_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// The first address behind RAM below 3 GiB.
  [[nodiscard]] Gpa low_top() const { return regions_.front().size; }

 private:
  GuestMemory() = default;
  Fd fd_;
  std::byte* base_ = nullptr;
  std::uint64_t size_ = 0;
  std::vector<Region> regions_;
  Region spare_;
  std::vector<Region> windows_;
};

}  // namespace hobbes::vmm
