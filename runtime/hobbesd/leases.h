// Who holds which cores and how much memory: what is asked for is placed beside what is held,
// within the site's rules.
#pragma once
#include <cstdint>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/nis.h"
#include "partition/placement.h"
#include "topology/inventory.h"

namespace hobbes {

/// Whether Linux gives up the memory that an enclave holds.
bool owns_memory(const hobbes_record& enclave);
/// {"cpus", "mems", "memory": {NODE: bytes}, "memoryTotal"}, as requests are answered.
Json to_json(const Placement& placement);
void set_placement(hobbes_enclave& body, const Placement& placement);
Placement placement_of(const hobbes_enclave& body);

/// Part of the manager: called in its loop, never blocks. The leases are the records of the
/// enclaves; nothing else is kept.
class Leases {
 public:
  Leases(const Nis& nis, const Inventory& inventory, const Policies& policies)
      : nis_(nis), inventory_(inventory), policies_(policies) {}

  /// {"op":"plan"}: what one enclave, or several at once ("plans"), would get.
  Result<Reply> plan(const Session& session, const Json& request) const;
  /// Where `request` ("cores", "memory", "kind") goes, beside all leases but that of `except` and
  /// those that are only planned. Errors: Code::exhausted, Code::invalid.
  Result<Placement> placement_for(const Session& session, const Json& request, std::uint64_t except,
                                  const std::vector<Lease>& planned) const;
  /// The same for an enclave that keeps what the request does not mention.
  Result<Placement> resized(const Session& session, const hobbes_record& enclave,
                            const Json& request) const;
  /// CPUs that the session may use and nobody has to himself.
  [[nodiscard]] CpuSet shared_cpus(const Session& session) const;
  [[nodiscard]] CpuSet free() const;
  /// CPUs that an enclave has to itself.
  [[nodiscard]] CpuSet exclusive() const;
  /// Has the records of cores and NUMA nodes follow a lease that begins (`held`) or ends.
  void show(Transition& transition, const hobbes_record& enclave, bool held) const;

 private:
  [[nodiscard]] std::vector<Lease> held(std::uint64_t except = 0) const;
  [[nodiscard]] Limits limits_for(const Session& session, bool detached) const;
  Result<void> check_quota(uid_t uid, const Placement& placement, std::uint64_t except,
                           const std::vector<Lease>& planned) const;

  const Nis& nis_;
  const Inventory& inventory_;
  const Policies& policies_;
};

}  // namespace hobbes
