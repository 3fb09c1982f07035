#include "core/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace hobbes {
namespace {
constexpr std::array<const char*, 11> code_names = {
    "invalid",     "not-found",   "exists",  "busy",    "denied", "exhausted",
    "unavailable", "unsupported", "timeout", "corrupt", "os"};

Code code_of_errno(int number) {
  switch (number) {
    case ENOENT:
    case ESRCH:
      return Code::not_found;
    case EEXIST:
      return Code::exists;
    case EBUSY:
      return Code::busy;
    case EPERM:
    case EACCES:
      return Code::denied;
    case ENOSPC:
    case ENOMEM:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return Code::exhausted;
    case ETIMEDOUT:
      return Code::timeout;
    default:
      return Code::os;
  }
}

// Container engines classify failures by these lower-case phrases, so they are spelled here and not
// left to the locale.
std::string phrase_of_errno(int number) {
  switch (number) {
    case ENOENT:
      return "no such file or directory";
    case EACCES:
      return "permission denied";
    case EPERM:
      return "operation not permitted";
    default:
      return std::strerror(number);
  }
}
}  // namespace

const char* name_of(Code code) { return code_names.at(static_cast<std::size_t>(code)); }

Code code_named(std::string_view name) {
  for (std::size_t i = 0; i < code_names.size(); ++i)
    if (name == code_names[i]) return static_cast<Code>(i);
  return Code::os;
}

std::string Error::text() const {
  std::string out = "cannot " + attempt + ": " + cause;
  if (!remedy.empty()) out += "; " + remedy;
  return out;
}

Error Error::within(std::string_view outer) && {
  cause = attempt + ": " + cause;
  attempt = outer;
  return std::move(*this);
}

Error os_error(std::string attempt, int error_number, std::string remedy) {
  return {code_of_errno(error_number), std::move(attempt), phrase_of_errno(error_number),
          std::move(remedy)};
}

}  // namespace hobbes
