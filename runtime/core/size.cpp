#include "core/size.h"

#include <charconv>
#include <cstdio>

namespace hobbes {

Result<std::uint64_t> parse_size(std::string_view text) {
  auto bad = [&](const char* why) {
    return Error{Code::invalid, "read the size '" + std::string(text.substr(0, 40)) + "'", why,
                 "write a whole number with an optional unit KiB, MiB, GiB or TiB"};
  };
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  auto [after, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) return bad("the number is too large");
  if (error != std::errc()) return bad("it does not start with a number");
  std::string_view unit(after, static_cast<std::size_t>(end - after));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  unsigned shift = 0;
  if (!unit.empty() && unit != "B") {
    switch (unit.front()) {
      case 'k':
      case 'K':
        shift = 10;
        break;
      case 'm':
      case 'M':
        shift = 20;
        break;
      case 'g':
      case 'G':
        shift = 30;
        break;
      case 't':
      case 'T':
        shift = 40;
        break;
      default:
        return bad("the unit is unknown");
    }
    std::string_view rest = unit.substr(1);
    if (!rest.empty() && rest != "B" && rest != "iB" && rest != "i")
      return bad("the unit is unknown");
  }
  if (shift != 0 && number > (UINT64_MAX >> shift)) return bad("the number is too large");
  return number << shift;
}

std::string format_size(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  unsigned unit = 0;
  std::uint64_t whole = bytes;
  while (whole >= 1024 && unit < 5) {
    whole /= 1024;
    ++unit;
  }
  std::uint64_t base = std::uint64_t{1} << (10 * unit);
  if (bytes % base == 0) return std::to_string(whole) + " " + units[unit];
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s",
                static_cast<double>(bytes) / static_cast<double>(base), units[unit]);
  return text;
}

}  // namespace hobbes
