// The co-kernel module's device as values: hobbes.ko's requests (abi/kmod.h) with errors that say
// what to do.
#pragma once
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "abi/kmod.h"
#include "core/cpu_set.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// A mapping of device or file memory; unmapped with it.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* base, std::size_t size) : base_(base), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();
  [[nodiscard]] void* base() const { return base_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void* base_ = nullptr;
  std::size_t size_ = 0;
};

struct Extent {
  std::uint64_t address = 0, size = 0;  ///< physical
  unsigned node = 0, slot = 0;
};

/// One open descriptor of /dev/hobbes: an enclave in the module's sense. Closing the last copy
/// gives everything back, in reverse. Errors carry the ioctl's errno as text; Code::denied without
/// CAP_SYS_ADMIN for what takes from Linux. Not thread-safe.
class ModuleEnclave {
 public:
  /// Errors: Code::unavailable when the module is not loaded or of another version; Code::denied.
  static Result<ModuleEnclave> open();
  /// From a descriptor got elsewhere.
  explicit ModuleEnclave(Fd fd) : fd_(std::move(fd)) {}
  /// Why `open` would fail on this node, for `features`.
  static std::optional<Error> obstacle();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] Result<hobbes_kmod_version> version() const;
  [[nodiscard]] Result<void> name(const std::string& text) const;
  [[nodiscard]] Result<hobbes_kmod_state> state() const;
  /// Memory from the pool: one contiguous piece of at most `size` bytes, cleared. Errors:
  /// Code::exhausted when the node's pool is empty.
  [[nodiscard]] Result<Extent> take_extent(unsigned node, std::uint64_t size) const;
  [[nodiscard]] Result<void> return_extent(unsigned slot) const;
  /// Takes a CPU from Linux; returns its APIC id. Errors: Code::busy, naming the obstacle where the
  /// kernel does.
  [[nodiscard]] Result<unsigned> take_core(unsigned cpu) const;
  [[nodiscard]] Result<void> return_core(unsigned cpu) const;
  [[nodiscard]] Result<void> boot(unsigned cpu, const Extent& base, std::uint64_t entry,
                                  std::uint64_t rdi, std::uint64_t rsi) const;
  /// vector 0: an NMI.
  [[nodiscard]] Result<void> signal(unsigned cpu, unsigned vector) const;
  [[nodiscard]] Result<void> attach_doorbell(int eventfd, unsigned cpu) const;
  /// Maps part of an own extent into this process.
  [[nodiscard]] Result<Mapping> map(std::uint64_t address, std::size_t size) const;
  /// Pins this process's memory and tells its frames. The slot names the pin.
  [[nodiscard]] Result<std::vector<hobbes_kmod_run>> pin(const void* memory, std::size_t size,
                                                         bool writable, unsigned* slot) const;
  [[nodiscard]] Result<void> unpin(unsigned slot) const;
  /// A view for one process (abi/forward.h). Errors: Code::exhausted.
  [[nodiscard]] Result<Fd> view() const;
  /// Waits until the enclaves whose descriptors were closed have given everything back.
  [[nodiscard]] Result<void> settle() const;

  [[nodiscard]] Result<void> pool_add(std::uint64_t address, std::uint64_t size,
                                      unsigned node) const;
  /// Errors: Code::busy while part of it is taken; Code::not_found.
  [[nodiscard]] Result<void> pool_remove(std::uint64_t address, std::uint64_t size,
                                         unsigned node) const;

 private:
  Fd fd_;
};

/// What the module reports of itself.
struct ModuleReport {
  struct Chunk {
    std::uint64_t address = 0, size = 0, free = 0;
    unsigned node = 0;
    bool reserved = false;  ///< kept from Linux since boot
  };
  std::vector<Chunk> chunks;
  CpuSet cores, quarantined;
  std::set<std::string> holders;  ///< names of the enclaves that hold something
  static Result<ModuleReport> read();
};

}  // namespace hobbes
