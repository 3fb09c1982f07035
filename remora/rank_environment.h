// What the processes of a composition find in their environment beside their enclave's own:
// docs/COMPOSITION.md says it to users.
#pragma once
#include <string>
#include <vector>

#include "remora/launcher.h"
#include "remora/rank.h"
#include "remora/session_folder.h"

namespace hobbes {

/// What a process takes over from the caller of `remora run`: "K=V" each.
std::vector<std::string> inherited_environment(bool host_root);

/// What Remora tells it, without the PMIx server's own: who it is and, where it is a rank, how to
/// reach the others.
std::vector<std::string> environment_of(const Rank& rank, const Composition& composition,
                                        const std::vector<Stage::Place>& places,
                                        const SessionFolder& session, const LaunchOptions& options);

}  // namespace hobbes
