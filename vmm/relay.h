// What the relays between programs of a guest and its node have in common. A wake-up is a byte of
// a stream between the monitor and a program; only that some came matters.
#pragma once
#include <sys/socket.h>

#include <chrono>

#include "core/fd.h"

namespace hobbes::vmm {

/// Never waits: a full stream has told it already.
inline void send_wake_up(const Fd& stream) {
  (void)!::send(stream.get(), "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// How long hobbesd may take to answer, while the guest's other requests wait.
inline constexpr std::chrono::milliseconds manager_limit{2000};

}  // namespace hobbes::vmm
