#include "address_space.h"

#include <cerrno>
#include <new>

#include "cores.h"
#include "cpu.h"
#include "shared_memory.h"
#include "views.h"

namespace kitten {
namespace {

constexpr std::uint64_t page = frame_size, block = block_size;
std::uint64_t filled;
// Stacks and mappings are placed below this; between it and the end lies a guard.
constexpr std::uint64_t map_top = HOBBES_PROGRAM_HIGH - block;
constexpr std::uint64_t map_bottom = 1ULL << 32U;
constexpr std::uint32_t remap_may_move = 1, remap_fixed = 2;
constexpr int advice_dont_need = 4;

std::uint64_t round_up(std::uint64_t value) { return (value + page - 1) & ~(page - 1); }

bool in_program(std::uint64_t address, std::uint64_t size) {
  return address >= HOBBES_PROGRAM_LOW && address < HOBBES_PROGRAM_HIGH &&
         size <= HOBBES_PROGRAM_HIGH - address;
}

// What is mapped for a protection. Without any right it stays mapped, for the kernel alone: its
// content must outlive that.
Access access_for(std::uint8_t protection) {
  return {(protection & protect_write) != 0, (protection & protect_execute) != 0, false,
          protection != 0};
}

// Areas of every program.
class FrameAreas final : public AreaPool {
 public:
  Area* take() override {
    Locked locked(lock_);
    if (free_ == nullptr) {
      std::uint64_t frame = take_frame(Use::kernel);
      if (frame == 0) return nullptr;
      auto* areas = static_cast<Area*>(at_physical(frame));
      for (std::size_t i = 0; i < page / sizeof(Area); ++i) {
        areas[i].next = free_;
        free_ = &areas[i];
      }
    }
    Area* out = free_;
    free_ = out->next;
    return out;
  }
  void give(Area* area) override {
    Locked locked(lock_);
    area->next = free_;
    free_ = area;
  }

