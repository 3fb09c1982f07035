// OCI lifecycle hooks.
#pragma once
#include <string>
#include <vector>

#include "bundle/oci.h"
#include "core/json.h"
#include "core/result.h"

namespace hobbes {

/// Runs hooks in order with the state document on standard input, stopping at the first that fails.
/// `stage` names the list in errors. Errors: a hook that cannot run, exits nonzero (its last words
/// are quoted) or exceeds its timeout (default 60 s).
Result<void> run_hooks(const std::vector<oci::Hook>& hooks, const std::string& stage,
                       const Json& state);

/// The same, going on after failures, which it returns: for the stages after which nothing can be
/// taken back.
std::vector<Error> run_every_hook(const std::vector<oci::Hook>& hooks, const std::string& stage,
                                  const Json& state);

}  // namespace hobbes
