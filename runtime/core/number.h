// Whole numbers in text from outside.
#pragma once
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hobbes {

/// The number that is all of `text`: no sign, no blanks, nothing behind it, at most `most`. Nothing
/// for anything else.
inline std::optional<std::uint64_t> whole_number(std::string_view text,
                                                 std::uint64_t most = UINT64_MAX, int base = 10) {
  std::uint64_t out = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || out > most)
    return std::nullopt;
  return out;
}

}  // namespace hobbes
