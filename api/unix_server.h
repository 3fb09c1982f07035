// HTTP on a Unix socket: connections wait in one thread until a whole request is there; only then
// does it get a thread of its own.
#pragma once
#include <httplib.h>

#include <memory>

#include "core/fd.h"
#include "core/result.h"
#include "ipc/peer.h"

namespace hobbes {

/// Serves an httplib::Server's routes, which has no server of its own for Unix sockets. A slow or
/// silent client costs a descriptor and what it has sent so far, never a thread. Each user has a
/// part of the connections and threads, and root a reserve.
class UnixServer {
 public:
  virtual ~UnixServer() = default;
  /// Ends every connection and thread. Idempotent.
  virtual void stop() = 0;
  /// The peer whose request the calling thread serves.
  static const Peer& current_peer();

  /// `add_routes` is called once, before the first request. Errors: Code::os.
  static Result<std::unique_ptr<UnixServer>> start(
      Fd listening, const std::function<void(httplib::Server&)>& add_routes);
};

}  // namespace hobbes
