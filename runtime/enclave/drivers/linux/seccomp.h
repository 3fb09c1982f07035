// Seccomp profiles compiled ahead of the fork: the child only loads finished instructions.
#pragma once
#include <linux/filter.h>

#include <optional>
#include <string>
#include <vector>

#include "bundle/oci.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

struct SeccompProgram {
  std::vector<sock_filter> instructions;
  unsigned flags = 0;  // SECCOMP_FILTER_FLAG_*; with NEW_LISTENER, calls are handed to an agent
};

/// Compiles a profile with libseccomp. System calls this kernel or architecture does not know are
/// skipped, as the spec demands. Errors: Code::os from libseccomp.
Result<SeccompProgram> compile_seccomp(const oci::Seccomp& profile);
/// The profile of enclaves whose bundle has none but asks for Hobbes' own (host-root mode):
/// everything a program needs, nothing that administers the node (modules, kexec, mounts, clock
/// setting, raw I/O, other processes' keys, bpf, ...).
oci::Seccomp default_seccomp();
/// Loads a program for the calling thread. Returns its listener, or an empty descriptor when no
/// call is handed to an agent.
Result<Fd> load_seccomp(const SeccompProgram& program);

}  // namespace hobbes
