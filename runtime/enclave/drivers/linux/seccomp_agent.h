// The agent that a seccomp profile names: a program outside that answers the system calls of an
// enclave's programs.
#pragma once
#include <string>

#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

/// Connects to the agent's socket, with the caller's rights and in his mount namespace. Errors:
/// Code::not_found, Code::denied, Code::invalid for a path that fits no socket.
Result<Fd> connect_seccomp_agent(const std::string& path);
/// Sends the listener of a filter, with what the runtime-spec calls the container process state
/// (runtime.md, "Seccomp notification"): `state` is that of the enclave, `pid` that of the process
/// under the filter, as the node counts. One sendmsg(2), which the filter must let pass.
Result<void> give_seccomp_listener(const Fd& agent, const Fd& listener, const Json& state,
                                   const std::string& metadata);

}  // namespace hobbes
