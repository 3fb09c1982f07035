#include "area_set.h"

namespace kitten {
namespace {

bool alike(const Area& a, const Area& b) {
  return a.protection == b.protection && a.shared == b.shared;
}

}  // namespace

Area* AreaSet::at_or_after(std::uint64_t address) const {
  Area* area = first_;
  while (area != nullptr && area->end <= address) area = area->next;
  return area;
}

Area* AreaSet::find(std::uint64_t address) const {
  Area* area = at_or_after(address);
  return area != nullptr && area->begin <= address ? area : nullptr;
}

void AreaSet::merge(Area* before) {
  if (before == nullptr || before->next == nullptr) return;
  Area* after = before->next;
  if (before->end != after->begin || !alike(*before, *after)) return;
  before->end = after->end;
  before->next = after->next;
  pool_->give(after);
}

bool AreaSet::add(const Area& area) {
  Area* before = nullptr;
  Area* after = first_;
  while (after != nullptr && after->begin < area.begin) {
    before = after;
    after = after->next;
  }
  Area* made = pool_->take();
  if (made == nullptr) return false;
  *made = area;
  made->next = after;
  (before == nullptr ? first_ : before->next) = made;
  merge(made);
  merge(before);
  return true;
}

// Makes a boundary at an address.
bool AreaSet::split(std::uint64_t address) {
  Area* area = find(address);
  if (area == nullptr || area->begin == address) return true;
  Area* rest = pool_->take();
  if (rest == nullptr) return false;
  *rest = *area;
  rest->begin = address;
  area->end = address;
  area->next = rest;
  return true;
}

bool AreaSet::remove(std::uint64_t begin, std::uint64_t end) {
  if (!split(begin) || !split(end)) return false;
  Area* before = nullptr;
  Area* area = first_;
  while (area != nullptr && area->begin < end) {
    Area* next = area->next;
    if (area->begin >= begin) {
      (before == nullptr ? first_ : before->next) = next;
      pool_->give(area);
    } else {
      before = area;
    }
    area = next;
  }
  return true;
}

bool AreaSet::covers(std::uint64_t begin, std::uint64_t end) const {
  for (const Area* area = at_or_after(begin); begin < end; area = area->next) {
    if (area == nullptr || area->begin > begin) return false;
    begin = area->end;
  }
  return true;
}

bool AreaSet::protect(std::uint64_t begin, std::uint64_t end, std::uint8_t protection) {
  if (!split(begin) || !split(end)) return false;
  Area* before = nullptr;
  for (Area* area = first_; area != nullptr && area->begin < end; area = area->next) {
    if (area->begin >= begin) area->protection = protection;
    if (area->end <= begin) before = area;
  }
  Area* area = before != nullptr ? before : first_;
  while (area != nullptr && area->begin <= end) {
    Area* next = area->next;
    if (next == nullptr) break;
    merge(area);
    if (area->next == next) area = next;
  }
  return true;
}

std::uint64_t AreaSet::gap(std::uint64_t low, std::uint64_t high, std::uint64_t size,
                           std::uint64_t alignment) const {
  std::uint64_t best = 0, from = low;
  auto consider = [&](std::uint64_t begin, std::uint64_t end) {
    if (end > high) end = high;
    if (begin < low) begin = low;
    if (end < begin || end - begin < size) return;
    std::uint64_t at = (end - size) & ~(alignment - 1);
    if (at >= begin) best = at;
  };
  for (const Area* area = first_; area != nullptr && area->begin < high; area = area->next) {
    if (area->begin > from) consider(from, area->begin);
    if (area->end > from) from = area->end;
  }
  consider(from, high);
  return best;
}

void AreaSet::clear() {
  while (first_ != nullptr) {
    Area* next = first_->next;
    pool_->give(first_);
    first_ = next;
  }
}

}  // namespace kitten
