#include "core/identity.h"

#include "core/file.h"
#include "core/number.h"

namespace hobbes {

Result<void> check_id(std::string_view id) {
  auto bad = [&](const std::string& why) {
    return Error{Code::invalid, "use '" + std::string(id.substr(0, 40)) + "' as an id", why,
                 "use letters, digits and _ + - . (at most " + std::to_string(id_limit) +
                     ", not starting with . or -)"};
  };
  if (id.empty()) return bad("it is empty");
  if (id.size() > id_limit) return bad("it has " + std::to_string(id.size()) + " characters");
  if (id.front() == '.' || id.front() == '-')
    return bad("it starts with '" + std::string(1, id.front()) + "'");
  for (char c : id) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                c == '_' || c == '+' || c == '-' || c == '.';
    if (!good) return bad("it has a character that is not allowed");
  }
  return {};
}

std::string hex(std::uint64_t number, unsigned digits) {
  std::string out(digits, '0');
  for (unsigned i = 0; i < digits; ++i) {
    out[digits - 1 - i] = "0123456789abcdef"[number & 15U];
    number >>= 4U;
  }
  return out;
}

std::string to_hex(std::string_view bytes) {
  std::string out;
  for (char byte : bytes) out += hex(static_cast<unsigned char>(byte), 2);
  return out;
}

std::string from_hex(std::string_view digits) {
  std::string out;
  if (digits.size() % 2 != 0) return out;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    auto byte = whole_number(digits.substr(i, 2), 255, 16);
    if (!byte) return {};
    out += static_cast<char>(*byte);
  }
  return out;
}

Result<std::string> boot_id() {
  HOBBES_TRY(text, Files::system().read("/proc/sys/kernel/random/boot_id"));
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return std::move(text);
}

}  // namespace hobbes
