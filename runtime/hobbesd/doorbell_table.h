// The doorbells of segments. A listener listens to a pipe of its own; a process that may ring gets
// a way to write into it that no other process has, so that neither side can make the other wait or
// miss what others say.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "core/fd.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks.
class DoorbellTable {
 public:
  explicit DoorbellTable(Nis& nis) : nis_(nis) {}

  /// {"op":"segment.listen","attachment"}: answers with the listener's end.
  Result<Reply> listen(Session& session, const Json& request);
  /// {"op":"segment.listeners","attachment"}: the ends to ring, but for the caller's own.
  Result<Reply> listeners(Session& session, const Json& request);
  void attachment_ended(std::uint64_t id) { bells_.erase(id); }
  /// After a restart: listeners still hold their ends.
  void adopt();

 private:
  Result<hobbes_record> attachment_of(const Session& session, const Json& request,
                                      const std::string& attempt) const;
  Nis& nis_;
  std::map<std::uint64_t, Fd> bells_;  // attachment -> where to ring for it
};

}  // namespace hobbes
