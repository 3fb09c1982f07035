// Byte counts as people write them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace hobbes {

/// Parses "4096", "512MiB", "1 GiB", "2G" or "2GB" (KMGT, all powers of 1024). Errors:
/// Code::invalid, also on overflow.
Result<std::uint64_t> parse_size(std::string_view text);
/// The shortest exact or one-decimal form: "512 MiB", "1.5 GiB".
std::string format_size(std::uint64_t bytes);

}  // namespace hobbes