 private:
  SpinLock lock_;
  Area* free_ = nullptr;
};
constinit FrameAreas area_pool;

class ProgramFrames final : public PageSink {
 public:
  void take(std::uint64_t physical, std::uint64_t size) override {
    for (std::uint64_t at = 0; at < size; at += block) {
      if (size >= block)
        give_block(physical + at, Use::programs);
      else
        give_frame(physical, Use::programs);
    }
  }
};

}  // namespace

std::uint64_t page_faults() { return __atomic_load_n(&filled, __ATOMIC_RELAXED); }

AddressSpace::Visit::Visit(const AddressSpace& space) {
  if (!space.has_shared_ || cpu::read_cr3() == space.root()) return;
  back_ = cpu::read_cr3();
  cpu::write_cr3(space.root());
}
AddressSpace::Visit::~Visit() {
  if (back_ != 0) cpu::write_cr3(back_);
}

AddressSpace* AddressSpace::make() {
  static_assert(sizeof(AddressSpace) <= page);
  std::uint64_t frame = take_frame(Use::kernel);
  if (frame == 0) return nullptr;
  auto* out = new (at_physical(frame)) AddressSpace(area_pool);
  if (out->tables_.create_beside(kernel_tables())) return out;
  give_frame(frame, Use::kernel);
  return nullptr;
}

void AddressSpace::share_kernel_half() { tables_.share_kernel_half(kernel_tables()); }

void AddressSpace::join(unsigned view) {
  Locked locked(lock_);
  views_[view / 64] |= 1ULL << (view % 64);
  hold();
}

void AddressSpace::leave(unsigned view) {
  {
    // Who uses it on may free its frames, and will not think of this view any more. Under the lock,
    // since a view forgets one range at a time.
    Locked locked(lock_);
    forget_in_view(view, 0, HOBBES_PROGRAM_HIGH);
    views_[view / 64] &= ~(1ULL << (view % 64));
  }
  release();
}

void AddressSpace::release() {
  if (__atomic_sub_fetch(&users_, 1U, __ATOMIC_ACQ_REL) != 0) return;
  clear();
  tables_.destroy();
  give_frame(reinterpret_cast<std::uint64_t>(this) - physical_map, Use::kernel);
}

// No core and no proxy remembers what was here.
void AddressSpace::forget(std::uint64_t begin, std::uint64_t end) {
  shoot_down(root());
  for (unsigned word = 0; word < HOBBES_VIEWS / 64; ++word)
    for (std::uint64_t bits = views_[word]; bits != 0; bits &= bits - 1)
      forget_in_view(word * 64 + static_cast<unsigned>(__builtin_ctzll(bits)), begin, end);
}

bool AddressSpace::drop_pages(std::uint64_t begin, std::uint64_t end) {
  if (!tables_.retire(begin, end - begin)) return false;
  forget(begin, end);
  ProgramFrames sink;
  tables_.reap(begin, end - begin, sink);
  return true;
}

bool AddressSpace::shows(unsigned slot) const {
  for (const Area* area = areas_.first(); area != nullptr; area = area->next)
    if (area->shared == slot + 1) return true;
  return false;
}

// Areas and what is behind them.
bool AddressSpace::remove_range(std::uint64_t begin, std::uint64_t end) {
  if (!drop_pages(begin, end)) return false;
  for (;;) {
    const Area* area = areas_.at_or_after(begin);
    while (area != nullptr && area->begin < end && area->shared == 0) area = area->next;
    if (area == nullptr || area->begin >= end) return areas_.remove(begin, end);
    const unsigned slot = area->shared - 1U;
    const std::uint64_t from = area->begin > begin ? area->begin : begin,
                        to = area->end < end ? area->end : end;
    if (!areas_.remove(from, to)) return false;
    if (!shows(slot)) drop_shared(slot);
  }
}

bool AddressSpace::show_shared(std::uint64_t address, std::uint64_t size, std::uint8_t protection,
                               unsigned slot, const hobbes_view_run* runs, unsigned count) {
  Locked locked(lock_);
  std::uint64_t done = 0;
  for (unsigned i = 0; i < count; ++i) {
    const hobbes_view_run run = runs[i];
    if (run.size == 0 || (run.address | run.size) % page != 0 || run.size > size - done ||
        run.address + run.size < run.address ||
        !tables_.map(address + done, run.address, run.size, access_for(protection)))
      break;
    done += run.size;
  }
  hold_shared(slot);
  has_shared_ = true;
  bool good = done == size && areas_.remove(address, address + size) &&
              areas_.add({address, address + size, protection, static_cast<std::uint16_t>(slot + 1),
                          nullptr});
  if (good) return true;
  (void)drop_pages(address, address + size);
  (void)areas_.remove(address, address + size);
  drop_shared(slot);
  return false;
}

bool AddressSpace::has_shared(std::uint64_t address, std::uint64_t size) {
  Locked locked(lock_);
  for (const Area* area = areas_.at_or_after(address);
       area != nullptr && area->begin < address + size; area = area->next)
    if (area->shared != 0) return true;
  return false;
}

std::uint64_t AddressSpace::shared_piece(std::uint64_t address) {
  Locked locked(lock_);
  const Area* area = areas_.find(address);
  if (area == nullptr || area->begin != address || area->shared == 0) return 0;
  const std::uint16_t shared = area->shared;
  std::uint64_t end = address;
  for (; area != nullptr && area->begin == end && area->shared == shared; area = area->next)
    end = area->end;
  return end - address;
}

void AddressSpace::clear() {
  Locked locked(lock_);
  (void)remove_range(0, HOBBES_PROGRAM_HIGH);
  areas_.clear();
  break_begin_ = break_end_ = 0;
}

// Backs a range with the largest pages that fit; what is there already stays.
bool AddressSpace::populate(std::uint64_t begin, std::uint64_t end, const Area& area) {
  for (std::uint64_t at = begin; at < end;) {
    std::uint64_t physical, size;
    Access access;
    if (tables_.find(at, &physical, &access, &size)) {
      at = (at / size + 1) * size;
      continue;
    }
    if (at % block == 0 && end - at >= block) {
      std::uint64_t whole = take_block(Use::programs);
      if (whole != 0 && tables_.map(at, whole, block, access_for(area.protection))) {
        at += block;
        continue;
      }
      if (whole != 0) give_block(whole, Use::programs);
    }
    std::uint64_t frame = take_frame(Use::programs);
    if (frame == 0) return false;
    if (!tables_.map(at, frame, page, access_for(area.protection))) {
      give_frame(frame, Use::programs);
      return false;
    }
    at += page;
  }
  return true;
}

std::int64_t AddressSpace::map(std::uint64_t address, std::uint64_t size, std::uint32_t protection,
                               std::uint32_t flags) {
  constexpr std::uint32_t known = protect_read | protect_write | protect_execute;
  constexpr std::uint32_t lazy = map_no_reserve | map_stack | map_grows_down;
  if (size == 0 || (protection & ~known) != 0) return -EINVAL;
  if (size > HOBBES_PROGRAM_HIGH) return -ENOMEM;
  size = round_up(size);
  Locked locked(lock_);
  const bool fixed = (flags & (map_fixed | map_fixed_no_replace)) != 0;
  if (fixed && address % page != 0) return -EINVAL;
  address &= ~(page - 1);
  if (fixed) {
    if (!in_program(address, size)) return address < HOBBES_PROGRAM_LOW ? -EPERM : -ENOMEM;
    const Area* there = areas_.at_or_after(address);
    bool taken = there != nullptr && there->begin < address + size;
    if (taken && (flags & map_fixed_no_replace) != 0) return -EEXIST;
    if (taken && !remove_range(address, address + size)) return -ENOMEM;
  } else {
    const Area* there = areas_.at_or_after(address);
    if (address == 0 || !in_program(address, size) ||
        (there != nullptr && there->begin < address + size))
      address = areas_.gap(map_bottom, map_top, size, size >= block ? block : page);
    if (address == 0) return -ENOMEM;
  }
  const Area area{address, address + size, static_cast<std::uint8_t>(protection), 0, nullptr};
  if (!areas_.add(area)) return -ENOMEM;
  // What a program asks for it gets at once, but for what is usually reserved and not touched, and
  // for more than a part of what there is.
  bool wanted = (flags & map_populate) != 0 ||
                (protection != 0 && (flags & lazy) == 0 && size <= free_memory() / 8);
  if (wanted && !populate(address, address + size, area) && (flags & map_populate) == 0) {
    (void)drop_pages(address, address + size);
    (void)areas_.remove(address, address + size);
    return -ENOMEM;
  }
  return static_cast<std::int64_t>(address);
}

std::int64_t AddressSpace::unmap(std::uint64_t address, std::uint64_t size) {
  if (address % page != 0 || size == 0 || size > HOBBES_PROGRAM_HIGH) return -EINVAL;
  size = round_up(size);
  if (address >= HOBBES_PROGRAM_HIGH || size > HOBBES_PROGRAM_HIGH - address) return -EINVAL;
  Locked locked(lock_);
  const Area* there = areas_.at_or_after(address);
  if (there == nullptr || there->begin >= address + size) return 0;
  return remove_range(address, address + size) ? 0 : -ENOMEM;
}

std::int64_t AddressSpace::protect(std::uint64_t address, std::uint64_t size,
                                   std::uint32_t protection) {
  constexpr std::uint32_t known = protect_read | protect_write | protect_execute;
  if (address % page != 0 || (protection & ~known) != 0) return -EINVAL;
  size = round_up(size);
  if (size == 0) return 0;
  if (!in_program(address, size)) return -ENOMEM;
  Locked locked(lock_);
  if (!areas_.covers(address, address + size)) return -ENOMEM;
  auto bits = static_cast<std::uint8_t>(protection);
  // Who remembers fewer rights than there are now faults and looks again.
  bool less = false;
  for (const Area* area = areas_.find(address); area != nullptr && area->begin < address + size;
       area = area->next)
    less |= (area->protection & ~bits) != 0;
  if (!areas_.protect(address, address + size, bits) ||
      !tables_.protect(address, size, access_for(bits)))
    return -ENOMEM;
  if (less) forget(address, address + size);
  return 0;
}

std::int64_t AddressSpace::remap(std::uint64_t address, std::uint64_t old_size,
                                 std::uint64_t new_size, std::uint32_t flags,
                                 std::uint64_t new_address) {
  if (address % page != 0 || new_size == 0 || new_size > HOBBES_PROGRAM_HIGH ||
      (flags & ~(remap_may_move | remap_fixed)) != 0 ||
      ((flags & remap_fixed) != 0 && ((flags & remap_may_move) == 0 || new_address % page != 0)))
    return -EINVAL;
  old_size = round_up(old_size);
  new_size = round_up(new_size);
  std::uint8_t protection;
  {
    Locked locked(lock_);
    const Area* area = areas_.find(address);
    if (area == nullptr || area->end - address < old_size || old_size == 0) return -EFAULT;
    if (area->shared != 0) return -EINVAL;  // Linux's memory cannot be moved from here
    protection = area->protection;
  }
  if ((flags & remap_fixed) == 0 && new_size <= old_size) {
    if (new_size < old_size) {
      std::int64_t cut = unmap(address + new_size, old_size - new_size);
      if (cut < 0) return cut;
    }
    return static_cast<std::int64_t>(address);
  }
  constexpr std::uint32_t kind = map_private | map_anonymous;
  if ((flags & remap_fixed) == 0) {
    std::int64_t grown =
        map(address + old_size, new_size - old_size, protection, kind | map_fixed_no_replace);
    if (grown >= 0) return static_cast<std::int64_t>(address);
    if ((flags & remap_may_move) == 0) return -ENOMEM;
  }
  std::int64_t to = map(new_address, new_size, protection,
                        kind | ((flags & remap_fixed) != 0 ? std::uint32_t{map_fixed} : 0U));
  if (to < 0) return to;
  std::uint64_t bytes = old_size < new_size ? old_size : new_size;
  {
    Locked locked(lock_);
    for (std::uint64_t at = 0; at < bytes; at += page) {
      std::uint64_t from, size;
      Access access;
      if (!tables_.find(address + at, &from, &access, &size)) continue;
      if (fill_locked(static_cast<std::uint64_t>(to) + at, false, false) == ENOMEM) return -ENOMEM;
      std::uint64_t target;
      if (tables_.find(static_cast<std::uint64_t>(to) + at, &target, &access, &size))
        __builtin_memcpy(at_physical(target), at_physical(from), page);
    }
  }
  (void)unmap(address, old_size);
  return to;
}

std::int64_t AddressSpace::advise(std::uint64_t address, std::uint64_t size, int advice) {
  if (address % page != 0) return -EINVAL;
  size = round_up(size);
  if (advice != advice_dont_need || size == 0) return 0;
  if (!in_program(address, size)) return -ENOMEM;
  Locked locked(lock_);
  if (!areas_.covers(address, address + size)) return -ENOMEM;
  for (const Area* area = areas_.find(address); area != nullptr && area->begin < address + size;
       area = area->next) {
    if (area->shared != 0) continue;  // it keeps its content
    const std::uint64_t from = area->begin > address ? area->begin : address,
                        to = area->end < address + size ? area->end : address + size;
    if (!drop_pages(from, to)) return -ENOMEM;
  }
  return 0;
}

std::int64_t AddressSpace::resident(std::uint64_t address, std::uint64_t size,
                                    std::uint64_t vector) {
  if (address % page != 0) return -EINVAL;
  size = round_up(size);
  if (!in_program(address, size)) return -ENOMEM;
  for (std::uint64_t at = 0; at < size; at += page) {
    std::uint8_t there;
    {
      Locked locked(lock_);
      if (areas_.find(address + at) == nullptr) return -ENOMEM;
      std::uint64_t physical, bytes;
      Access access;
      there = tables_.find(address + at, &physical, &access, &bytes) ? 1 : 0;
    }
    if (!write(vector + at / page, &there, 1)) return -EFAULT;
  }
  return 0;
}

std::uint64_t AddressSpace::set_break(std::uint64_t address) {
  std::uint64_t begin, end;
  {
    Locked locked(lock_);
    begin = break_begin_;
    end = break_end_;
  }
  if (address < begin || address >= HOBBES_PROGRAM_HIGH) return end;
  std::uint64_t from = round_up(end), to = round_up(address);
  if (to > from && map(from, to - from, protect_read | protect_write,
                       map_private | map_anonymous | map_fixed_no_replace) < 0)
    return end;
  if (to < from && unmap(to, from - to) < 0) return end;
  Locked locked(lock_);
  break_end_ = address;
  return address;
}

int AddressSpace::fill_locked(std::uint64_t address, bool write, bool execute) {
  const Area* area = areas_.find(address);
  if (area == nullptr) return EFAULT;
  std::uint8_t needed = write ? protect_write : execute ? protect_execute : protect_read;
  // As on Linux: what may be written or executed may be read.
  bool allowed = needed == protect_read ? area->protection != 0 : (area->protection & needed) != 0;
  if (!allowed) return EACCES;
  std::uint64_t physical, size;
  Access access;
  if (tables_.find(address, &physical, &access, &size)) return 0;
  if (area->shared != 0) return EFAULT;
  __atomic_add_fetch(&filled, 1U, __ATOMIC_RELAXED);
  std::uint64_t at = address & ~(block - 1);
  bool whole = at >= area->begin && at + block <= area->end && free_memory() > 8 * block;
  for (std::uint64_t i = 0; whole && i < block; i += page)
    whole = !tables_.find(at + i, &physical, &access, &size);
  if (whole && populate(at, at + block, *area)) return 0;
  at = address & ~(page - 1);
  return populate(at, at + page, *area) ? 0 : ENOMEM;
}

int AddressSpace::fill(std::uint64_t address, bool write, bool execute) {
  Locked locked(lock_);
  return fill_locked(address, write, execute);
}

// The kernel's address of a byte of the program's. Null: it may not be accessed so.
void* AddressSpace::reach(std::uint64_t address, bool write) {
  if (!in_program(address, 1)) return nullptr;
  std::uint64_t physical, size;
  Access access;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (tables_.find(address, &physical, &access, &size)) {
      if (!access.program || (write && !access.write)) return nullptr;
      const Area* area = has_shared_ ? areas_.find(address) : nullptr;
      if (area != nullptr && area->shared != 0) return reinterpret_cast<void*>(address);
      return at_physical(physical);
    }
    if (fill_locked(address, write, false) != 0) return nullptr;
  }
  return nullptr;
}

