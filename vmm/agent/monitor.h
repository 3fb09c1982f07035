// The monitor as the guest's agent asks it (abi/agent.h), on a stream for each request.
#pragma once
#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes::agent {

/// Errors: what the monitor answered; Code::os when it cannot be reached.
Result<Json> ask_monitor(const Json& request);

/// The same for a segment's doorbell (name, access, pid, listens): the stream stays and is it. It
/// does not block.
Result<Fd> connect_bell(Json request);

/// A request whose stream stays: it is answered once, and is then what the request has made of it
/// (abi/agent.h). It does not block.
struct Opened {
  Json answer;
  Fd stream;
};
Result<Opened> open_stream(const Json& request);
/// One more request on it.
Result<Json> ask_again(Opened& opened, const Json& request);

}  // namespace hobbes::agent
