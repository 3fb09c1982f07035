// Labels of the kernel's security modules: AppArmor's profile and SELinux's context of a program,
// and the context of what is mounted.
#pragma once
#include <string>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/procfs.h"
#include "core/result.h"

namespace hobbes {

/// Refuses a label that no security module of this kernel would enforce, before anything is taken.
/// "unconfined" needs no AppArmor. Errors: Code::unsupported, which names the field.
Result<void> check_security_labels(const oci::Process& process, const std::string& mount_label,
                                   const Files& files = Files::system());

/// Has the next execve(2) of the calling thread give the program its labels (apparmor(7),
/// selinux(8): attr/exec of proc(5)). `proc` is the node's own. Errors: Code::not_found, no such
/// profile is loaded; Code::invalid, no such context.
Result<void> label_next_program(const ProcFs& proc, const oci::Process& process);

/// Has keyrings that the calling thread makes from now on bear the program's SELinux context;
/// without one, nothing changes.
Result<void> label_new_keyrings(const ProcFs& proc, const oci::Process& process);

}  // namespace hobbes
