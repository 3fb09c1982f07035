#include "enclave/drivers/linux/seccomp.h"

#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <map>
#include <memory>

namespace hobbes {
namespace {

constexpr std::uint32_t x32 = 0x40000000;

using Context = std::unique_ptr<void, decltype(&seccomp_release)>;

Error refused(const std::string& what, int rc) {
  return os_error("compile the seccomp profile: " + what, -rc);
}

Result<std::uint32_t> action_of(const std::string& name, std::optional<std::uint32_t> number) {
  std::uint32_t value = number.value_or(EPERM);
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(value);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(value);
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  if (name == "SCMP_ACT_NOTIFY") return SCMP_ACT_NOTIFY;
  return Error{Code::unsupported, "compile the seccomp profile",
               "the action " + name + " is not supported", "use another action"};
}

scmp_compare operator_of(const std::string& name) {
  static const std::array<std::pair<const char*, scmp_compare>, 7> table = {
      {{"SCMP_CMP_NE", SCMP_CMP_NE},
       {"SCMP_CMP_LT", SCMP_CMP_LT},
       {"SCMP_CMP_LE", SCMP_CMP_LE},
       {"SCMP_CMP_EQ", SCMP_CMP_EQ},
       {"SCMP_CMP_GE", SCMP_CMP_GE},
       {"SCMP_CMP_GT", SCMP_CMP_GT},
       {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}}};
  for (const auto& [text, value] : table)
    if (name == text) return value;
  return SCMP_CMP_EQ;
}

// Calls that are newer than this libseccomp: one that is to be denied must not pass because nobody
// here knows its name. From 424 on numbers are the same on all architectures (x32 sets a bit of its
// own).
std::optional<int> newer_call(const std::string& name) {
  static const std::map<std::string, int> numbers = {
      {"quotactl_fd", 443},       {"set_mempolicy_home_node", 450},
      {"cachestat", 451},         {"fchmodat2", 452},
      {"map_shadow_stack", 453},  {"futex_wake", 454},
      {"futex_wait", 455},        {"futex_requeue", 456},
      {"statmount", 457},         {"listmount", 458},
      {"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460},
      {"lsm_list_modules", 461},  {"mseal", 462},
      {"setxattrat", 463},        {"getxattrat", 464},
      {"listxattrat", 465},       {"removexattrat", 466},
      {"open_tree_attr", 467},    {"file_getattr", 468},
      {"file_setattr", 469}};
  auto at = numbers.find(name);
  return at != numbers.end() && seccomp_syscall_resolve_name(name.c_str()) == __NR_SCMP_ERROR
             ? std::optional(at->second)
             : std::nullopt;
}

Result<void> add_rule(scmp_filter_ctx context, const oci::SeccompRule& rule, std::uint32_t action) {
  std::vector<scmp_arg_cmp> compares;
  for (const oci::SeccompArg& arg : rule.args)
    compares.push_back({arg.index, operator_of(arg.op), arg.value, arg.value_two});
  std::vector<unsigned> indexes;
  for (const oci::SeccompArg& arg : rule.args) indexes.push_back(arg.index);
  std::sort(indexes.begin(), indexes.end());
  bool repeats = std::adjacent_find(indexes.begin(), indexes.end()) != indexes.end();
  for (const std::string& name : rule.names) {
    int number = seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) continue;  // newer_calls() knows it, or nobody
    int rc = 0;
    if (!repeats) {
      rc = seccomp_rule_add_array(context, action, number, static_cast<unsigned>(compares.size()),
                                  compares.data());
    } else {  // two comparisons of one argument are alternatives
      for (const scmp_arg_cmp& compare : compares)
        if (rc == 0 || rc == -EEXIST)
          rc = seccomp_rule_add_array(context, action, number, 1, &compare);
    }
    if (rc != 0 && rc != -EEXIST && rc != -EDOM) return refused("rule for " + name, rc);
  }
  return {};
}

}  // namespace

namespace {

// ENOSYS for calls of this architecture beyond `newest`; everything else goes on behind it. Source:
// seccomp(2), struct seccomp_data.
std::vector<sock_filter> unknown_calls(int newest) {
  return {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, x32, 2, 0),
          BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, static_cast<std::uint32_t>(newest), 0, 1),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)};
}

// What the profile says of calls that libseccomp does not know, whatever their arguments.
Result<std::vector<sock_filter>> newer_calls(const oci::Seccomp& profile) {
  std::vector<sock_filter> out;
  for (const oci::SeccompRule& rule : profile.syscalls)
    for (const std::string& name : rule.names) {
      auto number = newer_call(name);
      if (!number || !rule.args.empty()) continue;
      HOBBES_TRY(action, action_of(rule.action, rule.errno_ret));
      const std::vector<sock_filter> one = {
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~x32),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(*number), 0, 1),
          BPF_STMT(BPF_RET | BPF_K, action)};
      out.insert(out.end(), one.begin(), one.end());
    }
  return out;
}

// The newest call of this architecture that the profile names.
int newest_call(const oci::Seccomp& profile) {
  int newest = 0;
  for (const oci::SeccompRule& rule : profile.syscalls)
    for (const std::string& name : rule.names)
      newest = std::max(
          {newest, seccomp_syscall_resolve_name(name.c_str()), newer_call(name).value_or(0)});
  return newest;
}

}  // namespace

