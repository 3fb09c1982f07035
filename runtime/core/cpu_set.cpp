#include "core/cpu_set.h"

#include <charconv>

namespace hobbes {

Result<CpuSet> CpuSet::parse(std::string_view list) {
  auto bad = [&](const std::string& why) {
    return Error{Code::invalid, "read the list '" + std::string(list.substr(0, 80)) + "'", why,
                 "write numbers and ranges such as 0-3,8 below " + std::to_string(capacity)};
  };
  while (!list.empty() && (list.back() == '\n' || list.back() == ' ')) list.remove_suffix(1);
  CpuSet set;
  std::string_view rest = list;
  while (!rest.empty()) {
    std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(item.size());
    if (!rest.empty()) {
      rest.remove_prefix(1);
      if (rest.empty()) return bad("it ends in a comma");
    }
    unsigned first = 0;
    const char* end = item.data() + item.size();
    auto [after, error] = std::from_chars(item.data(), end, first);
    if (error != std::errc()) return bad("'" + std::string(item) + "' is no number");
    unsigned last = first;
    if (after != end) {
      if (*after != '-') return bad("'" + std::string(item) + "' is no range");
      auto [range_end, range_error] = std::from_chars(after + 1, end, last);
      if (range_error != std::errc() || range_end != end)
        return bad("'" + std::string(item) + "' is no range");
    }
    if (last < first) return bad("the range '" + std::string(item) + "' runs backwards");
    if (last >= capacity) return bad("'" + std::string(item) + "' is too large");
    for (unsigned member = first; member <= last; ++member) set.add(member);
  }
  return set;
}

std::vector<unsigned> CpuSet::members() const {
  std::vector<unsigned> out;
  for (unsigned i = 0; i < capacity; ++i)
    if (bits_.test(i)) out.push_back(i);
  return out;
}

std::string CpuSet::text() const {
  std::string out;
  for (unsigned i = 0; i < capacity; ++i) {
    if (!bits_.test(i)) continue;
    unsigned last = i;
    while (last + 1 < capacity && bits_.test(last + 1)) ++last;
    if (!out.empty()) out += ',';
    out += std::to_string(i);
    if (last > i) out += '-' + std::to_string(last);
    i = last;
  }
  return out;
}

}  // namespace hobbes
