// What a command line says in place of a bundle's config.json.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace hobbes {

/// Empty and 0: as the bundle says.
struct BundleOverrides {
  std::string kind;               ///< with the shipped kernel where the bundle names none
  unsigned cores = 0;             ///< how many are leased
  std::string memory;             ///< how much is leased, as "2GiB"
  std::vector<std::string> args;  ///< the program and its arguments
  std::string cwd;                ///< its working directory
  bool host_env = false;         ///< the caller's variables, where the bundle has none of that name
  std::vector<std::string> env;  ///< NAME=VALUE; NAME or NAME*: the caller's. Over the bundle's
  std::vector<std::string>
      volumes;  ///< SOURCE[:DESTINATION[:ro|rw]], shown beside its mounts; \\: is a path's colon

  /// Changes a config.json before it is validated. `environment`: the caller's, NAME=VALUE each.
  /// Errors: Code::invalid for a volume that is none, with the word that is wrong.
  Result<void> apply(Json& config, const std::vector<std::string>& environment) const;
  /// Whether anything is said.
  [[nodiscard]] bool any() const;
};

/// The variables of this process.
std::vector<std::string> environment_of_caller();

}  // namespace hobbes