Result<SeccompProgram> compile_seccomp(const oci::Seccomp& profile) {
  HOBBES_TRY(standard, action_of(profile.default_action, profile.default_errno_ret));
  Context context(seccomp_init(standard), &seccomp_release);
  if (!context) return refused("start", -ENOMEM);
  for (const std::string& architecture : profile.architectures) {
    std::string name =
        architecture.rfind("SCMP_ARCH_", 0) == 0 ? architecture.substr(10) : architecture;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    std::uint32_t token = seccomp_arch_resolve_name(name.c_str());
    if (token == 0) continue;
    int rc = seccomp_arch_add(context.get(), token);
    if (rc != 0 && rc != -EEXIST) return refused("architecture " + architecture, rc);
  }
  // The kernel ignores this under no_new_privs; without it libseccomp would set no_new_privs itself
  // on load.
  (void)seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_NNP, 0);
  (void)seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  SeccompProgram out;
  for (const std::string& flag : profile.flags) {
    if (flag == "SECCOMP_FILTER_FLAG_LOG") out.flags |= SECCOMP_FILTER_FLAG_LOG;
    if (flag == "SECCOMP_FILTER_FLAG_SPEC_ALLOW") out.flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  }
  for (const oci::SeccompRule& rule : profile.syscalls) {
    HOBBES_TRY(action, action_of(rule.action, rule.errno_ret));
    if (action == SCMP_ACT_NOTIFY) out.flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (action == standard) continue;  // libseccomp refuses a rule that says what the default says
    HOBBES_CHECK(add_rule(context.get(), rule, action));
  }
  Fd file(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!file) return os_error("compile the seccomp profile", errno);
  if (int rc = seccomp_export_bpf(context.get(), file.get()); rc != 0) return refused("export", rc);
  off_t size = ::lseek(file.get(), 0, SEEK_END);
  out.instructions.resize(static_cast<std::size_t>(size) / sizeof(sock_filter));
  if (::pread(file.get(), out.instructions.data(), static_cast<std::size_t>(size), 0) != size)
    return os_error("compile the seccomp profile", errno);
  HOBBES_TRY(first, newer_calls(profile));
  // A program asks for calls that its profile has never heard of, and goes on without them only
  // when told that they are not there.
  bool denies = profile.default_action == "SCMP_ACT_ERRNO" &&
                profile.default_errno_ret.value_or(EPERM) != ENOSYS;
  if (int newest = newest_call(profile); denies && newest > 0) {
    auto unknown = unknown_calls(newest);
    first.insert(first.end(), unknown.begin(), unknown.end());
  }
  out.instructions.insert(out.instructions.begin(), first.begin(), first.end());
  return out;
}

oci::Seccomp default_seccomp() {
  oci::Seccomp out;
  out.default_action = "SCMP_ACT_ALLOW";
  out.architectures = {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"};
  oci::SeccompRule deny;
  deny.action = "SCMP_ACT_ERRNO";
  deny.errno_ret = EPERM;
  deny.names = {"acct",
                "add_key",
                "bpf",
                "clock_adjtime",
                "clock_settime",
                "create_module",
                "delete_module",
                "finit_module",
                "fsconfig",
                "fsmount",
                "fsopen",
                "fspick",
                "init_module",
                "io_uring_enter",
                "io_uring_register",
                "io_uring_setup",
                "ioperm",
                "iopl",
                "kexec_file_load",
                "kexec_load",
                "keyctl",
                "lookup_dcookie",
                "mount",
                "mount_setattr",
                "move_mount",
                "nfsservctl",
                "open_by_handle_at",
                "open_tree",
                "open_tree_attr",
                "perf_event_open",
                "pivot_root",
                "quotactl",
                "quotactl_fd",
                "reboot",
                "request_key",
                "setns",
                "settimeofday",
                "stime",
                "swapoff",
                "swapon",
                "sysfs",
                "umount",
                "umount2",
                "uselib",
                "ustat",
                "vhangup",
                "vm86",
                "vm86old"};
  out.syscalls.push_back(deny);
  // clone3 hides its flags in memory; the C library asks by clone when it is told that there is
  // none.
  oci::SeccompRule missing = deny;
  missing.errno_ret = ENOSYS;
  missing.names = {"clone3"};
  out.syscalls.push_back(missing);
  oci::SeccompRule namespaces = deny;  // a new namespace, by either call
  namespaces.names = {"clone", "unshare"};
  for (std::uint64_t flag :
       std::initializer_list<std::uint64_t>{CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET,
                                            CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWCGROUP}) {
    namespaces.args = {{0, flag, flag, "SCMP_CMP_MASKED_EQ"}};
    out.syscalls.push_back(namespaces);
  }
  oci::SeccompRule faults = deny;  // to hold up the kernel, not to watch one's own writes
  faults.names = {"userfaultfd"};
  faults.args = {{0, UFFD_USER_MODE_ONLY, 0, "SCMP_CMP_MASKED_EQ"}};
  out.syscalls.push_back(faults);
  namespaces.names = {"unshare"};  // the flag's place holds a signal in the other
  namespaces.args = {{0, CLONE_NEWTIME, CLONE_NEWTIME, "SCMP_CMP_MASKED_EQ"}};
  out.syscalls.push_back(namespaces);
  return out;
}

Result<Fd> load_seccomp(const SeccompProgram& program) {
  sock_fprog filter{static_cast<unsigned short>(program.instructions.size()),
                    const_cast<sock_filter*>(program.instructions.data())};
  long rc = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, program.flags, &filter);
  if (rc < 0) return os_error("load the seccomp profile", errno);
  return Fd((program.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0 ? static_cast<int>(rc) : -1);
}

}  // namespace hobbes
