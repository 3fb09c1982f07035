// Who a program runs as: user, groups, capabilities, limits.
#pragma once
#include "bundles/oci.h"
#include "core/result.h"

namespace hobbes {

/// Resource limits and OOM score; while still privileged.
Result<void> apply_limits(const oci::Process& process);
/// Bounding set, then user and groups, then the remaining capability sets. Nothing privileged works afterwards.
/// Unknown capability names are ignored with the kernel's own (an older kernel has fewer).
Result<void> become(const oci::Process& process);

}  // namespace hobbes
