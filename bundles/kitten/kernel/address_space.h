// The memory of one program: its areas, its page tables, and the frames behind them. Processes that
// share memory (vfork) share an address space. Every call may come from any core.
#pragma once
#include <cstdint>

#include "abi/forward.h"
#include "area_set.h"
#include "lock.h"
#include "memory.h"

namespace kitten {

/// PROT_* and MAP_* of Linux (uapi/asm-generic/mman-common.h).
enum Protection : std::uint8_t { protect_read = 1, protect_write = 2, protect_execute = 4 };
enum MapFlag : std::uint32_t {
  map_shared = 1,
  map_private = 2,
  map_fixed = 0x10,
  map_anonymous = 0x20,
  map_grows_down = 0x100,
  map_no_reserve = 0x4000,
  map_populate = 0x8000,
  map_stack = 0x20000,
  map_fixed_no_replace = 0x100000
};

class AddressSpace {
 public:
  /// Null: no memory.
  static AddressSpace* make();
  /// One more process uses it, shown by that view.
  void join(unsigned view);
  /// One less, whose view shows another root by now or is gone; the last one takes it away, with
  /// all its memory.
  void leave(unsigned view);
  /// It stays until `release`, and counts as one more user meanwhile.
  void hold() { __atomic_add_fetch(&users_, 1U, __ATOMIC_ACQ_REL); }
  void release();
  [[nodiscard]] unsigned users() const { return __atomic_load_n(&users_, __ATOMIC_ACQUIRE); }
  [[nodiscard]] std::uint64_t root() const { return tables_.root(); }
  void share_kernel_half();

  // System calls: a result, or -errno.
  std::int64_t map(std::uint64_t address, std::uint64_t size, std::uint32_t protection,
                   std::uint32_t flags);
  std::int64_t unmap(std::uint64_t address, std::uint64_t size);
  std::int64_t protect(std::uint64_t address, std::uint64_t size, std::uint32_t protection);
  std::int64_t remap(std::uint64_t address, std::uint64_t old_size, std::uint64_t new_size,
                     std::uint32_t flags, std::uint64_t new_address);
  std::int64_t advise(std::uint64_t address, std::uint64_t size, int advice);
  std::int64_t resident(std::uint64_t address, std::uint64_t size, std::uint64_t vector);
  /// Shows Linux's frames where `map` has reserved room; they are held until nothing shows them.
  /// False: no memory, or not all of the range.
  bool show_shared(std::uint64_t address, std::uint64_t size, std::uint8_t protection,
                   unsigned slot, const hobbes_view_run* runs, unsigned count);
  /// Whether any of a range is shared memory. The size of the whole piece that begins at `address`.
  [[nodiscard]] bool has_shared(std::uint64_t address, std::uint64_t size);
  [[nodiscard]] std::uint64_t shared_piece(std::uint64_t address);
  std::uint64_t set_break(std::uint64_t address);
  void begin_break(std::uint64_t address) { break_begin_ = break_end_ = address; }
  /// Everything goes, the translations and what Linux has been shown, too.
  void clear();
  /// Copies all of a parent's memory into this empty one. False: no memory.
  bool copy(AddressSpace& parent);

  /// A page that is missing or forbidden: 0 when it is there now, else an errno: EFAULT (nothing
  /// may be there), EACCES (something else may), ENOMEM.
  int fill(std::uint64_t address, bool write, bool execute);

  /// Between the kernel and the program's memory. False: some of it may not be accessed.
  bool read(void* to, std::uint64_t from, std::uint64_t size);
  bool write(std::uint64_t to, const void* from, std::uint64_t size);
  /// Calls `act` with the kernel's address of a word of the program's, aligned to its size, while
  /// nothing can take it away. False: it may not be accessed.
  template <class Word, class Act>
  bool with_word(std::uint64_t address, bool write, Act act) {
    Locked locked(lock_);
    Visit visit(*this);
    void* at = address % sizeof(Word) == 0 ? reach(address, write) : nullptr;
    if (at == nullptr) return false;
    act(static_cast<Word*>(at));
    return true;
  }

  /// What a word is waited for by: the same wherever it is mapped, for shared memory.
  struct WordKey {
    std::uint64_t space, address;
    bool operator==(const WordKey&) const = default;
  };
  WordKey key_of(std::uint64_t address);

 private:
  /// In these page tables while it lives, if there is memory in them that the kernel does not see
  /// otherwise. Interrupts are off.
  class Visit {
   public:
    explicit Visit(const AddressSpace& space);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    std::uint64_t back_ = 0;
  };
  explicit AddressSpace(AreaPool& pool) : areas_(pool), tables_(program_tables(), false) {}
  bool populate(std::uint64_t begin, std::uint64_t end, const Area& area);
  int fill_locked(std::uint64_t address, bool write, bool execute);
  void* reach(std::uint64_t address, bool write);
  bool remove_range(std::uint64_t begin, std::uint64_t end);
  [[nodiscard]] bool shows(unsigned slot) const;
  bool drop_pages(std::uint64_t begin, std::uint64_t end);
  void forget(std::uint64_t begin, std::uint64_t end);

  SpinLock lock_;
  AreaSet areas_;
  PageTables tables_;
  std::uint64_t break_begin_ = 0, break_end_ = 0;
  std::uint64_t views_[HOBBES_VIEWS / 64] = {};
  unsigned users_ = 0;
  bool has_shared_ = false;  // it has had shared memory
};

/// Pages that programs have touched first, ever.
std::uint64_t page_faults();

}  // namespace kitten
