// The folder of a running composition in shared memory.
#pragma once
#include <string>
#include <utility>

#include "core/result.h"

namespace hobbes {

/// RAII: the folder is gone with the object. One thread.
class SessionFolder {
 public:
  /// Removes what dead launchers of this user left, then makes a folder of the composition's.
  /// Errors: Code::os.
  static Result<SessionFolder> make(const std::string& composition);
  SessionFolder(SessionFolder&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  SessionFolder& operator=(SessionFolder&&) = delete;
  ~SessionFolder();

  /// Every enclave sees it, so every process of the composition may write there.
  [[nodiscard]] const std::string& path() const { return path_; }
  /// What enclaves are made from, which none of them sees.
  [[nodiscard]] std::string bundles() const { return path_ + ".bundles"; }
  /// What every enclave has as /dev/shm.
  [[nodiscard]] std::string shared_memory() const { return path_ + "/shm"; }
  /// The PMIx server's.
  [[nodiscard]] std::string pmix() const { return path_ + "/pmix"; }
  /// The file of progress.h.
  [[nodiscard]] std::string progress() const { return path_ + "/progress"; }
  /// Where a rank tells its phases (hook_remora.c).
  [[nodiscard]] std::string phases(unsigned rank) const {
    return path_ + "/phase." + std::to_string(rank);
  }

 private:
  SessionFolder() = default;
  std::string path_;
};

}  // namespace hobbes
