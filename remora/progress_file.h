// The file in which all ranks of a composition count their messages and waits (progress.h).
#pragma once
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "remora/progress.h"

namespace hobbes {

/// It is read and not mapped, since a rank could cut it. One thread.
class ProgressFile {
 public:
  /// Errors: Code::os.
  static Result<ProgressFile> make(const std::string& path, std::size_t ranks);
  /// Zeros where there is nothing any more.
  [[nodiscard]] remora_progress of(std::size_t rank) const;

 private:
  Fd fd_;
};

}  // namespace hobbes
