// A connection that a program of the guest makes to a port of its loopback, carried to the node.
#pragma once
#include "enclave/drivers/palacios/agent_connection.h"

namespace hobbes::agent {

/// {"op":"forward"}: listens on a port of the guest's loopback, answers {"port":P} or {"error":E},
/// and carries the bytes of the first connection to it over the same stream, until either side
/// ends. Returns then.
void forward_port(AgentConnection node);

}  // namespace hobbes::agent
