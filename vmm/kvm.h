// The KVM API (Linux Documentation/virt/kvm/api.rst), as narrow as Palacios needs it.
#pragma once
#include <linux/kvm.h>

#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "vmm/loader.h"

namespace hobbes::vmm {

/// One vCPU. Its methods are called on the thread that runs it, except kick().
class Vcpu {
 public:
  Vcpu() = default;
  Vcpu(Vcpu&& other) noexcept
      : fd_(std::move(other.fd_)), run_(std::exchange(other.run_, nullptr)), size_(other.size_) {}
  Vcpu& operator=(Vcpu&&) = delete;
  ~Vcpu();
  /// Runs the guest until something is to be done for it. Errors: Code::os; Code::busy after a
  /// kick; Code::unavailable when there is no memory behind an address that it has used.
  Result<void> run();
  /// The next or the present run() returns soon; the thread must be sent a signal too.
  void kick() const;
  [[nodiscard]] kvm_run& state() const { return *run_; }
  Result<void> start_at(const EntryState& entry) const;
  /// Tells a guest that was paused that its watchdogs should not bark.
  void was_paused() const;
  /// Where it is, for people.
  [[nodiscard]] std::string registers() const;

 private:
  friend class Vm;
  Fd fd_;
  kvm_run* run_ = nullptr;
  std::size_t size_ = 0;
};

/// A virtual machine: its memory slots, interrupt lines and notifications. Thread-safe after its
/// making.
class Vm {
 public:
  /// Takes /dev/kvm, already open. Errors: Code::unavailable and what this kernel's KVM lacks.
  static Result<Vm> make(const Fd& kvm);
  Result<void> set_memory(unsigned slot, Gpa address, std::uint64_t size, void* host,
                          bool read_only) const;
  /// Writing to `event` raises interrupt line `gsi` once.
  Result<void> connect_interrupt(const Fd& event, unsigned gsi) const;
  /// A 4-byte write of `value` to `address` signals `event` and costs the guest no exit to us.
  Result<void> connect_write(const Fd& event, Gpa address, std::uint32_t value) const;
  Result<Vcpu> make_vcpu(unsigned number, unsigned count, std::uint32_t enclave) const;
  [[nodiscard]] bool has_read_only_memory() const { return read_only_memory_; }

 private:
  Fd fd_;
  std::size_t run_size_ = 0;
  bool read_only_memory_ = false;
  std::vector<kvm_cpuid_entry2> features_;
};

}  // namespace hobbes::vmm
