// The REST API of hobbesd. It translates HTTP to requests of the node manager and reads the mirror;
// it holds no state of its own, so a slow or hostile client costs one of its threads and nothing
// else.
#pragma once
#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"
#include "ipc/message_socket.h"
#include "ipc/peer.h"

namespace hobbes {

/// Asks the node manager for somebody: {"op": ..., ...} as in docs/CONTROL.md, and its answer, with
/// the descriptors of those that have some. Called in the API's threads.
using Dispatch = std::function<Result<Message>(const Peer& peer, Json request)>;

struct ApiOptions {
  std::string tcp_address;              ///< HOST:PORT, empty: Unix socket only
  std::string certificate, key;         ///< PEM, needed with tcp_address
  std::map<std::string, uid_t> tokens;  ///< SHA-256 hex of a bearer token -> user
  Dispatch dispatch;
};

/// Serves in threads of its own from start() until stop() or destruction.
class ApiServer {
 public:
  virtual ~ApiServer() = default;
  virtual void stop() = 0;
  /// Other tokens from the next request on. Thread-safe.
  virtual void set_tokens(std::map<std::string, uid_t> tokens) = 0;
  /// `listening` is a Unix stream socket. Errors: Code::invalid for TCP without TLS, Code::os.
  static Result<std::unique_ptr<ApiServer>> start(Fd listening, const ApiOptions& options);
};

}  // namespace hobbes
