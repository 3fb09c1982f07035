// The node manager: it dispatches each request to the table whose subject it is, and tells all of
// them of what ends. Every change is one transition of the NIS. It runs in the event loop and never
// blocks; what takes time (creating an enclave for a REST client) is done by hobbes-run, started as
// that client's user.
#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "hobbesd/authorization.h"
#include "hobbesd/composition_table.h"
#include "hobbesd/delegated_groups.h"
#include "hobbesd/device_leases.h"
#include "hobbesd/doorbell_table.h"
#include "hobbesd/enclave_table.h"
#include "hobbesd/interrupt_steering.h"
#include "hobbesd/leases.h"
#include "hobbesd/loop.h"
#include "hobbesd/name_table.h"
#include "hobbesd/operation_table.h"
#include "hobbesd/policy.h"
#include "hobbesd/process_table.h"
#include "hobbesd/process_watcher.h"
#include "hobbesd/segment_table.h"
#include "hobbesd/session.h"
#include "nis/nis.h"
#include "topology/inventory.h"

namespace hobbes {

class Manager {
 public:
  Manager(Loop& loop, std::unique_ptr<Nis> nis, Inventory inventory, Policies policies,
          std::string root);
  ~Manager();

  /// Publishes the node, re-adopts what runs, repairs what was half done. Once, before the first
  /// request.
  Result<void> adopt();
  /// Answers one request; docs/CONTROL.md lists them.
  Result<Reply> handle(Session& session, const Json& request);
  /// Puts other rules in force; what is held already stays held.
  Result<void> set_policies(Policies policies);
  /// The connection closed: what it had begun is undone.
  void leave(Session& session);
  /// What is due by the clock: the mirror's sign of life, heartbeats, ends that are not finished.
  /// Asks the loop for the next one.
  void tick();
  [[nodiscard]] Nis& nis() { return *nis_; }

 private:
  Result<Reply> dispatch(Session& session, const std::string& op, const Json& request);
  // Requests that concern two of the tables.
  Result<Reply> node();
  Result<Reply> plan(Session& session, const Json& request);
  Result<Reply> enter_enclave(Session& session, const Json& request);
  Result<Reply> freeze_enclave(Session& session, const Json& request);
  Result<Reply> begin_process(Session& session, const Json& request);
  Result<Reply> kill_process(Session& session, const Json& request);
  Result<Reply> begin_operation(Session& session, const Json& request);

  Result<void> publish_node();
  void recall_detached_cores();
  void steer_interrupts();
  void process_ended(pid_t pid);
  void reap_orphans() const;

  Loop& loop_;
  std::unique_ptr<Nis> nis_;
  Inventory inventory_;
  Policies policies_;
  ProcessWatcher watcher_;
  Authorization authorization_;
  Leases leases_;
  InterruptSteering steering_;
  CpuSet steered_;  // what interrupts were kept off last, at which change, and when to look again
  std::uint64_t steered_sequence_ = 0, steer_again_ns_ = 0;
  std::string steering_trouble_;
  DelegatedGroups groups_;
  DeviceLeases devices_;
  NameTable names_;
  ProcessTable processes_;
  DoorbellTable bells_;
  SegmentTable segments_;
  CompositionTable compositions_;
  OperationTable operations_;
  EnclaveTable enclaves_;
};

}  // namespace hobbes
