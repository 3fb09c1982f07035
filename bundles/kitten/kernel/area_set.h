// The areas of a program's address space, as the program asked for them. Freestanding; unit-tested
// on the host.
#pragma once
#include <cstdint>

namespace kitten {

/// One range with one protection. `begin` and `end` are multiples of 4 KiB.
struct Area {
  std::uint64_t begin, end;
  std::uint8_t protection;  ///< PROT_* bits
  std::uint16_t shared;     ///< 1 + the slot of Linux's memory that it shows; 0: the program's own
  Area* next;
};

/// Where areas come from. Null: no memory.
class AreaPool {
 public:
  virtual Area* take() = 0;
  virtual void give(Area* area) = 0;

 protected:
  ~AreaPool() = default;
};

/// Areas in the order of their addresses, never overlapping. Not thread-safe.
class AreaSet {
 public:
  explicit AreaSet(AreaPool& pool) : pool_(&pool) {}
  AreaSet(const AreaSet&) = delete;
  AreaSet& operator=(const AreaSet&) = delete;

  [[nodiscard]] const Area* first() const { return first_; }
  /// The area that holds an address, or null.
  [[nodiscard]] Area* find(std::uint64_t address) const;
  /// The first area that ends behind an address.
  [[nodiscard]] Area* at_or_after(std::uint64_t address) const;
  /// Adds one where none is; the neighbours are merged with it where they are alike. False: no
  /// memory.
  bool add(const Area& area);
  /// Removes every part of a range. False: no memory to split an area; nothing has changed then.
  bool remove(std::uint64_t begin, std::uint64_t end);
  /// Gives a range, all of which must be in areas, another protection. False: no memory.
  bool protect(std::uint64_t begin, std::uint64_t end, std::uint8_t protection);
  /// Whether areas cover all of a range.
  [[nodiscard]] bool covers(std::uint64_t begin, std::uint64_t end) const;
  /// The highest gap of `size` bytes, aligned, between the limits. 0: none.
  [[nodiscard]] std::uint64_t gap(std::uint64_t low, std::uint64_t high, std::uint64_t size,
                                  std::uint64_t alignment) const;
  void clear();

 private:
  bool split(std::uint64_t address);
  void merge(Area* before);

  AreaPool* pool_;
  Area* first_ = nullptr;
};

}  // namespace kitten
