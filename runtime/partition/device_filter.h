// Device rules on cgroup v2, where they are a BPF program instead of a file.
#pragma once
#include <string>
#include <vector>

#include "bundle/oci.h"
#include "core/result.h"

struct bpf_insn;

namespace hobbes {

/// The program for a rule list: later rules override earlier ones, as writing to devices.allow/deny
/// in order does. Context layout: struct bpf_cgroup_dev_ctx (linux/bpf.h).
std::vector<bpf_insn> device_program(const std::vector<oci::DeviceRule>& rules);

/// Loads the program and attaches it to the group at `directory`, replacing one attached before.
/// Errors: Code::denied without CAP_BPF, Code::os with the kernel's reason.
Result<void> attach_device_filter(const std::string& directory,
                                  const std::vector<oci::DeviceRule>& rules);

/// The rules of an enclave, in order, of which the last that fits decides: nothing, then the
/// bundle's own, then the devices that every root file system gets (runtime-spec, "default devices"
/// and "console"). A device that a bundle lists needs a rule that allows its use.
std::vector<oci::DeviceRule> device_rules(const std::vector<oci::DeviceRule>& own);

}  // namespace hobbes
