#include "enclave/drivers/linux/security_label.h"

#include <fcntl.h>

namespace hobbes {
namespace {

constexpr const char* unconfined = "unconfined";

bool has_apparmor(const Files& files) {
  auto enabled = files.read("/sys/module/apparmor/parameters/enabled");
  return enabled && enabled->rfind('Y', 0) == 0;
}

// selinuxfs is there exactly when the module is on.
bool has_selinux(const Files& files) {
  return static_cast<bool>(files.read("/sys/fs/selinux/enforce"));
}

Error no_module(const char* field, const std::string& label, const char* module) {
  return {Code::unsupported, "set " + std::string(field) + " to \"" + label + "\"",
          std::string("this kernel does not enforce ") + module,
          "remove the field, or boot the node with " + std::string(module)};
}

}  // namespace

Result<void> check_security_labels(const oci::Process& process, const std::string& mount_label,
                                   const Files& files) {
  const std::string& profile = process.apparmor_profile;
  if (!profile.empty() && profile != unconfined && !has_apparmor(files))
    return no_module("process.apparmorProfile", profile, "AppArmor");
  if (!process.selinux_label.empty() && !has_selinux(files))
    return no_module("process.selinuxLabel", process.selinux_label, "SELinux");
  if (!mount_label.empty() && !has_selinux(files))
    return no_module("linux.mountLabel", mount_label, "SELinux");
  return {};
}

Result<void> label_next_program(const ProcFs& proc, const oci::Process& process) {
  const std::string& profile = process.apparmor_profile;
  if (!profile.empty() && (profile != unconfined || has_apparmor(Files::system()))) {
    const std::string text = "exec " + profile;
    auto written = proc.write("self/attr/apparmor/exec", text);
    // Before Linux 5.8 there is no folder for each module.
    if (!written && written.error().code == Code::not_found &&
        !proc.file("self/attr/apparmor/exec", O_PATH))
      written = proc.write("self/attr/exec", text);
    if (!written) {
      Error error = std::move(written).error().within("give the program the AppArmor profile '" +
                                                      profile + "'");
      error.remedy = "load the profile with apparmor_parser(8), or name another one";
      return error;
    }
  }
  if (!process.selinux_label.empty()) {
    auto written = proc.write("self/attr/exec", process.selinux_label);
    if (!written)
      return std::move(written).error().within("give the program the SELinux context '" +
                                               process.selinux_label + "'");
  }
  return {};
}

Result<void> label_new_keyrings(const ProcFs& proc, const oci::Process& process) {
  return process.selinux_label.empty() ? Result<void>()
                                       : proc.write("self/attr/keycreate", process.selinux_label);
}

}  // namespace hobbes
