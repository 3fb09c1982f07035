// A mapped mirror for C++ callers inside Hobbes; hobbes.h wraps it for everybody else.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "nis/view.h"

namespace hobbes {

/// Maps a mirror read-only and follows its growth. Lookups are safe from any thread. Never writes,
/// never blocks the writer.
class NisReader {
 public:
  /// Errors: Code::not_found, Code::denied, Code::corrupt.
  static Result<std::unique_ptr<NisReader>> open(const std::string& path);
  ~NisReader();
  NisReader(const NisReader&) = delete;
  NisReader& operator=(const NisReader&) = delete;

  using Status = NisView::Status;
  Status by_id(std::uint64_t id, hobbes_record* out);
  Status by_name(std::uint16_t type, std::uint64_t scope, const char* name, hobbes_record* out);
  Status next(std::uint16_t type, std::uint64_t* cursor, hobbes_record* out);
  /// A segment by name: of that user, else of root, else of anybody.
  Status segment_named(const std::string& name, std::uint32_t uid, hobbes_record* out);
  /// Every record of a type, each consistent in itself.
  std::vector<hobbes_record> all(std::uint16_t type);

  /// absent: timed out. stale with `replaced()`: open the path again; stale otherwise: the change
  /// was overwritten.
  Status wait(std::uint64_t* sequence, hobbes_change* out, int timeout_ms);
  [[nodiscard]] std::uint64_t sequence() { return view().head(); }
  [[nodiscard]] bool replaced();
  [[nodiscard]] std::uint64_t writer_silence_ns();

 private:
  struct Mapping {
    void* base;
    std::size_t size;
    NisView view;
  };
  NisReader() = default;
  NisView view() { return current_.load(std::memory_order_acquire)->view; }
  struct Extent {
    std::uint64_t offset, size;
  };
  [[nodiscard]] std::optional<Extent> extent() const;
  Result<void> map();
  bool extend();

  std::string path_;
  Fd fd_;
  bool in_guest_ = false;  // physical memory of a virtual machine instead of a file
  std::atomic<const Mapping*> current_{nullptr};
  std::mutex growing_;
  // Old mappings stay until the end: another thread may still be reading through one.
  std::vector<std::unique_ptr<Mapping>> mappings_;
};

}  // namespace hobbes
