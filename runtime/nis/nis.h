// The Node Information Service as hobbesd writes it: every transition is one store batch, then the
// mirror.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "abi/nis.h"
#include "core/json.h"
#include "core/result.h"
#include "nis/mirror.h"
#include "nis/store.h"

namespace hobbes {

/// What one transition changes. Built by the caller, committed once.
class Transition {
 public:
  void put(const hobbes_record& record) { puts_.push_back(record); }
  void erase(std::uint64_t id) { erased_.push_back(id); }
  /// A JSON document beside the records (a bundle's configuration, an idempotency key).
  void put_document(const std::string& name, const Json& document) { documents_[name] = document; }
  void erase_document(const std::string& name) { erased_documents_.push_back(name); }
  /// What this transition will make of a record, null when it does not touch it: a second change
  /// must start from the first.
  [[nodiscard]] const hobbes_record* pending(std::uint64_t id) const {
    for (auto at = puts_.rbegin(); at != puts_.rend(); ++at)
      if (at->id == id) return &*at;
    return nullptr;
  }
  /// Has it outlive a reboot.
  void make_durable() { durable_ = true; }

 private:
  friend class Nis;
  std::vector<hobbes_record> puts_;
  std::vector<std::uint64_t> erased_;
  std::map<std::string, Json> documents_;
  std::vector<std::string> erased_documents_;
  bool durable_ = false;
};

/// Owns the store and the mirror. Single-threaded: hobbesd's loop is its only caller.
class Nis {
 public:
  static constexpr int schema = 1;

  /// Opens both. Records of an earlier boot are cleared, documents kept. A corrupt database is
  /// moved aside and the state rebuilt from the mirror of this boot. A state directory that cannot
  /// be written is replaced by one under `run_directory` (a diskless node), and `notes()` says so.
  /// Errors: Code::busy when another hobbesd runs; Code::corrupt for a database of a newer schema.
  static Result<std::unique_ptr<Nis>> open(const std::string& state_directory,
                                           const std::string& run_directory,
                                           const MirrorShape& shape = {});

  /// A record with a fresh id, not yet committed.
  hobbes_record make(hobbes_record_type type, std::uint64_t scope, const std::string& name);
  /// Records that were made and not committed by now never will be: their places are free again.
  void forget_uncommitted();
  /// Commits. On failure nothing has changed. Errors: Code::os, Code::exhausted.
  Result<void> commit(Transition& transition);

  [[nodiscard]] const hobbes_record* by_id(std::uint64_t id) const;
  [[nodiscard]] const hobbes_record* by_name(std::uint16_t type, std::uint64_t scope,
                                             const std::string& name) const;
  /// In order of ids of slots; pointers are good until the next commit.
  [[nodiscard]] std::vector<const hobbes_record*> all(std::uint16_t type) const;
  [[nodiscard]] std::optional<Json> document(const std::string& name) const;
  [[nodiscard]] std::vector<std::string> document_names(const std::string& prefix) const;

  /// Says that the writer lives and repairs a mirror that was deleted or cut.
  void beat();
  [[nodiscard]] std::uint64_t sequence() const { return mirror_->sequence(); }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  [[nodiscard]] std::size_t size() const { return records_.size(); }

 private:
  Nis() = default;
  Result<void> load(const std::string& boot);
  Result<void> rebuild_mirror();
  void show(const hobbes_record& record);
  void reserve();

  std::string mirror_path_, reserve_path_;
  Fd reserve_;
  MirrorShape shape_;
  std::unique_ptr<Store> store_;
  std::optional<Mirror> mirror_;
  std::map<std::uint32_t, hobbes_record> records_;  // by slot
  std::unordered_map<std::string, std::uint32_t> names_;
  std::vector<std::uint32_t> free_slots_;
  std::vector<std::uint32_t> made_slots_;  // since forget_uncommitted()
  std::uint32_t next_slot_ = 0;
  std::uint32_t generation_ = 0;
  std::vector<std::string> notes_;
  bool behind_ = false;  // the mirror lacks something, for want of space
};

/// Whether a string fits a record's name; sets it.
void set_name(hobbes_record& record, const std::string& name);

}  // namespace hobbes
