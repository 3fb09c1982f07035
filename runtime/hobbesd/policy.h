// The site's rules: reserved cores and per-user quotas, from /etc/hobbes/hobbesd.json.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "core/cpu_set.h"
#include "core/result.h"

namespace hobbes {

struct Quota {
  std::uint64_t cores = UINT64_MAX;   ///< logical CPUs held at once
  std::uint64_t memory = UINT64_MAX;  ///< bytes leased at once
  std::uint64_t enclaves = 64;
  std::uint64_t segments = 1024;     ///< at once
  std::uint64_t attachments = 4096;  ///< to segments, at once
  std::uint64_t names = 1024;        ///< published at once
  std::uint64_t compositions = 32;   ///< at once
  std::uint64_t operations = 32;     ///< running at once
  std::uint64_t devices = 0;         ///< held at once (device_leases.h)
};

struct Policies {
  CpuSet reserved;                ///< never leased
  bool steer_interrupts = false;  ///< devices interrupt no core that an enclave has to itself
  Quota standard;                 ///< of unprivileged users not named below
  std::map<uid_t, Quota> users;
  std::map<std::string, uid_t> tokens;  ///< SHA-256 of a REST token, hex -> user

  [[nodiscard]] Quota of(uid_t uid) const;
  /// A missing file is the default policy, unless it `must_exist`. Errors: Code::invalid with every
  /// problem; Code::not_found.
  static Result<Policies> load(const std::string& path, bool must_exist);
  /// Errors: Code::invalid for a reserved core that the node does not have.
  Result<void> check(const CpuSet& all) const;
};

}  // namespace hobbes
