// The REST API of hobbesd. It translates HTTP to requests on the control socket and reads the mirror; it holds no state of its
// own, so a slow or hostile client costs one of its threads and nothing else.
#pragma once
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

struct ApiOptions {
  std::string tcp_address;              ///< HOST:PORT, empty: Unix socket only
  std::string certificate, key;         ///< PEM, needed with tcp_address
  std::map<std::string, uid_t> tokens;  ///< SHA-256 hex of a bearer token -> user
};

/// Serves in threads of its own from start() until stop() or destruction.
class ApiServer {
 public:
  virtual ~ApiServer() = default;
  virtual void stop() = 0;
  /// `listening` is a Unix stream socket. Errors: Code::invalid for TCP without TLS, Code::os.
  static Result<std::unique_ptr<ApiServer>> start(Fd listening, const ApiOptions& options);
};

}  // namespace hobbes
