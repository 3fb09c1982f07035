// `hobbes dashboard`: the node's page for the browser of one person, with that person's rights.
#pragma once
#include <cstdint>

#include "core/result.h"

namespace hobbes {

/// Prints the page's address (or {"url", "port"} with `json`) and serves it until SIGINT or SIGTERM
/// comes. Errors: Code::exists, the port is taken; Code::unavailable, hobbesd does not run.
Result<void> serve_dashboard(std::uint16_t port, bool json);

}  // namespace hobbes
