// Write protection of this process's memory of which one of its threads is told: userfaultfd(2) in
// its write-protect mode, Linux 5.19 and newer for shared memory.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>

#include "core/result.h"

namespace hobbes {

/// One range. A thread that writes to a protected page waits until the page is released.
/// Destruction releases all of it. One thread at a time.
class WriteProtection {
 public:
  virtual ~WriteProtection() = default;
  WriteProtection(const WriteProtection&) = delete;
  WriteProtection& operator=(const WriteProtection&) = delete;

  /// Protects [start, start+size), whole pages of a shared mapping, from this instant on. Errors:
  /// Code::unsupported (an old kernel, a system that forbids it, or memory that is not
  /// Linux's), Code::busy (protected already).
  static Result<std::unique_ptr<WriteProtection>> begin(void* start, std::uint64_t size);
  /// The address that a waiting thread wants to write to; nothing when none waits. Never blocks.
  virtual std::optional<std::uintptr_t> next_write() = 0;
  /// Lets writes to [page, page+size) go on.
  virtual void release(std::uintptr_t page, std::uint64_t size) = 0;
  /// For poll(2): readable when next_write() has something.
  [[nodiscard]] virtual int descriptor() const = 0;

 protected:
  WriteProtection() = default;
};

}  // namespace hobbes
