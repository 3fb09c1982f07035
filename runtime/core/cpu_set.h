// A set of small non-negative numbers: logical CPUs or NUMA nodes, in the kernel's list syntax
// ("0-3,8").
#pragma once
#include <bitset>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace hobbes {

/// A value type; members 0 .. capacity-1.
class CpuSet {
 public:
  static constexpr std::size_t capacity = 1024;

  CpuSet() = default;
  CpuSet(std::initializer_list<unsigned> members) {
    for (unsigned member : members) add(member);
  }

  /// Parses the kernel's list format. Errors: Code::invalid for bad syntax, a backward range or a
  /// number >= capacity.
  static Result<CpuSet> parse(std::string_view list);
  /// The canonical list, "" for the empty set.
  [[nodiscard]] std::string text() const;

  void add(unsigned member) { bits_.set(member); }
  void remove(unsigned member) { bits_.reset(member); }
  [[nodiscard]] bool has(unsigned member) const { return member < capacity && bits_.test(member); }
  [[nodiscard]] std::size_t count() const { return bits_.count(); }
  [[nodiscard]] bool empty() const { return bits_.none(); }
  [[nodiscard]] std::vector<unsigned> members() const;

  CpuSet operator|(const CpuSet& other) const { return CpuSet(bits_ | other.bits_); }
  CpuSet operator&(const CpuSet& other) const { return CpuSet(bits_ & other.bits_); }
  CpuSet operator-(const CpuSet& other) const { return CpuSet(bits_ & ~other.bits_); }
  bool operator==(const CpuSet& other) const { return bits_ == other.bits_; }

 private:
  explicit CpuSet(const std::bitset<capacity>& bits) : bits_(bits) {}
  std::bitset<capacity> bits_;
};

}  // namespace hobbes
