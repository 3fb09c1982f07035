// The life of enclaves as the node knows it: reserve, commit, change, resize, release; and what
// happens when one ends.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "hobbesd/authorization.h"
#include "hobbesd/delegated_groups.h"
#include "hobbesd/device_leases.h"
#include "hobbesd/exit_tracker.h"
#include "hobbesd/heartbeats.h"
#include "hobbesd/leases.h"
#include "hobbesd/loop.h"
#include "hobbesd/name_table.h"
#include "hobbesd/operation_table.h"
#include "hobbesd/process_table.h"
#include "hobbesd/segment_table.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop, never blocks.
class EnclaveTable {
 public:
  /// What it needs of the node. `root`: where enclaves are whose root is not known. `watch`: asks
  /// that process_ended() be called when a process has ended. `process_ended`: a process has ended
  /// that may have more of the node's than its enclave.
  struct Node {
    Loop& loop;
    Nis& nis;
    const Leases& leases;
    Authorization& authorization;
    DelegatedGroups& groups;
    const DeviceLeases& devices;
    SegmentTable& segments;
    NameTable& names;
    ProcessTable& processes;
    OperationTable& operations;
    std::string root;
    std::function<void(pid_t)> watch, process_ended;
  };
  explicit EnclaveTable(Node node);

  // Requests; docs/CONTROL.md.
  Result<Reply> make_root(Session& session, const Json& request);
  Result<Reply> reserve(Session& session, const Json& request);
  Result<Reply> commit(Session& session, const Json& request);
  Result<Reply> change_state(Session& session, const Json& request);
  Result<Reply> resize(Session& session, const Json& request);
  Result<Reply> beat(Session& session, const Json& request);
  Result<Reply> release(Session& session, const Json& request);
  Result<Reply> describe(Session& session, const Json& request);

  /// Null when there is none. Each user's names are his own; root finds them all.
  [[nodiscard]] const hobbes_record* find(const Session& session, const std::string& root,
                                          const std::string& id) const;
  /// The one that a request names by "handle", or "root" and "id". Errors: Code::not_found,
  /// Code::denied for another user's.
  Result<const hobbes_record*> enclave_of(const Session& session, const Json& request) const;

  /// Takes the record of an enclave away that is not there any more.
  void forget(std::uint64_t id);
  /// What a connection had begun and not finished is undone.
  void leave(Session& session);
  void process_ended(pid_t pid);
  /// After a restart: re-adopts what runs, undoes what was half done.
  Result<void> adopt();
  void tick();
  [[nodiscard]] bool unfinished() const { return exits_.unfinished(); }
  /// Whether a process is one whose exit status is still to be had.
  [[nodiscard]] bool waits_for(pid_t pid) const { return exits_.is_of(pid); }

 private:
  void ended(std::uint64_t id);
  void status_known(std::uint64_t id, int status);
  void watch_maker(std::uint64_t id, const Json& document);
  void clean_up(const hobbes_record& record);
  [[nodiscard]] bool has_cause(std::uint64_t id) const;
  void note_cause(const hobbes_record& record, const std::string& cause);
  void note_out_of_memory(const hobbes_record& record, int exit_code);
  void end_silent();
  void consume_release_notes();

  Loop& loop_;
  Nis& nis_;
  const Leases& leases_;
  Authorization& authorization_;
  DelegatedGroups& groups_;
  const DeviceLeases& devices_;
  SegmentTable& segments_;
  NameTable& names_;
  ProcessTable& processes_;
  OperationTable& operations_;
  std::string root_;
  std::function<void(pid_t)> watch_, process_ended_;
  ExitTracker exits_;
  Heartbeats heartbeats_;
  std::map<std::uint64_t, pid_t> makers_;  // enclave -> the process it is bound to
  std::set<std::uint64_t> kill_asked_;     // their end is no crash
};

}  // namespace hobbes
