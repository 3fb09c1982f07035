// A stream of frames (abi/agent.h) for an event loop: never waits for the guest, whatever it sends
// or does not take.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "abi/agent.h"
#include "core/fd.h"
#include "core/json.h"

namespace hobbes::vmm {

/// Not thread-safe.
class FrameStream {
 public:
  /// Takes a stream socket.
  explicit FrameStream(Fd stream);
  /// False when the other side does not take it or has gone: the stream is of no more use.
  [[nodiscard]] bool send(const Json& json) const;
  /// The JSON frames that are whole by now. Absent: the other side has gone or broke the rules.
  std::optional<std::vector<Json>> receive();
  /// As receive(), but takes no byte behind the first frame: what follows is somebody else's.
  std::optional<std::vector<Json>> receive_one();
  [[nodiscard]] int fd() const { return stream_.get(); }
  /// Gives the socket away, blocking again; nothing may have been received in part.
  Fd release() &&;

 private:
  std::optional<std::vector<Json>> take(std::size_t limit);

  Fd stream_;
  std::string received_;
};

}  // namespace hobbes::vmm
