// Where one HTTP/1.1 request ends and the next begins.
#pragma once
#include <cstddef>
#include <string_view>

namespace hobbes {

inline constexpr std::size_t request_head_limit = 64 << 10;  ///< bytes of request line and fields

struct RequestFrame {
  enum class State { incomplete, whole, refused };
  State state = State::incomplete;
  std::size_t size = 0;     ///< whole: bytes of the request, its body included
  int status = 0;           ///< refused: 400, 411, 413 or 431
  const char* reason = "";  ///< refused: why, for its sender; the connection cannot be used further
};

/// Looks at what a client has sent so far. A request has the body that Content-Length says,
/// whatever its method, and none without it (RFC 9112, section 6.3). Refused: a transfer coding,
/// lengths that differ or are no numbers, a body above `body_limit`, a head above
/// request_head_limit, a line end other than CR LF in the head. Never reads beyond `bytes`.
RequestFrame frame_request(std::string_view bytes, std::size_t body_limit);

}  // namespace hobbes
