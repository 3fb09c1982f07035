// The child's side of create and exec: from the fork to execve. Everything here runs in the new
// process.
#pragma once
#include <optional>

#include "bundle/bundle.h"
#include "core/fd.h"
#include "enclave/driver.h"
#include "enclave/drivers/linux/rootfs.h"
#include "enclave/drivers/linux/seccomp.h"

namespace hobbes {

/// The connection to a profile's agent, where it has one.
struct SeccompAgent {
  Fd socket;
  std::string metadata;
};

/// What the parent prepared for a new enclave's first process.
struct InitPlan {
  const CreateRequest* request = nullptr;
  RootfsRequest rootfs;
  std::vector<oci::Namespace> joined;  ///< with a path
  unsigned long late_namespaces = 0;   ///< CLONE_NEW* made after entering the control group
  std::optional<SeccompProgram> seccomp;
  SeccompAgent agent;
  Json state;  ///< for hooks; its pid comes from the parent
  Fd sync;     ///< to the parent
  Fd start;    ///< listening; `start` connects here
  Fd console;
  bool own_time = false;  ///< a new time namespace, which a process cannot be born in with offsets
  std::optional<uid_t> first_user;  ///< of a new user namespace, to be in it
  std::optional<gid_t> first_group;
};

/// What the parent prepared for a further process in a running enclave.
struct ExecPlan {
  const ExecRequest* request = nullptr;
  Fd target;                     ///< pidfd of the enclave process
  unsigned long namespaces = 0;  ///< CLONE_NEW* to join
  bool become_root = false;      ///< of the user namespace, where it has one
  std::optional<SeccompProgram> seccomp;
  SeccompAgent agent;
  Json state;
  Fd sync, console;
};

/// Neither returns. Failures go to the parent over `sync`, later ones over the start connection.
[[noreturn]] void run_init(InitPlan& plan);
[[noreturn]] void run_exec(ExecPlan& plan);

/// The CLONE_NEW* flag of an OCI namespace type.
unsigned long namespace_flag(const std::string& type);

}  // namespace hobbes
