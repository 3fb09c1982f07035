#include "enclave/drivers/linux/credentials.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "core/procfs.h"

namespace hobbes {
namespace {

using Mask = std::uint64_t;

// Zero for a name that is not known.
Mask bit_of(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  cap_value_t value = 0;
  return cap_from_name(name.c_str(), &value) == 0 && value < 64
             ? Mask{1} << static_cast<unsigned>(value)
             : 0;
}

Mask mask_of(const std::vector<std::string>& names) {
  Mask mask = 0;
  for (const std::string& name : names) mask |= bit_of(name);
  return mask;
}

Result<void> set_capabilities(Mask effective, Mask permitted, Mask inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  for (unsigned i = 0; i < 2; ++i) {
    data[i].effective = static_cast<__u32>(effective >> (32 * i));
    data[i].permitted = static_cast<__u32>(permitted >> (32 * i));
    data[i].inheritable = static_cast<__u32>(inheritable >> (32 * i));
  }
  if (::syscall(SYS_capset, &header, data) != 0) return os_error("set capabilities", errno);
  return {};
}

Result<Mask> own_permitted() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  if (::syscall(SYS_capget, &header, data) != 0) return os_error("read capabilities", errno);
  return data[0].permitted | static_cast<Mask>(data[1].permitted) << 32U;
}

}  // namespace

Result<void> raise_permitted() {
  HOBBES_TRY(held, own_permitted());
  return set_capabilities(held, held, 0);
}

Result<void> apply_limits(const oci::Process& process) {
  for (const oci::Rlimit& limit : process.rlimits) {
    rlimit value{limit.soft, limit.hard};
    if (::setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) != 0)
      return os_error("set resource limit " + std::to_string(limit.resource) + " to " +
                          std::to_string(limit.soft),
                      errno, "ask for at most the caller's own limit");
  }
  return {};
}

Result<void> set_oom_score(const oci::Process& process, const std::string& pid) {
  if (!process.oom_score_adj) return {};
  HOBBES_TRY(proc, ProcFs::open());
  return proc.write(pid + "/oom_score_adj", std::to_string(*process.oom_score_adj));
}

void give_streams(const oci::Process& process) {
  for (int stream = 0; stream < 3; ++stream) {
    struct stat info {};
    if (::fstat(stream, &info) != 0 || info.st_uid == process.user.uid) continue;
    bool ours = S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode) || S_ISSOCK(info.st_mode) ||
                ::isatty(stream) == 1;
    // What cannot be given away (a read-only file system, an id that is not mapped) stays as it is.
    if (ours) (void)!::fchown(stream, process.user.uid, static_cast<gid_t>(-1));
  }
}

Result<void> become(const oci::Process& process) {
  const oci::Capabilities& wanted = process.capabilities;
  Mask bounding = mask_of(wanted.bounding);
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    if ((bounding >> static_cast<unsigned>(capability) & 1U) != 0) continue;
    if (::prctl(PR_CAPBSET_DROP, capability) != 0 && errno != EINVAL)
      return os_error("drop capability " + std::to_string(capability), errno);
  }
  if (::prctl(PR_SET_KEEPCAPS, 1) != 0)
    return os_error("keep capabilities over the change of user", errno);
  // "deny" in a user namespace without gid mappings of its own: there are no groups to change.
  bool groups = !process.keep_groups &&
                (!process.user.additional_gids.empty() || ::getgroups(0, nullptr) > 0);
  if (groups &&
      ::setgroups(process.user.additional_gids.size(), process.user.additional_gids.data()) != 0 &&
      !process.user.additional_gids.empty())
    return os_error("set supplementary groups", errno);
  if (::setresgid(process.user.gid, process.user.gid, process.user.gid) != 0)
    return os_error("become group " + std::to_string(process.user.gid), errno,
                    "map it in gidMappings");
  if (::setresuid(process.user.uid, process.user.uid, process.user.uid) != 0)
    return os_error("become user " + std::to_string(process.user.uid), errno,
                    "map it in uidMappings");
  if (process.user.umask) ::umask(*process.user.umask);

  HOBBES_TRY(held, own_permitted());
  Mask permitted = mask_of(wanted.permitted) & held;
  Mask effective = mask_of(wanted.effective) & permitted;
  // Inheritable ones need not be permitted: they count when a file of the image grants them.
  Mask inheritable = mask_of(wanted.inheritable) & held;
  HOBBES_CHECK(set_capabilities(effective, permitted | inheritable, inheritable));
  (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  Mask ambient = mask_of(wanted.ambient) & permitted & inheritable;
  for (unsigned capability = 0; capability < 64; ++capability)
    if ((ambient >> capability & 1U) != 0 &&
        ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0)
      return os_error("raise ambient capability " + std::to_string(capability), errno);
  return set_capabilities(effective, permitted, inheritable);
}

std::string unknown_capabilities(const oci::Capabilities& wanted) {
  std::set<std::string> names;
  for (const auto* set : {&wanted.bounding, &wanted.effective, &wanted.inheritable,
                          &wanted.permitted, &wanted.ambient})
    for (const std::string& name : *set)
      if (bit_of(name) == 0) names.insert(name);
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace hobbes
