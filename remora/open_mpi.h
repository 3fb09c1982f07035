// The Open MPI of the ranks: what its programs must find in their environment, and the component
// that gives each app its own MPI_COMM_WORLD. Both differ between releases, so they are those of
// the release this was built with.
#pragma once
#include <string>
#include <vector>

#include "core/result.h"
#include "remora/composition.h"
#include "remora/session_folder.h"

namespace hobbes {

/// What Open MPI cannot know of a rank by itself.
struct OpenMpiRank {
  const SessionFolder& session;  ///< of the composition, which every rank sees
  bool takes_turns = false;      ///< its enclave has fewer CPUs than ranks
  bool hides_memory = false;     ///< some rank's memory cannot be reached by its pid
};

/// "K=V" each. Without them a rank would silently be a job of its own.
std::vector<std::string> open_mpi_settings(const OpenMpiRank& rank);

/// The folder of the component, below that of libremora.so: of the build tree where this program
/// runs from one, else of the installation. Every rank must see it at that path.
std::string component_directory();

/// Whether the programs of a composition can be ranks together: there is a component, and none of
/// them is linked with another MPI, as far as their files tell. Code::unsupported otherwise.
Result<void> check_programs(const Composition& composition);

}  // namespace hobbes
