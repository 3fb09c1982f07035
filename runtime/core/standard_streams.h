// Standard output that is not lost and does not hold up what waits on other things.
#pragma once
#include <string>
#include <string_view>

#include "core/result.h"

namespace hobbes {

/// Once at the start of a program: streams that its caller has closed are /dev/null, so that
/// nothing else gets their numbers, and an output that was left non-blocking by somebody who shares
/// it is opened anew, so that text is not dropped when it is full for a moment.
void prepare_standard_streams();
/// At the end of a program that has printed: everything, or an error. Errors: Code::exhausted (a
/// full disk), Code::os.
Result<void> flush_standard_output();

/// Text on its way to a descriptor, for programs that wait on several: nothing is ever waited for
/// here. Not thread-safe.
class OutputStream {
 public:
  explicit OutputStream(int fd) : fd_(fd) {}
  void append(std::string_view text) {
    if (!failed_) pending_.append(text);
  }
  /// Writes what there is room for now. Errors, once: the text cannot be written; it and what
  /// follows are dropped.
  Result<void> flush_some();
  [[nodiscard]] bool pending() const { return !pending_.empty(); }
  /// Whether who fills it should wait: its reader is slow.
  [[nodiscard]] bool full() const { return pending_.size() > limit; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  static constexpr std::size_t limit = 256 << 10;
  int fd_;
  std::string pending_;
  bool failed_ = false;
};

}  // namespace hobbes
