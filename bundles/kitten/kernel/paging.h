// Page tables of x86-64, four levels (AMD64 Architecture Programmer's Manual vol. 2, 5.3).
// Freestanding; unit-tested on the host.
#pragma once
#include <cstdint>

namespace kitten {

/// Where tables come from and how they are reached. The kernel's own opens a write window, since
/// its tables are mapped read-only.
class TableMemory {
 public:
  /// A cleared frame, 0: none left.
  virtual std::uint64_t take() = 0;
  virtual void give(std::uint64_t address) = 0;
  [[nodiscard]] virtual const std::uint64_t* table(std::uint64_t address) const = 0;
  virtual void store(std::uint64_t table, unsigned index, std::uint64_t entry) = 0;

 protected:
  ~TableMemory() = default;
};

/// What may be done with mapped memory. The kernel's own is never writable and executable at once:
/// `map` refuses it. A `program`'s memory is what its program wants.
struct Access {
  bool write = false, execute = false, uncached = false, program = false;
};

/// Takes memory that is mapped no more.
class PageSink {
 public:
  virtual void take(std::uint64_t physical, std::uint64_t size) = 0;

 protected:
  ~PageSink() = default;
};

/// One address space. Not thread-safe; translations cached by cores are the caller's matter.
class PageTables {
 public:
  constexpr PageTables(TableMemory& memory, bool gigabyte_pages)
      : memory_(&memory), gigabyte_pages_(gigabyte_pages) {}
  /// Makes the root. False: no memory.
  bool create();
  [[nodiscard]] std::uint64_t root() const { return root_; }
  /// A root with nothing below `kernel_half`, whose other half is that of `kernel`. False: no
  /// memory.
  bool create_beside(const PageTables& kernel);
  /// Takes over what the kernel's root names by now; what it named before stays.
  void share_kernel_half(const PageTables& kernel);
  /// Gives the root and every table of the lower half back. What they map is the caller's matter.
  void destroy();

  /// Maps `size` bytes with the largest pages that fit. All multiples of 4 KiB. False: out of
  /// memory, something is mapped there already, or the access is refused; then nothing of the range
  /// is mapped.
  bool map(std::uint64_t virtual_address, std::uint64_t physical, std::uint64_t size,
           Access access);
  /// Takes mappings away; parts that are not mapped are passed over. Large pages that lie across an
  /// end are split. False: no memory to split with; then nothing has changed.
  /// The tables that the root names stay, since other roots may name them, too.
  bool unmap(std::uint64_t virtual_address, std::uint64_t size);
  /// The first half of an unmap whose memory is to be used again: nothing leads there any more, and
  /// what did is remembered for `reap`. False: no memory to split with; then nothing has changed.
  bool retire(std::uint64_t virtual_address, std::uint64_t size);
  /// The second half, once no core and no process can have a translation any more: hands over what
  /// was retired, with the size of its page, and forgets it.
  void reap(std::uint64_t virtual_address, std::uint64_t size, PageSink& sink);
  /// Changes the access of what is mapped in the range, splitting large pages at its ends. False:
  /// no memory.
  bool protect(std::uint64_t virtual_address, std::uint64_t size, Access access);
  /// Where an address leads. False: nothing is mapped in all of the `page_size` bytes around it.
  bool find(std::uint64_t virtual_address, std::uint64_t* physical, Access* access,
            std::uint64_t* page_size) const;

  static constexpr std::uint64_t kernel_half = 0xffff800000000000;

 private:
  void give_tables(std::uint64_t table, unsigned level);
  struct Place {
    std::uint64_t table;
    unsigned index;
    unsigned level;  // 3 root .. 0
    std::uint64_t entry;
  };
  [[nodiscard]] Place walk(std::uint64_t virtual_address, unsigned down_to) const;
  std::uint64_t step(std::uint64_t table, unsigned index, std::uint64_t bits);
  bool split_at(std::uint64_t virtual_address);
  void prune(std::uint64_t virtual_address);

  TableMemory* memory_;
  std::uint64_t root_ = 0;
  bool gigabyte_pages_;
};

}  // namespace kitten
