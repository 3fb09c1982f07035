#include "api/request_framing.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>

namespace hobbes {
namespace {

RequestFrame refused(int status, const char* reason) {
  return {RequestFrame::State::refused, 0, status, reason};
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::optional<std::size_t> number(std::string_view text) {
  if (text.empty() || text.size() > 15) return std::nullopt;
  std::size_t out = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    out = out * 10 + static_cast<std::size_t>(c - '0');
  }
  return out;
}

}  // namespace

RequestFrame frame_request(std::string_view bytes, std::size_t body_limit) {
  std::size_t end = bytes.find("\r\n\r\n");
  std::string_view head = bytes.substr(0, end);
  if (head.size() > request_head_limit) return refused(431, "the request's head is too large");
  for (std::size_t at = head.find('\n'); at != std::string_view::npos; at = head.find('\n', at + 1))
    if (at == 0 || head[at - 1] != '\r') return refused(400, "a line does not end in CR LF");
  if (end == std::string_view::npos) return {};

  std::optional<std::size_t> length;
  std::size_t line_end = head.find("\r\n");  // after the request line
  while (line_end != std::string_view::npos) {
    std::size_t begin = line_end + 2;
    line_end = head.find("\r\n", begin);
    std::string_view line =
        head.substr(begin, line_end == std::string_view::npos ? line_end : line_end - begin);
    std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0 || line[colon - 1] == ' ' ||
        line[colon - 1] == '\t' || line[0] == ' ' || line[0] == '\t')
      return refused(400, "a header field is malformed");
    std::string_view name = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
    if (same_name(name, "transfer-encoding"))
      return refused(411, "the body is chunked; send it plain, with Content-Length");
    if (!same_name(name, "content-length")) continue;
    auto one = number(value);
    if (!one || (length && *length != *one))
      return refused(400, "Content-Length is no number, or there are several");
    length = one;
  }
  if (length.value_or(0) > body_limit) return refused(413, "the body is too large");
  std::size_t size = end + 4 + length.value_or(0);
  if (bytes.size() < size) return {};
  return {RequestFrame::State::whole, size, 0, ""};
}

}  // namespace hobbes
