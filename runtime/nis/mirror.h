// The writing side of the mirror (abi/nis.h). hobbesd is the only program that uses it.
#pragma once
#include <sys/types.h>

#include <string>

#include "abi/nis.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Shape of a new mirror; the defaults hold a million names.
struct MirrorShape {
  std::uint64_t log_capacity = 1U << 16U;
  std::uint64_t index_capacity = 1U << 21U;
  std::uint64_t slots = 1024;  ///< to begin with; grows by doubling
  std::uint32_t record_size = sizeof(hobbes_record);
  std::uint16_t minor = HOBBES_NIS_MINOR;
};

/// One mirror file, mapped read-write. Single-threaded. Move-only; closing it leaves the file for
/// its readers.
class Mirror {
 public:
  /// Adopts a sound mirror of this boot at `path`, or replaces whatever is there by an empty one.
  /// A replaced file is marked retired when it can still be mapped. Errors: Code::os,
  /// Code::exhausted.
  static Result<Mirror> open(const std::string& path, mode_t mode, const MirrorShape& shape = {});
  /// A new empty mirror at `path`, whatever was there.
  static Result<Mirror> create(const std::string& path, mode_t mode, const MirrorShape& shape = {});

  Mirror(Mirror&& other) noexcept;
  Mirror& operator=(Mirror&& other) noexcept;
  ~Mirror();

  /// Publishes a record into slot (id & 0xffffffff) and logs the change. Grows the file when
  /// needed. Publishing what is already there changes nothing and logs nothing. Errors:
  /// Code::exhausted when the file cannot grow.
  Result<void> publish(const hobbes_record& record);
  /// Frees the slot of a record and logs it; nothing happens when it is not there.
  void erase(std::uint64_t id);
  /// Space was made: growing is tried again at once.
  void may_grow() { grow_again_ns_ = 0; }
  void beat();                                 ///< says the writer lives
  void retire();                               ///< tells readers to open the path again
  void continue_from(std::uint64_t sequence);  ///< the next change gets at least sequence + 1
  [[nodiscard]] std::uint64_t sequence() const;
  /// Whether the path still names this file, whole: someone may have deleted or cut it.
  [[nodiscard]] bool intact() const;
  [[nodiscard]] const void* base() const { return base_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  Mirror() = default;
  hobbes_nis_header& header() const { return *static_cast<hobbes_nis_header*>(base_); }
  std::byte* slot_at(std::uint64_t number) const;
  Result<void> grow(std::uint64_t slots);
  std::uint64_t grow_again_ns_ =
      0;  // CLOCK_MONOTONIC: a full file system is not asked for each record
  Result<void> map(std::size_t size);
  void index_add(const hobbes_record& record);
  void index_remove(const hobbes_record& record);
  void write_slot(std::uint64_t number, const hobbes_record& record);
  void log(const hobbes_record& record, std::uint16_t kind);

  std::string path_;
  Fd fd_;
  void* base_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace hobbes
