// A connected program, as the manager knows it, and what it is answered.
#pragma once
#include <cstdint>
#include <set>
#include <vector>

#include "abi/nis.h"
#include "core/cpu_set.h"
#include "core/fd.h"
#include "core/json.h"
#include "ipc/peer.h"

namespace hobbes {

/// What a connected program has begun and not finished; undone when it goes away.
struct Session {
  Peer peer;
  // Found anew at each request:
  std::uint64_t inside = 0;  ///< the enclave whose control group the peer is in, 0: outside of any
  bool privileged = false;   ///< root outside of enclaves, or in one that may manage the node
  CpuSet allowed;            ///< the peer's affinity; empty: not known
  std::string step;          ///< the batch job's step it is in (partition/batch_step.h); or empty
  std::set<std::uint64_t> reservations;  ///< enclaves still `creating`
  std::set<std::uint64_t> compositions;
};

/// What programs inside an enclave may manage; the numbers are bits 8-9 of hobbes_enclave's flags.
enum class Grant : std::uint32_t { none = 0, self = 1, node = 2 };

/// Whether a record is the session's to change: its user's, and, from inside an enclave, that
/// enclave's.
inline bool owns(const Session& session, const hobbes_record& record) {
  return session.privileged || (session.peer.uid == record.uid &&
                                (session.inside == 0 || session.inside == record.enclave));
}

struct Reply {
  Json body;
  std::vector<Fd> fds;
};

}  // namespace hobbes
