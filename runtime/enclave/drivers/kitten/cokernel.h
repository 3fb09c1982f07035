// A running co-kernel as its control process sees it: status page, console, command channel,
// heartbeat. What it reads is untrusted.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "abi/kitten.h"
#include "core/event_fd.h"
#include "core/fd.h"
#include "core/result.h"
#include "enclave/drivers/kitten/plan.h"
#include "ipc/ring.h"

namespace hobbes {

class Cokernel {
 public:
  /// `print` is given what the kernel writes to its console.
  static Result<Cokernel> attach(ModuleEnclave module, KittenPlan plan,
                                 std::function<void(const std::string&)> print);

  /// Starts core 0 and then the others. Errors: what the kernel reported, or Code::timeout.
  Result<void> boot();
  /// Asks the kernel and waits for its answer. Errors: Code::timeout; the kernel's own errno; its
  /// death.
  Result<std::string> call(unsigned operation, const std::string& payload,
                           std::chrono::milliseconds deadline = std::chrono::seconds(5));
  template <class T>
  static std::string bytes_of(const T& value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }

  /// Readable when the kernel has rung.
  [[nodiscard]] int doorbell() const { return doorbell_.get(); }
  /// Passes the console on and takes note of the doorbell.
  void drain();
  /// Why the kernel does not run any more; empty while it does. `shut_down()` tells an orderly end.
  [[nodiscard]] std::string death() const;
  [[nodiscard]] bool shut_down() const;
  /// Once a second: an idle kernel is asked for a sign of life, a silent one gets an NMI. The text
  /// says why it counts as crashed.
  std::optional<std::string> check_heartbeat();

  /// What the kernel says of itself.
  Result<hobbes_kitten_facts> query();
  Result<void> add_core(const TakenCore& core);
  Result<void> remove_core(unsigned cpu);
  Result<void> add_memory(const Extent& extent);
  Result<void> remove_memory(unsigned slot);
  /// Makes the node's mirror visible to the kernel, or again after it grew.
  Result<void> show_mirror(const std::string& path);
  [[nodiscard]] Json statistics() const;
  /// How often each system call was forwarded, by its number.
  Result<std::map<unsigned, std::uint64_t>> forwarded_calls();
  [[nodiscard]] const KittenPlan& plan() const { return plan_; }

 private:
  Cokernel(ModuleEnclave module, KittenPlan plan, std::function<void(const std::string&)> print)
      : module_(std::move(module)), plan_(std::move(plan)), print_(std::move(print)) {}
  [[nodiscard]] const hobbes_status& status() const {
    return *static_cast<const hobbes_status*>(shared_.base());
  }
  [[nodiscard]] std::uint32_t state() const;
  void ring();
  void wait(std::chrono::milliseconds limit);
  /// Pins this memory and shows it; the slot it then has. On failure nothing of it is left.
  Result<unsigned> show(unsigned window, const Mapping& memory);
  Result<void> hide(unsigned slot);
  Result<void> start_core(const TakenCore& core, unsigned number);
  Result<void> await(const std::function<bool()>& condition, std::chrono::milliseconds deadline,
                     const std::string& attempt);

  ModuleEnclave module_;
  KittenPlan plan_;
  std::function<void(const std::string&)> print_;
  Mapping shared_, mirror_;
  std::optional<unsigned> mirror_slot_;
  ino_t mirror_inode_ = 0;
  Ring console_, requests_, replies_;
  EventFd doorbell_;
  std::uint32_t next_number_ = 1;
  std::uint64_t last_beat_ = 0;
  std::uint32_t probes_before_ = 0;
  int silent_seconds_ = 0;
};

}  // namespace hobbes
