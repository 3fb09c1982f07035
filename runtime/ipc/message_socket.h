// JSON messages with descriptors over a Unix socket: how Hobbes programs on one Linux talk to
// hobbesd. Protocol document: docs/CONTROL.md. One SOCK_SEQPACKET packet is one message; a request
// has "op", an answer has "ok".
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"
#include "ipc/peer.h"

namespace hobbes {

inline constexpr std::size_t message_limit = 192 << 10;  ///< bytes of one message
inline constexpr int message_fd_limit = 32;

struct Message {
  Json body;
  std::vector<Fd> fds;
};

/// One connected socket. Blocking calls with a deadline. Not thread-safe.
class MessageSocket {
 public:
  explicit MessageSocket(Fd fd) : fd_(std::move(fd)) {}
  /// Errors: Code::not_found or Code::unavailable when nobody listens, Code::denied.
  static Result<MessageSocket> connect(const std::string& path);

  Result<void> send(const Json& body, const std::vector<int>& fds = {});
  /// The same without waiting, whatever the socket's flags are: others may share and change them.
  /// Errors also: Code::os when there is no room.
  Result<void> send_now(const Json& body, const std::vector<int>& fds);
  /// Errors: Code::timeout; Code::unavailable when the peer closed; Code::invalid for a malformed
  /// message.
  Result<Message> receive(std::chrono::milliseconds deadline);
  /// The same for messages of strangers. One that carries descriptors stays where it is: the
  /// process that drops the last reference to a file may wait for its maker, by closing it (FUSE)
  /// or by ending it (SO_LINGER). The connection is of no more use then; close_in_child() ends it.
  /// Errors also: Code::denied for such a message.
  Result<Message> receive_without_descriptors(std::chrono::milliseconds deadline);
  [[nodiscard]] Fd take() && { return std::move(fd_); }
  [[nodiscard]] Result<Peer> peer() const { return Peer::of(fd_.get()); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  Result<void> send(const Json& body, const std::vector<int>& fds, int flags);
  Result<Message> receive(std::chrono::milliseconds deadline, bool descriptors);
  Fd fd_;
};

/// A listening SOCK_SEQPACKET socket at `path`, replacing a dead one. Errors: Code::busy when
/// somebody listens there.
Result<Fd> listen_at(const std::string& path, mode_t mode, int type);

}  // namespace hobbes
