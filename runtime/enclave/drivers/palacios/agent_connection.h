// A stream to a guest's agent, or the agent's side of one: frames of abi/agent.h.
#pragma once
#include <chrono>
#include <string>

#include "abi/agent.h"
#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

struct AgentFrame {
  std::uint32_t type = 0;
  std::string content;
};

/// The bytes of a frame.
std::string framed(std::uint32_t type, std::string_view content);

/// Blocking, with a deadline. Not thread-safe, but one thread may send while another receives.
class AgentConnection {
 public:
  explicit AgentConnection(Fd stream) : stream_(std::move(stream)) {}
  Result<void> send(std::uint32_t type, std::string_view content) const;
  Result<void> send(const Json& json) const { return send(HOBBES_FRAME_JSON, to_text(json)); }
  /// Errors: Code::unavailable when the other side has closed; Code::timeout; Code::corrupt for
  /// what is no frame.
  Result<AgentFrame> receive(std::chrono::milliseconds deadline) const;
  /// A request and its answer, whose "error" becomes the Error.
  Result<Json> ask(const Json& request, std::chrono::milliseconds deadline) const;
  [[nodiscard]] int fd() const { return stream_.get(); }
  /// The stream, for what is not frames.
  Fd release() && { return std::move(stream_); }

 private:
  Fd stream_;
};

struct Streams {
  int in = 0, out = 1, err = 2;
  int signals = -1;  ///< a signalfd; what comes there goes to the program, but a third SIGTERM or
                     ///< SIGINT ends the carrying
};
/// Carries a program's streams until it ends; -1 for `in` or `signals` gives it none. The wait
/// status it ended with. Errors: the guest is gone.
Result<int> relay_stdio(const AgentConnection& program, const Streams& streams);

}  // namespace hobbes
