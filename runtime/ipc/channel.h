// JSON messages with descriptors over a Unix socket: how Hobbes programs on one Linux talk to hobbesd.
// Protocol document: docs/CONTROL.md. One SOCK_SEQPACKET packet is one message; a request has "op", an answer has "ok".
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

inline constexpr std::size_t message_limit = 192 << 10;  ///< bytes of one message
inline constexpr int message_fd_limit = 32;

struct Message {
  Json body;
  std::vector<Fd> fds;
};

/// The credentials the kernel vouches for.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

/// One connected socket. Blocking calls with a deadline. Not thread-safe.
class Channel {
 public:
  explicit Channel(Fd fd) : fd_(std::move(fd)) {}
  /// Errors: Code::not_found or Code::unavailable when nobody listens, Code::denied.
  static Result<Channel> connect(const std::string& path);

  Result<void> send(const Json& body, const std::vector<int>& fds = {});
  /// Errors: Code::timeout; Code::unavailable when the peer closed; Code::invalid for a malformed message.
  Result<Message> receive(std::chrono::milliseconds deadline);
  [[nodiscard]] Result<Peer> peer() const;
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  Fd fd_;
};

/// A listening SOCK_SEQPACKET socket at `path`, replacing a dead one. Errors: Code::busy when somebody listens there.
Result<Fd> listen_at(const std::string& path, mode_t mode, int type);

}  // namespace hobbes
