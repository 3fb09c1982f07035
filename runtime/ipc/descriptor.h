// One descriptor with a text over a Unix stream socket: the form in which OCI runtimes hand over
// terminals and seccomp listeners.
#pragma once
#include <chrono>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Connects to the receiver at `path`; each later call on the socket waits for it at most 10 s.
/// `what` names it in errors: Code::invalid for a path that is empty or fits no socket,
/// Code::not_found, Code::denied.
Result<Fd> connect_receiver(const std::string& path, const std::string& what,
                            const std::string& remedy);
/// Sends `text` with `fd` as SCM_RIGHTS (unix(7)) in one sendmsg(2) and no other system call, as a
/// seccomp filter may watch the caller. `what` names the descriptor in errors: Code::os.
Result<void> send_descriptor(const Fd& socket, const std::string& text, const Fd& fd,
                             const std::string& what);

/// What send_descriptor has sent.
struct ReceivedDescriptor {
  Fd fd;
  std::string text;  ///< cut at 16 KiB
};
/// Accepts one connection of a listening socket and reads from it, each within `limit`. `what`
/// names the descriptor in errors: Code::timeout, Code::corrupt when something else was sent,
/// Code::os.
Result<ReceivedDescriptor> receive_descriptor(const Fd& listening, std::chrono::milliseconds limit,
                                              const std::string& what);

}  // namespace hobbes
