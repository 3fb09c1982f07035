// A composition from a command line, as mpirun's: `-np 4 ./simulation ARGS : -np 1 ./analysis`.
#pragma once
#include <string>
#include <vector>

#include "core/result.h"
#include "remora/composition.h"

namespace hobbes {

/// The bundles that such a composition has made for itself; gone with the object. Move-only.
class Programs {
 public:
  /// Whether `word` begins a list of programs.
  static bool begins(const std::string& word);
  /// `words`: programs separated by ":", each `-np N [--cores N] [--memory SIZE] [--bundle FOLDER]
  /// [--wdir FOLDER] [--no-mpi] PROGRAM ARGS...`. Each becomes an app in an enclave of its own,
  /// named after its file, which shows the host's root unless it has a bundle. Errors:
  /// Code::invalid naming the word; everything load_composition can say.
  static Result<Programs> read(const std::vector<std::string>& words);
  Programs(Programs&& other) noexcept;
  Programs& operator=(Programs&&) = delete;
  ~Programs();
  [[nodiscard]] const Composition& composition() const { return composition_; }

 private:
  Programs() = default;
  std::string folder_;
  Composition composition_;
};

}  // namespace hobbes
