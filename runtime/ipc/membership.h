// A place in a composition that is being hosted (`remora host`): asked for when an enclave is made,
// so that a bundle started by any engine can be one of its ranks. Protocol: docs/COMPOSITION.md,
// "Joining".
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"

namespace hobbes {

struct Membership {
  std::string composition;
  unsigned rank = 0;                     ///< in the universe
  std::vector<std::string> environment;  ///< "K=V", what the rank's program needs to find its peers
  std::vector<std::pair<std::string, std::string>>
      mounts;  ///< host folder -> place in the enclave, writable
};

/// Where a user's composition is hosted.
std::string hosting_socket_path(uid_t uid, const std::string& composition);

/// Takes the next free rank of an app, waiting up to `limit` for somebody to host the composition.
/// Errors: Code::timeout, Code::not_found (no such app), Code::exhausted (all its ranks are taken),
/// Code::denied.
Result<Membership> join_composition(const std::string& composition, const std::string& app,
                                    std::chrono::seconds limit);
/// Says which process the rank is. `rank` -1: the one of `app` that was taken longest ago and has
/// no process yet.
Result<void> arrive(const std::string& composition, const std::string& app, int rank, pid_t pid);
/// Gives a rank back that never got its process.
Result<void> leave(const std::string& composition, unsigned rank);

}  // namespace hobbes
