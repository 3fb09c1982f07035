// The node manager's mind: who holds what. Every change is one transition of the NIS. It runs in
// the event loop and never blocks; what takes time (creating an enclave for a REST client) is done
// by hobbes-run, started as that client's user.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/process.h"
#include "hobbesd/exit_events.h"
#include "hobbesd/loop.h"
#include "hobbesd/name_table.h"
#include "hobbesd/policy.h"
#include "hobbesd/process_table.h"
#include "hobbesd/session.h"
#include "hobbesd/verb.h"
#include "nis/nis.h"
#include "partition/placement.h"
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
  Result<void> identify(Session& session, const std::string& op) const;
  Result<Reply> dispatch(Session& session, const std::string& op, const Json& request);

  // node
  Result<void> publish_node();
  void recall_detached_cores();
  Result<Reply> node(const Json& request);
  Result<Reply> plan(Session& session, const Json& request);

  // enclaves
  Result<Reply> reserve(Session& session, const Json& request);
  Result<Reply> commit_enclave(Session& session, const Json& request);
  Result<Reply> change_state(Session& session, const Json& request);
  Result<Reply> resize(Session& session, const Json& request);
  Result<Reply> beat(Session& session, const Json& request);
  Result<Reply> release(Session& session, const Json& request);
  Result<Reply> describe_enclave(Session& session, const Json& request);
  static Result<void> check_root(const Session& session, const std::string& root);
  Result<Placement> place_for(const Session& session, const Json& request, std::uint64_t except,
                              const std::vector<Lease>& planned) const;
  Result<void> check_quota(uid_t uid, const Placement& placement, std::uint64_t except,
                           const std::vector<Lease>& planned) const;
  [[nodiscard]] std::vector<Lease> leases(std::uint64_t except = 0) const;
  [[nodiscard]] Limits limits_for(const Session& session, bool detached) const;
  [[nodiscard]] const hobbes_record* find_enclave(const Session& session, const std::string& root,
                                                  const std::string& id) const;
  Result<const hobbes_record*> enclave_of(const Session& session, const Json& request) const;
  void add_core_changes(Transition& transition, const hobbes_record& enclave, bool held) const;
  void watch_enclave(const hobbes_record& record);
  void watch_maker(std::uint64_t id, const Json& document);
  void enclave_ended(std::uint64_t id);
  void listen_for_ends();
  void stop_listening_for_ends();
  void learn_exit_status(std::uint64_t id, int pidfd);
  void clean_up(const hobbes_record& record);
  void forget(std::uint64_t id);
  [[nodiscard]] bool has_cause(std::uint64_t id) const;
  void note_out_of_memory(const hobbes_record& record, int exit_code);
  void note_cause(const hobbes_record& record, const std::string& cause);
  void check_heartbeats();
  void consume_release_notes();
  [[nodiscard]] std::uint64_t enclave_containing(pid_t pid) const;
  [[nodiscard]] static CpuSet allowed_cpus(pid_t pid);
  [[nodiscard]] Grant grant_of(std::uint64_t enclave) const;
  Result<void> check_grant(const Session& session, std::uint64_t target) const;

  // what unprivileged users have no right to make themselves (delegation.cpp)
  Result<Reply> make_root(Session& session, const Json& request);
  Result<std::string> delegate_group(const hobbes_record& record, const Placement& placement,
                                     const CpuSet& shared, const Json& limits);
  static Result<void> limit_delegated_group(const std::string& path, const Placement& placement,
                                            const CpuSet& shared);
  [[nodiscard]] CpuSet shared_cpus(const Session& session) const;
  Result<std::string> delegated_group_of(const hobbes_record& record) const;
  Result<Reply> enter_enclave(Session& session, const Json& request);
  Result<Reply> freeze_enclave(Session& session, const Json& request);
  /// Whether it found something to do.
  bool sweep_lent_groups(unsigned most);
  void sweep_ended_groups();

  // segments (segments.cpp)
  Result<void> check_segments(const Session& session, const std::string& attempt) const;
  Result<Reply> make_segment(Session& session, const Json& request);
  Result<Reply> get_segment(Session& session, const Json& request);
  Result<Reply> attach_segment(Session& session, const Json& request);
  Result<Reply> detach_segment(Session& session, const Json& request);
  Result<Reply> remove_segment(Session& session, const Json& request);
  void adopt_segments();
  void end_attachment(const hobbes_record& attachment,
                      std::map<std::uint64_t, hobbes_record>& segments, Transition& transition);
  void watch_process(pid_t pid);
  void process_ended(pid_t pid);
  void drop_segment(std::uint64_t id, Transition& transition);
  Result<void> check_attachments(const Session& session) const;
  [[nodiscard]] const hobbes_record* segment_named(const Session& session,
                                                   const std::string& name) const;
  Result<const hobbes_record*> segment_of(const Session& session, const Json& request) const;
  [[nodiscard]] static bool may(const Session& session, const hobbes_record& segment, bool write);

  // their doorbells (doorbells.cpp)
  Result<Reply> listen_to_segment(Session& session, const Json& request);
  Result<Reply> listeners_of_segment(Session& session, const Json& request);
  Result<hobbes_record> attachment_of(const Session& session, const Json& request,
                                      const std::string& attempt) const;
  void adopt_doorbells();

  // names (name_table.h)
  Result<Reply> publish_name(Session& session, const Json& request) {
    return names_.publish(session, request);
  }
  Result<Reply> withdraw_name(Session& session, const Json& request) {
    return names_.withdraw(session, request);
  }
  Result<Reply> connect_channel(Session& session, const Json& request) {
    return names_.connect(session, request);
  }
  Result<Reply> self(Session& session, const Json& request) {
    return names_.self(session, request);
  }

  // processes (process_table.h)
  Result<Reply> begin_process(Session& session, const Json& request);
  Result<Reply> end_process(Session& session, const Json& request) {
    return processes_.end(session, request);
  }
  Result<Reply> kill_process(Session& session, const Json& request);

  // compositions (compositions.cpp)
  Result<Reply> begin_composition(Session& session, const Json& request);
  Result<Reply> set_phases(Session& session, const Json& request);
  Result<Reply> end_composition(Session& session, const Json& request);
  Result<Reply> put_keys(Session& session, const Json& request);
  void drop_composition(std::uint64_t id, int exit_status);

  // operations (operations.cpp): verbs done by hobbes-run as the requester
  /// For whom hobbes-run works, and within what.
  struct Requester {
    uid_t uid = 0;
    gid_t gid = 0;
    CpuSet cpus;  ///< affinity; empty: hobbesd's own
    std::vector<std::string>
        groups;  ///< control groups, as files to enter them by; empty: hobbesd's own
  };
  Result<Reply> begin_operation(Session& session, const Json& request);
  Result<Reply> start_operation(const Requester& requester, const Verb& verb,
                                const Json& repeatable);
  Result<void> check_operations(const Session& session) const;
  void forget_operation(const std::string& name, Transition& transition);
  Result<Reply> operation(Session& session, const Json& request);
  void operation_ended(const std::string& name);

  struct Operation {
    Json document;
    pid_t pid = 0;
    Fd pidfd, output, report;
    bool has_result = false;
    std::uint64_t forgets = 0;  ///< an enclave whose record goes when this clean-up succeeds
  };

  static constexpr std::chrono::milliseconds idle_tick{900}, unfinished_tick{100};
  Loop& loop_;
  std::unique_ptr<Nis> nis_;
  Inventory inventory_;
  Policies policies_;
  std::string root_;
  NameTable names_;
  ProcessTable processes_;
  std::map<std::uint64_t, Fd> enclave_watches_;   // enclave id -> pidfd
  std::map<std::uint64_t, std::string> cgroups_;  // enclave id -> control group
  std::map<std::uint64_t, pid_t> makers_;         // enclave id -> the process it is bound to
  std::set<std::uint64_t> kill_asked_;
  std::uint64_t last_heartbeat_check_ = 0, listening_since_ = 0;  // CLOCK_BOOTTIME
  struct Ending {
    Fd pidfd;
    int tries = 0;
  };
  std::map<std::uint64_t, Ending> endings_;  // status not known yet
  std::optional<ExitEvents> exit_events_;
  bool no_exit_events_ = false;  // this process may not have them
  std::map<std::uint64_t, int>
      announced_;  // enclave id -> status, heard before its process was seen to be gone
  std::map<std::uint64_t, Fd> segment_fds_;
  std::map<std::uint64_t, Fd> bells_;  // attachment id -> where to ring for it
  std::map<pid_t, Fd> process_watches_;
  std::map<std::uint64_t, Mirror> shards_;
  std::set<std::string> ended_groups_;
  std::map<std::string, Operation> operations_;
  std::uint64_t next_operation_ = 1;
};

}  // namespace hobbes
