// Segments for programs of the guest: attaching and making them, and their doorbells. Their memory
// is in the window.
#pragma once
#include <sys/types.h>

#include "core/json.h"
#include "core/result.h"
#include "ipc/message_socket.h"

namespace hobbes::agent {

/// As hobbesd answers them on the node (docs/CONTROL.md). `attached`: an eventfd (places.h).
Result<Message> attach_segment(const Json& request, int attached);
/// "segment.listen" and "segment.listeners", for process `program`.
Result<Message> connect_doorbell(const Json& request, pid_t program);
/// What the program has written to the memory behind descriptor "fd" of `program` is copied to
/// memory of the node before the segment has its name. The answer brings that memory and a stream
/// whose end removes the segment.
Result<Message> make_segment(const Json& request, pid_t program);

}  // namespace hobbes::agent
