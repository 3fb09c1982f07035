// Whether this node's KVM runs guests. Some machines have a /dev/kvm that claims every capability
// and executes none.
#pragma once
#include <optional>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Runs a guest of a few instructions (long mode with paging, CPUID, one port write, HLT) in a
/// child process, which has 100 ms of processor time and 5 s in all; if it does not end, once more
/// with 900 ms. Returns why the guest did not do what it should; nothing when it did. Errors: KVM
/// refused to make the guest, which may pass (Code::os, Code::denied).
Result<std::optional<std::string>> run_trial_guest(const Fd& kvm);

/// The same, asked once per boot of the node: the answer is kept in `note`, a file, when this
/// process may write it. An error is not kept.
Result<std::optional<std::string>> remembered_trial(const Fd& kvm, const std::string& note);

}  // namespace hobbes
