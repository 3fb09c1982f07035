// Compositions: the map of ranks to apps, enclaves and processes, and what ranks have published to
// each other.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "hobbesd/authorization.h"
#include "hobbesd/loop.h"
#include "hobbesd/name_table.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/mirror.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. A composition goes with the connection of
/// its launcher.
class CompositionTable {
 public:
  CompositionTable(Loop& loop, Nis& nis, const Policies& policies,
                   const Authorization& authorization, NameTable& names)
      : loop_(loop), nis_(nis), policies_(policies), authorization_(authorization), names_(names) {}

  // Requests; docs/CONTROL.md.
  Result<Reply> begin(Session& session, const Json& request);
  Result<Reply> set_phases(Session& session, const Json& request);
  Result<Reply> put_keys(Session& session, const Json& request);
  Result<Reply> end(Session& session, const Json& request);

  void drop(std::uint64_t id, int exit_status);
  /// After a restart: the launchers' connections are gone, and with them their compositions.
  void adopt();
  /// Ends what is left in the control groups of compositions that have ended.
  void sweep();
  [[nodiscard]] bool unfinished() const { return !ended_groups_.empty(); }

 private:
  Loop& loop_;
  Nis& nis_;
  const Policies& policies_;
  const Authorization& authorization_;
  NameTable& names_;
  std::map<std::uint64_t, Mirror> shards_;  // by composition: its keys
  std::set<std::string> ended_groups_;
};

}  // namespace hobbes
