// Changes of the mirror, for programs that wait with poll(2) or epoll(7).
#pragma once
#include <memory>
#include <string>

#include "abi/nis.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Which changes are told.
struct ChangeFilter {
  std::uint16_t type = HOBBES_FREE;  ///< HOBBES_FREE: of records of every type
  std::uint64_t enclave = 0;         ///< of records that belong to it, and its own; 0: of all
  std::string name;                  ///< a pattern as of a shell, fnmatch(3); "": every name
};

/// Collects changes in a thread of its own until it is destroyed. next() may be called in one
/// thread at a time.
class Notifier {
 public:
  /// Errors: those of NisReader::open.
  static Result<Notifier> open(const ChangeFilter& filter);
  ~Notifier();
  Notifier(Notifier&&) noexcept;
  Notifier& operator=(Notifier&&) = delete;

  /// Readable while next() has something to tell. The notifier's own.
  [[nodiscard]] int descriptor() const;
  enum class Status : std::uint8_t {
    change,
    none,  ///< nothing now
    lost   ///< changes were lost since the last call: read the records anew
  };
  Status next(hobbes_change* out);

 private:
  struct State;
  explicit Notifier(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace hobbes
