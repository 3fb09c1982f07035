// A virtual machine: memory, vCPUs with a thread each, and devices.
#pragma once
#include <signal.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "core/event_loop.h"
#include "vmm/acpi.h"
#include "vmm/guest_memory_map.h"
#include "vmm/kvm.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/virtio/block.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/entropy.h"
#include "vmm/virtio/fs/dax_window.h"
#include "vmm/virtio/fs/filesystem.h"
#include "vmm/virtio/mem.h"
#include "vmm/virtio/vsock.h"

namespace hobbes::vmm {

struct SharedFolder {
  Fd folder;  ///< open for paths
  std::string tag;
  bool read_only = false;
  std::uint64_t window = 0;  ///< bytes of addresses at which the guest maps its files; 0: none
};

struct MachineConfig {
  std::vector<unsigned> cpus;  ///< one vCPU on each
  std::uint64_t memory = 0, page_size = 4096;
  std::uint64_t spare = 0;    ///< room for memory that is added while it runs, whole GiB
  std::uint32_t enclave = 0;  ///< what the guest finds in CPUID
  KernelImage image;
  Fd kvm, disk;
  bool disk_read_only = false;
  std::vector<SharedFolder> folders;
};

/// Made, started and ended on the loop's thread. Once started it lives as long as the process.
class Machine final : public GuestMemoryMap {
 public:
  /// Everything but running it. `console` gets what the guest prints on its serial port and its
  /// console, on any thread.
  static Result<std::unique_ptr<Machine>> make(MachineConfig config, EventLoop& loop,
                                               std::function<void(std::string_view)> console);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  Result<void> start();
  /// vCPUs stop between two instructions. Idempotent.
  void pause();
  void resume();
  [[nodiscard]] bool paused() const { return paused_; }
  /// Moves vCPU i to `cpus[i % cpus.size()]`.
  Result<void> pin(const std::vector<unsigned>& cpus);
  /// Whether the guest maps the files of its shared folders themselves, and not copies.
  [[nodiscard]] bool maps_files() const;
  /// Those of the vCPUs, in their order.
  [[nodiscard]] std::vector<unsigned> cpus() const;
  /// Tells the guest's kernel that somebody wants it to power off. It may have no driver for that.
  void press_power_button();
  /// Polls readable when the guest has ended.
  [[nodiscard]] int ended_fd() const { return ended_.get(); }
  struct End {
    Ending how;
    std::string detail;
  };
  [[nodiscard]] End end() const;
  [[nodiscard]] Vsock& vsock() { return *vsock_; }
  /// Keys for the guest: for its console once it has printed there, for its serial port before.
  /// Returns how many bytes were taken; `room` (on any thread) tells when to bring the rest.
  std::size_t type(std::string_view keys);
  void on_room(const std::function<void()>& room);
  void resize(std::uint16_t columns, std::uint16_t rows) { console_->resize(columns, rows); }
  [[nodiscard]] const GuestMemory& memory() const { return memory_; }
  /// Null when the machine was made without room for more memory.
  [[nodiscard]] VirtioMem* virtio_mem() { return virtio_mem_ ? &*virtio_mem_ : nullptr; }

  Result<void> show(unsigned slot, Gpa address, std::uint64_t size, void* host,
                    bool read_only) override;
  Result<void> hide(unsigned slot) override;

  struct Exits {
    std::atomic<std::uint64_t> all{0}, port{0}, memory{0}, interrupted{0};
  };
  [[nodiscard]] const std::vector<std::unique_ptr<Exits>>& exits() const { return exits_; }

 private:
  Machine(GuestMemory memory, Vm vm, EventLoop& loop)
      : memory_(std::move(memory)), vm_(std::move(vm)), loop_(loop) {}
  Result<void> add_virtio(VirtioDevice& device);
  Result<void> add_folder(SharedFolder folder, std::uint64_t limit);
  Result<Fd> interrupt_line(unsigned gsi);
  void serve_folder(FileSystem& files, int kick);
  void run_vcpu(unsigned number);
  bool follow_sizes();
  void print(std::string_view text);
  void finish(Ending how, const std::string& detail);
  void kick();

  GuestMemory memory_;
  Vm vm_;
  EventLoop& loop_;
  Bus ports_, registers_;
  std::function<void(std::string_view)> printed_;
  std::unique_ptr<Serial> serial_;
  std::unique_ptr<Console> console_;
  std::vector<std::unique_ptr<EndRegister>> ends_;
  std::unique_ptr<Vsock> vsock_;
  std::optional<Block> block_;
  std::optional<VirtioMem> virtio_mem_;
  Entropy entropy_;
  struct ServedFolder {
    std::unique_ptr<DaxWindow> window;
    std::unique_ptr<FileSystem> files;
    Fd kick;
  };
  std::vector<ServedFolder> folders_;
  std::vector<std::unique_ptr<VirtioTransport>> transports_;
  std::vector<Fd> events_;
  AcpiMachine acpi_;
  std::vector<Vcpu> vcpus_;
  std::vector<unsigned> cpus_;
  std::vector<std::thread> threads_;
  std::vector<std::unique_ptr<Exits>> exits_;

  Fd ended_, power_button_;
  mutable std::mutex lock_;
  std::condition_variable changed_;
  bool paused_ = false;
  std::atomic<bool> stopping_{false};
  std::optional<End> end_;
  std::string line_, panic_text_;  // of what it prints
};

/// The signal that interrupts a vCPU's thread; its handler does nothing. Blocked everywhere else.
inline const int kick_signal = SIGRTMIN + 1;

}  // namespace hobbes::vmm
