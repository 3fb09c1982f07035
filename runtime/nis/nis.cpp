#include "nis/nis.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <cstring>

#include "core/clock.h"
#include "core/file.h"
#include "core/identity.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

// Keys of the store. Records: "r/" + slot; documents: "d/" + name; "m/..." is about the store
// itself.
std::string record_key(std::uint32_t slot) { return "r/" + hex(slot, 8); }

std::string name_key(std::uint16_t type, std::uint64_t scope, const std::string& name) {
  return hex(type, 4) + hex(scope) + name;
}
std::string name_key(const hobbes_record& r) { return name_key(r.type, r.scope, r.name); }

std::uint32_t slot_of(std::uint64_t id) { return static_cast<std::uint32_t>(id); }

bool is_diskless(const Error& error) {
  return error.code == Code::denied || error.code == Code::exhausted ||
         error.cause.find("Read-only file system") != std::string::npos ||
         error.cause.find("Not a directory") != std::string::npos;
}

}  // namespace

void set_name(hobbes_record& record, const std::string& name) {
  std::memset(record.name, 0, sizeof record.name);
  std::strncpy(record.name, name.c_str(), sizeof record.name - 1);
}

Result<std::unique_ptr<Nis>> Nis::open(const std::string& state_directory,
                                       const std::string& run_directory, const MirrorShape& shape) {
  std::unique_ptr<Nis> nis(new Nis);
  nis->mirror_path_ = run_directory + "/nis";
  nis->reserve_path_ = run_directory + "/reserve";
  nis->shape_ = shape;
  HOBBES_CHECK(make_directories(run_directory));
  HOBBES_TRY(boot, boot_id());

  std::string directory = state_directory + "/nis.db";
  auto store = Store::open(directory);
  if (!store && store.error().code == Code::corrupt) {
    std::string aside =
        directory + ".corrupt-" + std::to_string(clock_ns(CLOCK_REALTIME) / 1'000'000'000U);
    if (::rename(directory.c_str(), aside.c_str()) == 0) {
      nis->notes_.push_back("the state database was corrupt (" + store.error().cause +
                            "); it is kept as " + aside +
                            " and the state was rebuilt from the mirror");
      store = Store::open(directory);
      if (auto survivor = NisReader::open(nis->mirror_path_); store && survivor) {
        Batch batch;
        for (const hobbes_record& record : (*survivor)->all(HOBBES_FREE))
          batch.puts.emplace_back(
              record_key(slot_of(record.id)),
              std::string(reinterpret_cast<const char*>(&record), sizeof record));
        batch.puts.emplace_back("m/boot", boot);
        HOBBES_CHECK((*store)->write(batch));
      }
    }
  }
  if (!store && is_diskless(store.error())) {
    nis->notes_.push_back(store.error().text() + "; the state is kept in " + run_directory +
                          " and history will not outlive a reboot");
    store = Store::open(run_directory + "/nis.db");
  }
  if (!store) return std::move(store).error();
  nis->store_ = std::move(*store);
  HOBBES_CHECK(nis->load(boot));
  HOBBES_TRY(mirror, Mirror::open(nis->mirror_path_, 0644, shape));
  nis->mirror_.emplace(std::move(mirror));
  HOBBES_CHECK(nis->rebuild_mirror());
  nis->reserve();
  return nis;
}

Result<void> Nis::load(const std::string& boot) {
  auto found = store_->read("m/schema");
  if (found && std::atoi(found->c_str()) > schema)
    return Error{Code::corrupt, "open the state database",
                 "its schema is " + *found + ", this hobbesd knows up to " + std::to_string(schema),
                 "use the newer hobbesd, or move the database away"};
  auto old_boot = store_->read("m/boot");
  bool same_boot = old_boot && *old_boot == boot;
  auto generation = store_->read("m/generation");
  // Ids of an earlier life must never come again: the counter skips ahead over what a crash may not
  // have stored.
  generation_ =
      generation ? static_cast<std::uint32_t>(std::strtoul(generation->c_str(), nullptr, 10)) : 0;

  Batch clear;
  HOBBES_CHECK(store_->each("r/", [&](std::string_view key, std::string_view value) {
    hobbes_record record{};
    bool whole = value.size() == sizeof record;
    if (whole) std::memcpy(&record, value.data(), sizeof record);
    // Node-wide facts (cores, memory) are discovered anew; records of an earlier boot are gone with
    // it.
    if (!whole || !same_boot) {
      clear.deletes.emplace_back(key);
      return;
    }
    record.name[HOBBES_NAME_SIZE - 1] = '\0';
    records_[slot_of(record.id)] = record;
    names_[name_key(record)] = slot_of(record.id);
    generation_ = std::max(generation_, static_cast<std::uint32_t>(record.id >> 32U));
  }));
  for (const auto& [slot, record] : records_) {
    while (next_slot_ < slot) free_slots_.push_back(next_slot_++);
    next_slot_ = slot + 1;
  }
  if (!same_boot) {
    for (const std::string& name : document_names("volatile/"))
      clear.deletes.push_back("d/" + name);
  }
  generation_ += 1000;
  clear.puts.emplace_back("m/schema", std::to_string(schema));
  clear.puts.emplace_back("m/boot", boot);
  clear.puts.emplace_back("m/generation", std::to_string(generation_));
  clear.durable = true;
  return store_->write(clear);
}

Result<void> Nis::rebuild_mirror() {
  // A fresh mirror goes on counting where the lost one stopped, or somewhat later: a sequence
  // number never comes twice.
  auto sequence = store_->read("m/sequence");
  if (sequence && mirror_->sequence() == 0)
    mirror_->continue_from(std::strtoull(sequence->c_str(), nullptr, 10));
  // The store is the truth: whatever else the mirror shows goes away, whatever it lacks appears.
  NisView view(mirror_->base(), mirror_->size());
  hobbes_record shown;
  std::vector<std::uint64_t> extra;
  for (std::uint64_t slot = 0; slot < view.slots(); ++slot) {
    if (view.slot(slot, &shown) != NisView::Status::good) continue;
    if (by_id(shown.id) == nullptr) extra.push_back(shown.id);
  }
  for (std::uint64_t id : extra) mirror_->erase(id);
  for (const auto& [slot, record] : records_) HOBBES_CHECK(mirror_->publish(record));
  return {};
}

hobbes_record Nis::make(hobbes_record_type type, std::uint64_t scope, const std::string& name) {
  std::uint32_t slot = 0;
  if (!free_slots_.empty()) {
    slot = free_slots_.back();
    free_slots_.pop_back();
  } else {
    slot = next_slot_++;
  }
  made_slots_.push_back(slot);
  hobbes_record record{};
  record.id = static_cast<std::uint64_t>(++generation_) << 32U | slot;
  record.type = type;
  record.size = sizeof record;
  record.scope = scope;
  set_name(record, name);
  return record;
}

void Nis::forget_uncommitted() {
  std::sort(made_slots_.begin(), made_slots_.end());
  made_slots_.erase(std::unique(made_slots_.begin(), made_slots_.end()), made_slots_.end());
  for (std::uint32_t slot : made_slots_)
    if (records_.count(slot) == 0 &&
        std::find(free_slots_.begin(), free_slots_.end(), slot) == free_slots_.end())
      free_slots_.push_back(slot);
  made_slots_.clear();
}

Result<void> Nis::commit(Transition& transition) {
  Batch batch;
  batch.durable = transition.durable_;
  std::uint64_t now = clock_ns(CLOCK_REALTIME);
  for (hobbes_record& record : transition.puts_) {
    record.changed_ns = now;
    batch.puts.emplace_back(record_key(slot_of(record.id)),
                            std::string(reinterpret_cast<const char*>(&record), sizeof record));
  }
  for (std::uint64_t id : transition.erased_)
    if (by_id(id) != nullptr) batch.deletes.push_back(record_key(slot_of(id)));
  for (const auto& [name, document] : transition.documents_)
    batch.puts.emplace_back("d/" + name, to_text(document));
  for (const std::string& name : transition.erased_documents_) batch.deletes.push_back("d/" + name);
  batch.puts.emplace_back(
      "m/sequence",
      std::to_string(mirror_->sequence() + transition.puts_.size() + transition.erased_.size()));
  auto written = store_->write(batch);
  if (!written) {
    for (const hobbes_record& record : transition.puts_)
      if (by_id(record.id) == nullptr) free_slots_.push_back(slot_of(record.id));
    return written;
  }
  for (const hobbes_record& record : transition.puts_) {
    auto old = records_.find(slot_of(record.id));
    if (old != records_.end()) names_.erase(name_key(old->second));
    records_[slot_of(record.id)] = record;
    names_[name_key(record)] = slot_of(record.id);
  }
  for (std::uint64_t id : transition.erased_) {
    const hobbes_record* record = by_id(id);
    if (record == nullptr) continue;
    names_.erase(name_key(*record));
    records_.erase(slot_of(id));
    free_slots_.push_back(slot_of(id));
  }
  // The truth is written; a mirror that cannot follow is repaired by the next beat, so this is no
  // failure of the commit.
  for (const hobbes_record& record : transition.puts_) show(record);
  for (std::uint64_t id : transition.erased_) mirror_->erase(id);
  return {};
}

const hobbes_record* Nis::by_id(std::uint64_t id) const {
  auto at = records_.find(slot_of(id));
  return at != records_.end() && at->second.id == id ? &at->second : nullptr;
}

const hobbes_record* Nis::by_name(std::uint16_t type, std::uint64_t scope,
                                  const std::string& name) const {
  auto at = names_.find(name_key(type, scope, name));
  return at == names_.end() ? nullptr : &records_.at(at->second);
}

std::vector<const hobbes_record*> Nis::all(std::uint16_t type) const {
  std::vector<const hobbes_record*> out;
  for (const auto& [slot, record] : records_)
    if (record.type == type) out.push_back(&record);
  return out;
}

std::optional<Json> Nis::document(const std::string& name) const {
  auto text = store_->read("d/" + name);
  if (!text) return std::nullopt;
  auto json = parse_json(*text, name);
  return json ? std::optional(std::move(*json)) : std::nullopt;
}

std::vector<std::string> Nis::document_names(const std::string& prefix) const {
  std::vector<std::string> out;
  (void)store_->each("d/" + prefix, [&](std::string_view key, std::string_view) {
    out.emplace_back(key.substr(2));
  });
  return out;
}

void Nis::beat() {
  if (!mirror_->intact()) {
    std::uint64_t sequence = mirror_->sequence();
    mirror_->retire();
    auto fresh = Mirror::create(mirror_path_, 0644, shape_);
    if (!fresh) {
      notes_.push_back(fresh.error().text());
      return;
    }
    *mirror_ = std::move(*fresh);
    mirror_->continue_from(sequence);
    notes_.push_back("the mirror " + mirror_path_ +
                     " was deleted or cut short and has been rebuilt");
    behind_ = true;
  }
  if (behind_) {
    behind_ = false;
    for (const auto& [slot, record] : records_) show(record);
  }
  reserve();
  mirror_->beat();
}

// Space that nobody else takes, for when others have filled the file system of the run directory.
void Nis::reserve() {
  constexpr off_t size = 8 << 20;
  if (reserve_) return;
  struct statvfs info {};
  std::string folder = reserve_path_.substr(0, reserve_path_.rfind('/'));
  if (::statvfs(folder.c_str(), &info) != 0 ||
      info.f_bavail * info.f_frsize < 2 * static_cast<std::uint64_t>(size))
    return;
  Fd made(::open(reserve_path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (made && ::posix_fallocate(made.get(), 0, size) == 0)
    reserve_ = std::move(made);
  else
    ::unlink(reserve_path_.c_str());
}

void Nis::show(const hobbes_record& record) {
  auto shown = mirror_->publish(record);
  if (!shown && reserve_) {
    notes_.push_back("the file system of " + mirror_path_ +
                     " is full; hobbesd uses what it has kept for itself");
    ::unlink(reserve_path_.c_str());
    reserve_.reset();
    mirror_->may_grow();
    shown = mirror_->publish(record);
  }
  if (shown) return;
  behind_ = true;
  std::string note = shown.error().text();
  if (notes_.empty() || notes_.back() != note) notes_.push_back(std::move(note));
}

}  // namespace hobbes
