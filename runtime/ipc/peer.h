// Who is at the other end of a Unix socket, as the kernel vouches for it.
#pragma once
#include <sys/types.h>

#include <memory>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// The credentials a process had when it connected. Copies share one descriptor of that process. A
/// value; thread-safe to copy.
struct Peer {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< supplementary
  pid_t pid = 0;              ///< 0: no process of this node, as for a bearer token
  std::shared_ptr<const Fd>
      process;  ///< a pidfd of it; null when it had ended before anybody looked

  /// Of a connected socket. A pid that meanwhile names another process is noticed: by SO_PEERPIDFD
  /// (Linux 6.5), before by the user of the process that has the number now. Such a peer has no
  /// `process`. Errors: Code::os, it is no Unix socket.
  static Result<Peer> of(int socket);
  /// Only the number that the process had when it connected, for looking at it: asks less of the
  /// kernel than of().
  static Result<pid_t> pid_of(int socket);
  /// False once the process that connected has ended: its pid may be anybody's by then.
  [[nodiscard]] bool alive() const;
  [[nodiscard]] bool in_group(gid_t group) const;
  /// Whether it is outside of every enclave as far as this process is: enclaves have mount
  /// namespaces of their own.
  [[nodiscard]] bool shares_mount_namespace() const;
};

}  // namespace hobbes
