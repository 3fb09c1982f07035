// The doorbell of a segment: "look at it now", said to everybody who listens without a copy and
// without hobbesd.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "nis/reader.h"

namespace hobbes {

/// One attachment's part in it: it may listen, and ring for all listeners of other processes. A
/// bell says that it was rung, not how often. Not thread-safe, but one thread may wait while
/// another rings.
class Doorbell {
 public:
  /// `segment` and `attachment` as hobbesd numbers them.
  Doorbell(std::uint64_t segment, std::uint64_t attachment, bool writable)
      : segment_(segment), attachment_(attachment), writable_(writable) {}

  /// From now on rings are heard. A descriptor that polls readable when there was one; it stays
  /// this object's. Idempotent. Errors: Code::exhausted (too many listen), Code::not_found (the
  /// segment was removed), Code::unavailable (no hobbesd).
  Result<int> listen(std::chrono::milliseconds deadline = std::chrono::seconds(30));
  /// What listen() gave, or -1.
  [[nodiscard]] int descriptor() const { return rung_.get(); }
  /// Takes what was rung since the last wait, or waits for it; `descriptor` is what listen() gave.
  /// A negative `patience`: for ever. Errors: Code::timeout; Code::unavailable when the virtual
  /// machine's monitor has hung up.
  static Result<void> wait(int descriptor, std::chrono::milliseconds patience);
  /// Rings. Never waits for a listener. hobbesd is asked only when the listeners have changed,
  /// which the mirror tells. Errors: Code::not_found when the segment was removed;
  /// Code::unavailable when they changed and hobbesd does not answer: who listened before has been
  /// told.
  Result<void> ring(std::chrono::milliseconds deadline = std::chrono::seconds(2));

 private:
  Result<void> find_listeners(std::chrono::milliseconds deadline);

  std::uint64_t segment_ = 0, attachment_ = 0;
  bool writable_ = false;
  Fd rung_;
  std::vector<Fd> listeners_;
  std::uint64_t version_ = ~std::uint64_t{0};  // of which state of the segment they are
  std::unique_ptr<NisReader> mirror_;
};

}  // namespace hobbes