AddressSpace::WordKey AddressSpace::key_of(std::uint64_t address) {
  Locked locked(lock_);
  std::uint64_t physical, size;
  Access access;
  const Area* area = has_shared_ ? areas_.find(address) : nullptr;
  if (area != nullptr && area->shared != 0 && tables_.find(address, &physical, &access, &size))
    return {0, physical};
  return {root(), address};
}

bool AddressSpace::read(void* to, std::uint64_t from, std::uint64_t size) {
  auto* out = static_cast<std::uint8_t*>(to);
  while (size > 0) {
    std::uint64_t part = page - from % page;
    if (part > size) part = size;
    Locked locked(lock_);
    Visit visit(*this);
    const void* at = reach(from, false);
    if (at == nullptr) return false;
    __builtin_memcpy(out, at, part);
    out += part;
    from += part;
    size -= part;
  }
  return true;
}

bool AddressSpace::write(std::uint64_t to, const void* from, std::uint64_t size) {
  const auto* in = static_cast<const std::uint8_t*>(from);
  while (size > 0) {
    std::uint64_t part = page - to % page;
    if (part > size) part = size;
    Locked locked(lock_);
    Visit visit(*this);
    void* at = reach(to, true);
    if (at == nullptr) return false;
    __builtin_memcpy(at, in, part);
    in += part;
    to += part;
    size -= part;
  }
  return true;
}

