// Users and groups as an enclave's own /etc/passwd and /etc/group name them.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>

#include "bundle/oci.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// The database of a root file system, which is not trusted: links lead nowhere else, and only
/// regular files up to 1 MiB are read.
class UserDatabase {
 public:
  /// `root`: a folder open for paths.
  explicit UserDatabase(const Fd& root);
  /// From texts, as passwd(5) and group(5) describe them.
  UserDatabase(std::string passwd, std::string group)
      : passwd_(std::move(passwd)), group_(std::move(group)) {}

  /// "USER[:GROUP]", each a name or a number. A name brings its group and supplementary groups
  /// along; a number keeps those of `before`. Errors: Code::invalid for what is neither a known
  /// name nor a number up to 4294967294.
  [[nodiscard]] Result<oci::User> resolve(const std::string& words, const oci::User& before) const;
  /// The home folder of a user, if it is there.
  [[nodiscard]] std::optional<std::string> home_of(uid_t uid) const;
  [[nodiscard]] std::optional<std::string> name_of(uid_t uid) const;

 private:
  std::string passwd_, group_;
};

}  // namespace hobbes
