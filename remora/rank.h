// One process of a composition, as its launcher knows it: a rank of the universe, or a process of
// an app without MPI, whose number no rank has.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "remora/composition.h"
#include "remora/guest_pmix.h"
#include "remora/stage.h"

namespace hobbes {

struct Rank {
  using Clock = std::chrono::steady_clock;
  enum class Phase { planned, started, connected, in_init, running, in_finalize, finalized, ended };

  std::size_t app = 0, enclave = 0;  ///< in the composition
  unsigned app_rank = 0, global = 0;
  std::string app_name, enclave_name;
  bool mpi = true;            ///< it is a rank
  bool external = false;      ///< others start it
  bool in_guest = false;      ///< its process is of a guest's kernel
  bool stack_is_seen = true;  ///< its process is one of this kernel's
  std::uint64_t record = 0;   ///< of its process in the NIS

  pid_t pid = 0;
  Fd pidfd, phases;
  std::unique_ptr<GuestPmix> guest_pmix;
  Phase phase = Phase::planned;
  Clock::time_point since;  ///< in this phase
  bool connected = false, finalized = false;
  bool has_component = false;  ///< its MPI has loaded our component
  int wait_status = 0;
  bool skipped = false;  ///< ended well without ever having used MPI
  bool taken = false;    ///< an external rank that somebody has joined as

  /// "app:0".
  [[nodiscard]] std::string name() const;
  /// For messages: with its enclave and pid.
  [[nodiscard]] std::string full_name() const;
  [[nodiscard]] bool awaited() const { return external && pid == 0; }
};

/// All of a composition, in order of their global numbers.
std::vector<Rank> ranks_of(const Composition& composition, const std::vector<Stage::Place>& places);

/// HOBBES_PHASE_* of the NIS.
unsigned published_phase(Rank::Phase phase);

/// The CPUs of a rank: those of its enclave in turn, whole shares while there are enough and one
/// each otherwise. Empty: not bound.
CpuSet binding_of(const Rank& rank, const std::vector<Rank>& all, const Composition& composition,
                  const std::vector<Stage::Place>& places);

/// How many CPUs and ranks an enclave has. Ranks take turns where they are more.
struct Crowd {
  std::size_t cpus = 0, ranks = 0;
  [[nodiscard]] bool takes_turns() const { return ranks > cpus; }
};
Crowd crowd_of(std::size_t enclave, const Composition& composition,
               const std::vector<Stage::Place>& places);

}  // namespace hobbes
