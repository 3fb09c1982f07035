// The monitor as the guest's agent asks it, and the places of the window that no program of the guest uses any more.
#pragma once
#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes::agent {

/// One request to the monitor, on a stream of its own (abi/agent.h).
Result<Json> ask_monitor(const Json& request);

/// The same for a segment's doorbell (name, access, pid, listens): the stream stays and is it.
Result<Fd> connect_bell(Json request);

/// A process's whole life. Once `attached` (an eventfd) is written it looks every few seconds who maps segments or could still do so, and
/// has the monitor hide those that nobody does; when none is left it waits again. Found by looking, since programs end without saying so.
[[noreturn]] void give_back_places(int attached);

}  // namespace hobbes::agent
