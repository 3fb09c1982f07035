// Who a program runs as: user, groups, capabilities, limits.
#pragma once
#include "bundle/oci.h"
#include "core/result.h"

namespace hobbes {

/// Resource limits; while still privileged.
Result<void> apply_limits(const oci::Process& process);
/// The OOM score of another process, or of this one as "self".
Result<void> set_oom_score(const oci::Process& process, const std::string& pid);
/// Gives the standard streams to the process's user, as far as they are pipes, terminals, sockets
/// or files of the caller: a device of the host stays the host's.
void give_streams(const oci::Process& process);
/// All capabilities that are permitted, effective again: a change of user from one that is not
/// root's leaves them permitted only.
Result<void> raise_permitted();
/// Bounding set, then user and groups, then the remaining capability sets. Nothing privileged works
/// afterwards. Unknown capability names are ignored with the kernel's own (an older kernel has
/// fewer).
Result<void> become(const oci::Process& process);
/// Names in any of the sets that no kernel this was built for knows, each once, separated by
/// commas; empty when there are none.
std::string unknown_capabilities(const oci::Capabilities& wanted);

}  // namespace hobbes
