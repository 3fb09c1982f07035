#include "vmm/seccomp_filter.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <initializer_list>
#include <span>

namespace hobbes::vmm {
namespace {

// Signals, memory of one's own, locks, the end.
constexpr int common[] = {SCMP_SYS(read),
                          SCMP_SYS(write),
                          SCMP_SYS(futex),
                          SCMP_SYS(rt_sigreturn),
                          SCMP_SYS(rt_sigprocmask),
                          SCMP_SYS(rt_sigaction),
                          SCMP_SYS(mmap),
                          SCMP_SYS(munmap),
                          SCMP_SYS(mprotect),
                          SCMP_SYS(madvise),
                          SCMP_SYS(brk),
                          SCMP_SYS(exit),
                          SCMP_SYS(exit_group),
                          SCMP_SYS(clock_gettime),
                          SCMP_SYS(restart_syscall),
                          SCMP_SYS(gettid),
                          SCMP_SYS(getpid),
                          SCMP_SYS(tgkill),
                          SCMP_SYS(sched_yield),
                          SCMP_SYS(ftruncate),
                          SCMP_SYS(fstat),
                          SCMP_SYS(newfstatat),
                          SCMP_SYS(poll),
                          SCMP_SYS(close),
                          SCMP_SYS(set_robust_list),
                          SCMP_SYS(rseq),
                          SCMP_SYS(writev),
                          SCMP_SYS(clock_nanosleep),
                          SCMP_SYS(mremap),
                          SCMP_SYS(sched_getaffinity)};

constexpr int serving[] = {
    SCMP_SYS(epoll_ctl),       SCMP_SYS(epoll_wait),
    SCMP_SYS(timerfd_settime), SCMP_SYS(setsockopt),
    SCMP_SYS(epoll_pwait),     SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),        SCMP_SYS(fdatasync),
    SCMP_SYS(getrandom),       SCMP_SYS(sendmsg),
    SCMP_SYS(recvmsg),         SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),        SCMP_SYS(accept4),
    SCMP_SYS(socketpair),      SCMP_SYS(connect),
    SCMP_SYS(getsockopt),      SCMP_SYS(fcntl),
    SCMP_SYS(readlink),        SCMP_SYS(sched_setaffinity),
    SCMP_SYS(access),          SCMP_SYS(faccessat2),
    SCMP_SYS(lseek),           SCMP_SYS(getuid),
    SCMP_SYS(geteuid),         SCMP_SYS(nanosleep),
    SCMP_SYS(rt_sigpending),   SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(memfd_create),
};

constexpr int on_files[] = {
    SCMP_SYS(openat),     SCMP_SYS(statx),     SCMP_SYS(syncfs),    SCMP_SYS(pwritev2),
    SCMP_SYS(getdents64), SCMP_SYS(lseek),     SCMP_SYS(preadv),    SCMP_SYS(pwritev),
    SCMP_SYS(fsync),      SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(fstatfs),
    SCMP_SYS(readlinkat), SCMP_SYS(linkat),    SCMP_SYS(symlinkat), SCMP_SYS(unlinkat),
    SCMP_SYS(renameat),   SCMP_SYS(renameat2), SCMP_SYS(mkdirat),   SCMP_SYS(mknodat),
    SCMP_SYS(fchownat),   SCMP_SYS(fchmodat),  SCMP_SYS(utimensat),
};

// What root of the guest may do to other users' files; of a thread, not of the process.
constexpr cap_value_t over_files[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER};

bool keep_capabilities(std::span<const cap_value_t> kept) {
  cap_t all = ::cap_init();
  bool done = all != nullptr;
  for (cap_flag_t flag : {CAP_PERMITTED, CAP_EFFECTIVE})
    done = done && (kept.empty() || ::cap_set_flag(all, flag, static_cast<int>(kept.size()),
                                                   kept.data(), CAP_SET) == 0);
  done = done && ::cap_set_proc(all) == 0;
  ::cap_free(all);
  return done;
}

}  // namespace

Result<void> install_seccomp_filter(ThreadKind kind) {
  const std::string attempt = "confine a thread of the monitor";
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return os_error(attempt, errno);
  if (!keep_capabilities(kind == ThreadKind::files ? std::span(over_files)
                                                   : std::span<const cap_value_t>()))
    return os_error(attempt, errno);
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == nullptr) return os_error(attempt, ENOMEM);
  int rc = 0;
  for (int call : common)
    if (rc == 0) rc = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  auto allow_ioctl = [&](unsigned long request) {
    if (rc == 0)
      rc = ::seccomp_rule_add(
          filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
          SCMP_A1_32(SCMP_CMP_EQ, static_cast<scmp_datum_t>(request & 0xffffffffU)));
  };
  if (kind == ThreadKind::vcpu) {
    for (unsigned long request : std::initializer_list<unsigned long>{
             KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_KVMCLOCK_CTRL})
      allow_ioctl(request);
  } else if (kind == ThreadKind::files) {
    for (int call : on_files)
      if (rc == 0) rc = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  } else {
    for (int call : serving)
      if (rc == 0) rc = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    // hobbesd and the mirror are found anew when they were restarted: sockets of this machine only,
    // and files for reading only.
    if (rc == 0)
      rc = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                              SCMP_A0_32(SCMP_CMP_EQ, AF_UNIX));
    constexpr scmp_datum_t changes = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
    if (rc == 0)
      rc = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                              SCMP_A2_32(SCMP_CMP_MASKED_EQ, changes, O_RDONLY));
    for (unsigned long request :
         {static_cast<unsigned long>(KVM_SET_USER_MEMORY_REGION), 0x5413UL /* TIOCGWINSZ */,
          0x5401UL /* TCGETS */, 0x5402UL, 0x5403UL, 0x5404UL})
      allow_ioctl(request);
  }
  if (rc == 0) rc = ::seccomp_load(filter);
  ::seccomp_release(filter);
  if (rc != 0) return os_error(attempt, -rc);
  return {};
}

}  // namespace hobbes::vmm
