// The page and the REST API for one person's browser, on a loopback port, with the rights of the
// user who runs it. Formats: docs/DASHBOARD.md.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "api/server.h"
#include "core/result.h"

namespace hobbes {

/// Serves in threads of its own until destruction. Other users of the machine reach the port, too,
/// and so do pages of other servers: a request is answered only if it has the session that the
/// one-time token was exchanged for, names a loopback host (which a rebound DNS name does not) and
/// comes from the page itself. The session is no cookie, since browsers send cookies of a host to
/// all its ports.
class LoopbackServer {
 public:
  virtual ~LoopbackServer() = default;
  [[nodiscard]] virtual std::uint16_t port() const = 0;
  /// Where the page is; its token admits one browser, once.
  [[nodiscard]] virtual std::string url() const = 0;
  /// `port` 0: any that is free. `dispatch` is called in several threads at once; its peer is the
  /// user of this process. Errors: Code::exists for a port that is taken, Code::denied for one that
  /// needs privilege, Code::os.
  static Result<std::unique_ptr<LoopbackServer>> start(std::uint16_t port, Dispatch dispatch);
};

}  // namespace hobbes
