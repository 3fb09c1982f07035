// Pseudo-terminals for `terminal: true`.
#pragma once
#include <optional>
#include <string>

#include "bundle/oci.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Connects to the caller's console socket. Errors: Code::not_found, Code::invalid when there is no
/// socket.
Result<Fd> connect_console(const std::string& path);
/// Opens a terminal of the current mount namespace, sends its master through `socket`, and makes
/// the slave the controlling terminal and standard streams of this process. `at_dev_console`: also
/// binds it there.
Result<void> take_console(const Fd& socket, const std::optional<oci::ConsoleSize>& size,
                          uid_t owner, bool at_dev_console);

}  // namespace hobbes
