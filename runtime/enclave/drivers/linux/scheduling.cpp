#include "enclave/drivers/linux/scheduling.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "core/cpu_set.h"

namespace hobbes {
namespace {

// linux/ioprio.h and linux/sched/types.h do not go together with C++ and the C library.
constexpr int ioprio_who_process = 1, ioprio_class_shift = 13;
struct SchedulerAttributes {
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime, deadline, period;
  std::uint32_t util_min, util_max;
};
static_assert(sizeof(SchedulerAttributes) == 56);

}  // namespace

Result<void> apply_scheduling(const oci::Process& process) {
  if (process.io_priority) {
    int value = process.io_priority->io_class << ioprio_class_shift | process.io_priority->priority;
    if (::syscall(SYS_ioprio_set, ioprio_who_process, 0, value) != 0)
      return os_error("set process.ioPriority", errno);
  }
  if (process.scheduler) {
    const oci::Scheduler& wanted = *process.scheduler;
    SchedulerAttributes attributes{
        sizeof attributes, wanted.policy,   wanted.flags,  wanted.nice, wanted.priority,
        wanted.runtime,    wanted.deadline, wanted.period, 0,           0};
    if (::syscall(SYS_sched_setattr, 0, &attributes, 0) != 0)
      return os_error("set process.scheduler", errno);
  }
  return {};
}

Result<void> apply_memory_and_personality(const oci::Linux& settings) {
  if (settings.personality && ::personality(*settings.personality) < 0)
    return os_error("set linux.personality", errno);
  if (settings.memory_policy) {
    constexpr unsigned bits = 64;
    std::array<unsigned long, CpuSet::capacity / bits> nodes{};
    for (unsigned node : settings.memory_policy->nodes.members())
      nodes[node / bits] |= 1UL << node % bits;
    bool any = !settings.memory_policy->nodes.empty();
    if (::syscall(SYS_set_mempolicy, settings.memory_policy->mode | settings.memory_policy->flags,
                  any ? nodes.data() : nullptr, any ? CpuSet::capacity : 0UL) != 0)
      return os_error("set linux.memoryPolicy", errno, "name NUMA nodes that the enclave has");
  }
  return {};
}

Result<void> enter_time_namespace(const ProcFs& proc, const std::vector<oci::TimeOffset>& offsets) {
  // The offsets are written while nobody is inside, and only children would be born there.
  if (::unshare(CLONE_NEWTIME) != 0)
    return os_error("make the time namespace", errno, "Linux 5.6 or newer is needed");
  for (const oci::TimeOffset& offset : offsets) {
    auto written =
        proc.write("self/timens_offsets", offset.clock + " " + std::to_string(offset.seconds) +
                                              " " + std::to_string(offset.nanoseconds));
    if (!written) return std::move(written.error()).within("set linux.timeOffsets");
  }
  // A magic link of this process's own, in the procfs that is trusted.
  Fd made(::open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC));
  if (!made || ::setns(made.get(), CLONE_NEWTIME) != 0)
    return os_error("enter the time namespace", errno);
  return {};
}

}  // namespace hobbes
