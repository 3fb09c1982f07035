// Lets others take snapshots of a segment that this process has made (XASM: cross-enclave
// asynchronous shared memory). docs/DATA.md; abi/snapshot.h.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/result.h"

namespace hobbes {

/// A service and a thread of its own, which serves it. The segment's memory must stay mapped while
/// this lives.
class SnapshotSource {
 public:
  struct Memory {
    std::uint64_t handle = 0;  ///< the segment's
    void* base = nullptr;
    std::uint64_t size = 0, page_size = 4096;
    mode_t mode = 0600;                 ///< the segment's: who may read it may take snapshots
    std::vector<std::string> enclaves;  ///< the segment's: only these enclaves' programs
  };
  /// Whether writes to such memory can be watched. Errors: those of WriteProtection::begin.
  static Result<void> check(void* base, std::uint64_t size);
  /// Errors: those of Listener::open; Code::exhausted.
  static Result<std::unique_ptr<SnapshotSource>> start(const Memory& memory);
  ~SnapshotSource();  ///< ends what is being taken
  SnapshotSource(const SnapshotSource&) = delete;
  SnapshotSource& operator=(const SnapshotSource&) = delete;

 private:
  struct State;
  explicit SnapshotSource(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The name of a segment's service.
std::string snapshot_service(std::uint64_t handle);

}  // namespace hobbes
