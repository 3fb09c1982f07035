// What took time on cores from the processes they are for, by the kernel's own counters.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/cpu_set.h"
#include "core/file.h"

namespace hobbes {

/// Who took time, and where.
struct Offender {
  std::string name;
  std::uint64_t amount = 0;  ///< interrupts, or nanoseconds
  CpuSet cpus;
};

/// What took time from the threads, or disturbed them. The greatest amount is first.
struct Interference {
  std::uint64_t elapsed_ns = 0;
  std::uint64_t ran_ns = 0;      ///< the own threads ran
  std::uint64_t waited_ns = 0;   ///< they were ready to run and had no processor
  std::uint64_t handled_ns = 0;  ///< the cores handled interrupts, also deferred ones
  std::uint64_t stolen_ns = 0;   ///< the hypervisor ran something else
  std::vector<Offender> interrupts;
  std::vector<Offender> programs;  ///< processes and kernel threads of others
};

/// The processes that the cores are for.
using OwnProcesses = std::function<Result<std::set<pid_t>>()>;

/// Watches some CPUs. Between two looks a thread's time counts where it ran last, and the time of a
/// thread that has ended since the look before does not count: looks should not be far apart. What
/// a CPU counted while it was not online does not count. Not thread-safe.
class InterferenceWatch {
 public:
  /// `proc`: where procfs is mounted.
  explicit InterferenceWatch(CpuSet cpus, const Files& files = Files::system(),
                             std::string proc = "/proc")
      : cpus_(cpus), files_(files), proc_(std::move(proc)) {}

  /// The first look is the beginning. `own` is asked before and after the threads are looked at,
  /// for those that begin meanwhile; `now_ns`: a monotonic clock. Errors: those of `own`, and of
  /// reading /proc/interrupts, /proc/stat and the list of processes.
  Result<void> look(const OwnProcesses& own, std::uint64_t now_ns);
  /// All since the first look.
  [[nodiscard]] Interference result() const;

 private:
  struct Thread {
    std::uint64_t ran_ns = 0, waited_ns = 0;
  };
  using Counts = std::map<std::pair<std::string, unsigned>, std::uint64_t>;  // name, CPU
  struct Times {
    std::uint64_t handled = 0, stolen = 0;  // clock ticks
  };
  void count_interrupts(const std::string& text);
  void count_times(const std::string& text);
  Result<void> count_threads(const OwnProcesses& own, std::uint64_t elapsed_ns);

  CpuSet cpus_;
  const Files& files_;
  std::string proc_;
  bool begun_ = false;
  std::uint64_t began_ns_ = 0, looked_ns_ = 0;
  std::map<unsigned, Times> times_;                          // at the look before, by CPU
  std::map<std::pair<pid_t, std::string>, Thread> threads_;  // by id and start time
  CpuSet columns_;                                           // of the look before
  Counts interrupts_before_, interrupts_, programs_;
  Interference found_;
};

}  // namespace hobbes
