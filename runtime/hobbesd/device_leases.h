// Devices that enclaves hold, by their names in the Container Device Interface. Each is one
// enclave's at a time, and so is each device node that devices have in common.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "hobbesd/cdi.h"
#include "hobbesd/policy.h"
#include "hobbesd/session.h"
#include "nis/nis.h"

namespace hobbes {

/// Part of the manager: called in its loop. What is held is in the enclaves' documents.
class DeviceLeases {
 public:
  DeviceLeases(const Nis& nis, const Policies& policies) : nis_(nis), policies_(policies) {}

  struct Grant {
    std::vector<std::string> names;
    std::vector<std::string> nodes;  ///< by their numbers, or by the path of one that is not there
    Json edits = Json::array();      ///< containerEdits for the bundle, in order
  };
  /// Whether the devices that a request names ("devices") are there and free, also beside
  /// `planned`. The descriptions are read at each call, since vendors' tools may change them.
  /// Errors: Code::invalid, Code::not_found, Code::busy with the holder, Code::exhausted for the
  /// user's quota.
  Result<Grant> grant(const Session& session, const Json& request,
                      const std::vector<Grant>& planned = {}) const;
  /// As `grant` for every enclave of a plan, one beside the other.
  Result<void> plan(const Session& session, const Json& request) const;
  /// {"op":"devices"}: all of the node, with their holders, and what is wrong with descriptions.
  [[nodiscard]] Result<Reply> list() const;

 private:
  /// The living enclaves that hold devices.
  [[nodiscard]] std::vector<std::pair<const hobbes_record*, Grant>> held() const;
  const Nis& nis_;
  const Policies& policies_;
};

}  // namespace hobbes
