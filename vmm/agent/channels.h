// Channels of programs of the guest: their memory is in the window, their wake-ups are a stream to
// the monitor.
#pragma once
#include "core/json.h"
#include "core/result.h"
#include "ipc/message_socket.h"

namespace hobbes::agent {

/// "channel.connect" and "name.publish" as hobbesd answers them on the node (docs/CONTROL.md). A
/// process of its own passes on who connects to what was published, until nobody listens.
Result<Message> open_channel(const Json& request);
Result<Message> publish_service(const Json& request);

}  // namespace hobbes::agent
