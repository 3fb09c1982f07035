// XEMEM segments and who has attached them. hobbesd keeps a descriptor of every segment and hands
// out copies; it never maps or reads one.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "core/fd.h"
#include "hobbesd/doorbell_table.h"
#include "hobbesd/name_table.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks. A segment goes with the process that has
/// made it, unless it is persistent, or with the enclave whose bundle declares it.
class SegmentTable {
 public:
  /// `watch`: asks that process_ended() be called when a process has ended.
  SegmentTable(Nis& nis, const Policies& policies, const NameTable& names, DoorbellTable& bells,
               std::function<void(pid_t)> watch)
      : nis_(nis), policies_(policies), names_(names), bells_(bells), watch_(std::move(watch)) {}

  // Requests; docs/CONTROL.md.
  Result<Reply> make(Session& session, const Json& request);
  Result<Reply> get(Session& session, const Json& request);
  Result<Reply> attach(Session& session, const Json& request);
  Result<Reply> detach(Session& session, const Json& request);
  Result<Reply> remove(Session& session, const Json& request);

  void process_ended(pid_t pid, Transition& transition);
  void enclave_released(std::uint64_t id, Transition& transition);
  /// After a restart: owners still have the memory open.
  void adopt();

 private:
  Result<void> check_quota(const Session& session, const std::string& attempt) const;
  Result<void> check_attachments(const Session& session) const;
  [[nodiscard]] const hobbes_record* named(const Session& session, const std::string& name) const;
  Result<const hobbes_record*> segment_of(const Session& session, const Json& request) const;
  void end_attachment(const hobbes_record& attachment,
                      std::map<std::uint64_t, hobbes_record>& segments, Transition& transition);
  void drop(std::uint64_t id, Transition& transition);

  Nis& nis_;
  const Policies& policies_;
  const NameTable& names_;
  DoorbellTable& bells_;
  std::function<void(pid_t)> watch_;
  std::map<std::uint64_t, Fd> memory_;  // by segment
};

}  // namespace hobbes