bool AddressSpace::copy(AddressSpace& parent) {
  Locked locked(parent.lock_);
  break_begin_ = parent.break_begin_;
  break_end_ = parent.break_end_;
  has_shared_ = parent.has_shared_;
  for (const Area* area = parent.areas_.first(); area != nullptr; area = area->next) {
    Area mine = *area;
    if (area->shared != 0 && !shows(area->shared - 1U)) hold_shared(area->shared - 1U);
    if (!areas_.add(mine)) {
      if (area->shared != 0 && !shows(area->shared - 1U)) drop_shared(area->shared - 1U);
      return false;
    }
    for (std::uint64_t at = area->begin; at < area->end;) {
      std::uint64_t from, size;
      Access access;
      if (!parent.tables_.find(at, &from, &access, &size)) {
        at = (at / size + 1) * size;
        continue;
      }
      if (area->shared != 0) {
        if (!tables_.map(at, from, page, access_for(area->protection))) return false;
        at += page;
        continue;
      }
      std::uint64_t part =
          size >= block && at % block == 0 && area->end - at >= block ? block : page;
      if (!populate(at, at + part, *area)) return false;
      for (std::uint64_t i = 0; i < part; i += page) {
        std::uint64_t to, ignored;
        Access theirs;
        if (!tables_.find(at + i, &to, &theirs, &ignored)) return false;
        __builtin_memcpy(at_physical(to), at_physical(from + i), page);
      }
      at += part;
    }
  }
  return true;
}

}  // namespace kitten
