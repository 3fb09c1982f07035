// The durable truth: RocksDB behind four calls, so that faults can be put in its place.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"

namespace hobbes {

/// One atomic change of the store. A value; order matters only for equal keys.
struct Batch {
  std::vector<std::pair<std::string, std::string>> puts;
  std::vector<std::string> deletes;
  bool durable = false;  ///< synced to disk before write() returns: what must outlive a power cut
};

/// Keys to values. Not thread-safe.
class Store {
 public:
  virtual ~Store() = default;
  /// All or nothing; once it returns, the change survives the death of any process. Errors:
  /// Code::os, Code::exhausted.
  virtual Result<void> write(const Batch& batch) = 0;
  virtual Result<std::string> read(const std::string& key) = 0;  ///< Code::not_found
  /// Visits keys that start with `prefix` in order.
  virtual Result<void> each(
      const std::string& prefix,
      const std::function<void(std::string_view key, std::string_view value)>& visit) = 0;

  /// Opens or makes a RocksDB database in `directory`. Errors: Code::busy when another process
  /// holds it, Code::corrupt, Code::denied (read-only), Code::exhausted (full).
  static Result<std::unique_ptr<Store>> open(const std::string& directory);
};

}  // namespace hobbes
