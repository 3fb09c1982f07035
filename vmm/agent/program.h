// A program in the guest, from the agent's request to its exit status.
#pragma once
#include <sys/types.h>

#include <atomic>

#include "enclave/drivers/palacios/agent_connection.h"

namespace hobbes::agent {

/// The root that programs see, where there is one.
inline constexpr const char* program_root = "/rootfs";

/// What conversations share, in memory of all of them.
struct Shared {
  std::atomic<pid_t> main_program;
};

/// {"op":"run","main":B,"process":P}: P has args, env, cwd, uid, gid, groups, umask, rlimits,
/// hostname, terminal, consoleSize, vcpus (those it is bound to; without: all). Answers
/// {"started":pid} or {"error":E}, carries its streams, and says how it ended. Returns then.
void run_program(const AgentConnection& monitor, const Json& request, Shared& shared);

}  // namespace hobbes::agent
