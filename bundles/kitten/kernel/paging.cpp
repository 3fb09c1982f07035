#include "paging.h"

namespace kitten {
namespace {

constexpr std::uint64_t present = 1, writable = 2, program = 4, cache_off = 0x18, large = 0x80,
                        no_execute = 1ULL << 63U;
constexpr std::uint64_t retired = 1ULL << 9U;  // free for software; only where `present` is not set
constexpr std::uint64_t address_mask = 0x000ffffffffff000;
constexpr std::uint64_t access_mask = writable | program | cache_off | no_execute;
constexpr unsigned top = 3;
constexpr unsigned first_of_kernel = 256;

// The program bit of an entry that names a table: rights are what all levels allow.
std::uint64_t table_bits(std::uint64_t virtual_address) {
  return present | writable | (virtual_address < PageTables::kernel_half ? program : 0);
}
bool refused(Access access) { return access.write && access.execute && !access.program; }

std::uint64_t span(unsigned level) { return 1ULL << (12 + 9 * level); }
unsigned index_at(std::uint64_t address, unsigned level) {
  return static_cast<unsigned>(address >> (12 + 9 * level)) & 511U;
}
bool is_leaf(std::uint64_t entry, unsigned level) { return level == 0 || (entry & large) != 0; }

std::uint64_t bits_of(Access access) {
  return (access.write ? writable : 0) | (access.uncached ? cache_off : 0) |
         (access.program ? program : 0) | (access.execute ? 0 : no_execute);
}

std::uint64_t leaf(std::uint64_t physical, unsigned level, std::uint64_t access_bits) {
  return physical | present | access_bits | (level > 0 ? large : 0);
}

}  // namespace

bool PageTables::create() {
  root_ = memory_->take();
  return root_ != 0;
}

bool PageTables::create_beside(const PageTables& kernel) {
  if (!create()) return false;
  share_kernel_half(kernel);
  return true;
}

void PageTables::share_kernel_half(const PageTables& kernel) {
  const std::uint64_t* from = memory_->table(kernel.root_);
  for (unsigned i = first_of_kernel; i < 512; ++i)
    if (memory_->table(root_)[i] != from[i]) memory_->store(root_, i, from[i]);
}

void PageTables::give_tables(std::uint64_t table, unsigned level) {
  for (unsigned i = 0; i < (level == top ? first_of_kernel : 512U); ++i) {
    std::uint64_t entry = memory_->table(table)[i];
    if ((entry & present) != 0 && level > 0 && !is_leaf(entry, level))
      give_tables(entry & address_mask, level - 1);
  }
  memory_->give(table);
}

void PageTables::destroy() {
  if (root_ != 0) give_tables(root_, top);
  root_ = 0;
}

// The entry that decides about an address, at `down_to` or wherever the tables end before.
PageTables::Place PageTables::walk(std::uint64_t virtual_address, unsigned down_to) const {
  Place at{root_, index_at(virtual_address, top), top, 0};
  for (;;) {
    at.entry = memory_->table(at.table)[at.index];
    if ((at.entry & present) == 0 || is_leaf(at.entry, at.level) || at.level == down_to) return at;
    at = {at.entry & address_mask, index_at(virtual_address, at.level - 1), at.level - 1, 0};
  }
}

// The table below an entry, made if there is none. 0: no memory, or a large page is there.
std::uint64_t PageTables::step(std::uint64_t table, unsigned index, std::uint64_t bits) {
  std::uint64_t entry = memory_->table(table)[index];
  if ((entry & present) != 0) return (entry & large) != 0 ? 0 : entry & address_mask;
  std::uint64_t made = memory_->take();
  if (made != 0) memory_->store(table, index, made | bits);
  return made;
}

bool PageTables::map(std::uint64_t virtual_address, std::uint64_t physical, std::uint64_t size,
                     Access access) {
  if (refused(access) || size == 0 || (virtual_address | physical | size) % span(0) != 0)
    return false;
  std::uint64_t done = 0;
  while (done < size) {
    std::uint64_t to = virtual_address + done, from = physical + done;
    unsigned level = 0;
    for (unsigned higher = 1; higher <= (gigabyte_pages_ ? 2U : 1U); ++higher)
      if ((to | from) % span(higher) == 0 && size - done >= span(higher)) level = higher;
    std::uint64_t table = root_;
    for (unsigned above = top; above > level && table != 0; --above)
      table = step(table, index_at(to, above), table_bits(virtual_address));
    bool taken = table != 0 && (memory_->table(table)[index_at(to, level)] & present) != 0;
    if (table == 0 || taken) {
      if (done != 0) (void)unmap(virtual_address, done);
      prune(to);
      return false;
    }
    memory_->store(table, index_at(to, level), leaf(from, level, bits_of(access)));
    done += span(level);
  }
  return true;
}

// Makes a page boundary at an address.
bool PageTables::split_at(std::uint64_t virtual_address) {
  for (;;) {
    Place at = walk(virtual_address, 0);
    if ((at.entry & present) == 0 || at.level == 0 || virtual_address % span(at.level) == 0)
      return true;
    std::uint64_t table = memory_->take();
    if (table == 0) return false;
    for (unsigned i = 0; i < 512; ++i)
      memory_->store(table, i,
                     leaf((at.entry & address_mask) + i * span(at.level - 1), at.level - 1,
                          at.entry & access_mask));
    memory_->store(at.table, at.index, table | table_bits(virtual_address));
  }
}

// Gives back tables on the way to an address that hold nothing any more.
void PageTables::prune(std::uint64_t virtual_address) {
  std::uint64_t tables[top + 1] = {};
  std::uint64_t table = root_;
  unsigned lowest = top;
  for (unsigned level = top;; --level) {
    tables[level] = table;
    lowest = level;
    std::uint64_t entry = memory_->table(table)[index_at(virtual_address, level)];
    if ((entry & present) == 0 || is_leaf(entry, level)) break;
    table = entry & address_mask;
  }
  for (unsigned level = lowest; level + 1 < top; ++level) {
    for (unsigned i = 0; i < 512; ++i)
      if ((memory_->table(tables[level])[i] & (present | retired)) != 0) return;
    memory_->store(tables[level + 1], index_at(virtual_address, level + 1), 0);
    memory_->give(tables[level]);
  }
}

bool PageTables::unmap(std::uint64_t virtual_address, std::uint64_t size) {
  std::uint64_t end = virtual_address + size;
  if (!split_at(virtual_address) || !split_at(end)) return false;
  for (std::uint64_t at = virtual_address; at < end;) {
    Place place = walk(at, 0);
    std::uint64_t next = (at / span(place.level) + 1) * span(place.level);
    if ((place.entry & present) != 0) {
      memory_->store(place.table, place.index, 0);
      prune(at);
    }
    if (next == 0) break;
    at = next;
  }
  return true;
}

bool PageTables::retire(std::uint64_t virtual_address, std::uint64_t size) {
  std::uint64_t end = virtual_address + size;
  if (!split_at(virtual_address) || !split_at(end)) return false;
  for (std::uint64_t at = virtual_address; at < end;) {
    Place place = walk(at, 0);
    if ((place.entry & present) != 0)
      memory_->store(place.table, place.index, (place.entry & ~present) | retired);
    at = (at / span(place.level) + 1) * span(place.level);
  }
  return true;
}

void PageTables::reap(std::uint64_t virtual_address, std::uint64_t size, PageSink& sink) {
  std::uint64_t end = virtual_address + size;
  for (std::uint64_t at = virtual_address; at < end;) {
    Place place = walk(at, 0);
    if ((place.entry & (present | retired)) == retired) {
      memory_->store(place.table, place.index, 0);
      sink.take(place.entry & address_mask & ~(span(place.level) - 1), span(place.level));
      prune(at);
    }
    at = (at / span(place.level) + 1) * span(place.level);
  }
}

bool PageTables::protect(std::uint64_t virtual_address, std::uint64_t size, Access access) {
  std::uint64_t end = virtual_address + size;
  if (refused(access) || !split_at(virtual_address) || !split_at(end)) return false;
  for (std::uint64_t at = virtual_address; at < end;) {
    Place place = walk(at, 0);
    if ((place.entry & present) != 0)
      memory_->store(place.table, place.index, (place.entry & ~access_mask) | bits_of(access));
    std::uint64_t next = (at / span(place.level) + 1) * span(place.level);
    if (next == 0) break;
    at = next;
  }
  return true;
}

bool PageTables::find(std::uint64_t virtual_address, std::uint64_t* physical, Access* access,
                      std::uint64_t* page_size) const {
  Place at = walk(virtual_address, 0);
  *page_size = span(at.level);
  if ((at.entry & present) == 0) return false;
  *physical = (at.entry & address_mask & ~(span(at.level) - 1)) + virtual_address % span(at.level);
  *access = {(at.entry & writable) != 0, (at.entry & no_execute) == 0, (at.entry & cache_off) != 0,
             (at.entry & program) != 0};
  return true;
}

}  // namespace kitten
