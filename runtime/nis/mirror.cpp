#include "nis/mirror.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <utility>

#include "core/clock.h"
#include "core/identity.h"
#include "nis/view.h"

namespace hobbes {
namespace {

void store(std::uint64_t* word, std::uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
std::uint64_t load(const std::uint64_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

// All of it is there before anybody maps it: writing into a hole of a full file system ends the
// writer by SIGBUS.
Result<void> allocate(const Fd& fd, std::size_t size, const std::string& path) {
  int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(size));
  if (error == 0) return {};
  return os_error("give the mirror " + path + " " + std::to_string(size) + " bytes", error,
                  "free memory on the file system it is on");
}

std::size_t aligned(std::size_t n) { return (n + 4095) / 4096 * 4096; }

}  // namespace

Mirror::Mirror(Mirror&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::move(other.fd_)),
      base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

Mirror& Mirror::operator=(Mirror&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, size_);
  path_ = std::move(other.path_);
  fd_ = std::move(other.fd_);
  base_ = std::exchange(other.base_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

Mirror::~Mirror() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

Result<void> Mirror::map(std::size_t size) {
  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (base == MAP_FAILED) return os_error("map the mirror " + path_, errno);
  if (base_ != nullptr) ::munmap(base_, size_);
  base_ = base;
  size_ = size;
  return {};
}

Result<Mirror> Mirror::create(const std::string& path, mode_t mode, const MirrorShape& shape) {
  Mirror out;
  out.path_ = path;
  std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  out.fd_.reset(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!out.fd_) return os_error("create the mirror " + path, errno);
  if (::fchmod(out.fd_.get(), mode) != 0) return os_error("create the mirror " + path, errno);

  hobbes_nis_header h{};
  h.magic = HOBBES_NIS_MAGIC;
  h.major = HOBBES_NIS_MAJOR;
  h.minor = shape.minor;
  h.header_size = sizeof h;
  h.record_size = shape.record_size;
  h.slot_size = static_cast<std::uint32_t>(
      (sizeof(hobbes_nis_slot_head) + 2 * shape.record_size + 63) / 64 * 64);
  h.change_size = sizeof(hobbes_change);
  h.log_capacity = shape.log_capacity;
  h.log_offset = 4096;
  h.index_capacity = shape.index_capacity;
  h.index_offset = aligned(h.log_offset + h.log_capacity * h.change_size);
  h.slots_offset = aligned(h.index_offset + h.index_capacity * 8);
  h.slots = shape.slots;
  std::strncpy(reinterpret_cast<char*>(h.boot_id), boot_id().value_or("").c_str(),
               sizeof h.boot_id - 1);

  std::size_t size = aligned(h.slots_offset + h.slots * h.slot_size);
  if (auto sized = allocate(out.fd_, size, path); !sized) {
    ::unlink(temporary.c_str());
    return std::move(sized).error();
  }
  HOBBES_CHECK(out.map(size));
  std::memcpy(out.base_, &h, sizeof h);
  // Renamed only when it is sound: a crash before leaves the old file, or none.
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return os_error("create the mirror " + path, errno);
  out.beat();
  return out;
}

Result<Mirror> Mirror::open(const std::string& path, mode_t mode, const MirrorShape& shape) {
  Mirror old;
  old.path_ = path;
  old.fd_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (old.fd_ && ::fstat(old.fd_.get(), &info) == 0 && info.st_size >= 4096 &&
      old.map(static_cast<std::size_t>(info.st_size))) {
    const hobbes_nis_header& h = old.header();
    bool sound = NisView(old.base_, old.size_).check() == NisView::Status::good && h.retired == 0 &&
                 h.minor == shape.minor && h.record_size == shape.record_size && h.slots >= 1 &&
                 h.slots <= (old.size_ - h.slots_offset) / h.slot_size &&
                 std::strncmp(reinterpret_cast<const char*>(h.boot_id),
                              boot_id().value_or("?").c_str(), sizeof h.boot_id) == 0;
    if (sound) {
      old.beat();
      return old;
    }
    if (h.magic == HOBBES_NIS_MAGIC) old.retire();
  }
  return create(path, mode, shape);
}

std::byte* Mirror::slot_at(std::uint64_t number) const {
  return static_cast<std::byte*>(base_) + header().slots_offset + number * header().slot_size;
}

Result<void> Mirror::grow(std::uint64_t slots) {
  const hobbes_nis_header& h = header();
  std::size_t size = aligned(h.slots_offset + slots * h.slot_size);
  constexpr std::uint64_t patience_ns = 1'000'000'000;
  std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
  if (now < grow_again_ns_)
    return Error{Code::exhausted, "grow the mirror " + path_, "its file system is full", ""};
  if (auto grown = allocate(fd_, size, path_); !grown) {
    grow_again_ns_ = now + patience_ns;
    return std::move(grown).error();
  }
  grow_again_ns_ = 0;
  // Readers keep their old mapping of the same file and map more when they meet a slot beyond it.
  HOBBES_CHECK(map(size));
  store(&header().slots, slots);
  return {};
}

void Mirror::write_slot(std::uint64_t number, const hobbes_record& record) {
  std::byte* place = slot_at(number);
  auto* version = reinterpret_cast<std::uint64_t*>(place);
  std::uint64_t next = load(version) + 1;
  auto* to = reinterpret_cast<std::uint64_t*>(place + sizeof(hobbes_nis_slot_head) +
                                              (next & 1U) * header().record_size);
  const auto* from = reinterpret_cast<const std::uint64_t*>(&record);
  std::size_t words = std::min<std::size_t>(header().record_size, sizeof record) / 8;
  for (std::size_t i = 0; i < words; ++i) store(to + i, from[i]);
  store(version, next);
}

namespace {

std::int32_t exit_status_of(const hobbes_record& record) {
  switch (record.type) {
    case HOBBES_ENCLAVE:
      return record.body.enclave.exit_status;
    case HOBBES_APP:
      return record.body.app.exit_status;
    case HOBBES_PROCESS:
      return record.body.process.exit_status;
    default:
      return -1;
  }
}

}  // namespace

void Mirror::log(const hobbes_record& record, std::uint16_t kind) {
  hobbes_nis_header& h = header();
  std::uint64_t sequence = load(&h.log_head) + 1;
  auto* entry = reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(base_) + h.log_offset +
                                                 (sequence & (h.log_capacity - 1)) * h.change_size);
  hobbes_change change{};
  change.sequence = sequence;
  change.id = record.id;
  change.type = record.type;
  change.kind = kind;
  change.state = record.state;
  change.time_ns = clock_ns(CLOCK_REALTIME);
  change.enclave = record.enclave;
  change.uid = record.uid;
  change.exit_status = exit_status_of(record);
  std::memcpy(change.name, record.name, ::strnlen(record.name, sizeof change.name - 1));
  const auto* from = reinterpret_cast<const std::uint64_t*>(&change);
  store(entry, 0);
  for (std::size_t i = 1; i < sizeof change / 8; ++i) store(entry + i, from[i]);
  store(entry, sequence);
  store(&h.log_head, sequence);
  __atomic_store_n(&h.signal, static_cast<std::uint32_t>(sequence), __ATOMIC_RELEASE);
  ::syscall(SYS_futex, &h.signal, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Mirror::index_add(const hobbes_record& record) {
  const hobbes_nis_header& h = header();
  auto* index = reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(base_) + h.index_offset);
  std::uint64_t hash = NisView::name_hash(record.type, record.scope, record.name);
  std::uint64_t entry = (hash >> 32U) << 32U | ((record.id & 0xffffffffU) + 1);
  std::uint64_t* place = nullptr;
  for (std::uint64_t probe = 0; probe < h.index_capacity; ++probe) {
    std::uint64_t* at = index + ((hash + probe) & (h.index_capacity - 1));
    if (*at == entry) return;
    bool deleted = (*at & 0xffffffffU) == HOBBES_INDEX_DELETED;
    if (place == nullptr && (*at == 0 || deleted)) place = at;
    if (*at == 0) break;
  }
  if (place != nullptr) store(place, entry);
}

void Mirror::index_remove(const hobbes_record& record) {
  const hobbes_nis_header& h = header();
  auto* index = reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(base_) + h.index_offset);
  std::uint64_t cut = h.index_capacity - 1;
  std::uint64_t hash = NisView::name_hash(record.type, record.scope, record.name);
  std::uint64_t entry = (hash >> 32U) << 32U | ((record.id & 0xffffffffU) + 1);
  for (std::uint64_t probe = 0; probe < h.index_capacity; ++probe) {
    std::uint64_t at = (hash + probe) & cut;
    if (index[at] == 0) return;
    if (index[at] != entry) continue;
    store(index + at, HOBBES_INDEX_DELETED);
    // A deleted mark before an empty entry ends no probe that the empty one would not: sweep such
    // marks away.
    while (index[(at + 1) & cut] == 0 && (index[at] & 0xffffffffU) == HOBBES_INDEX_DELETED) {
      store(index + at, 0);
      at = (at - 1) & cut;
    }
    return;
  }
}

Result<void> Mirror::publish(const hobbes_record& record) {
  std::uint64_t number = record.id & 0xffffffffU;
  if (number >= header().slots) {
    std::uint64_t slots = header().slots;
    while (slots <= number) slots *= 2;
    HOBBES_CHECK(grow(slots));
  }
  hobbes_record old;
  bool there = NisView(base_, size_).slot(number, &old) == NisView::Status::good;
  // Always: a crash may have fallen between the slot and the index.
  bool same_record = there && old.id == record.id;
  if (there &&
      (!same_record || std::strcmp(old.name, record.name) != 0 || old.scope != record.scope)) {
    index_remove(old);
    if (!same_record) log(old, HOBBES_GONE);
  }
  std::size_t known = std::min<std::size_t>(header().record_size, sizeof record);
  if (!same_record || std::memcmp(&old, &record, known) != 0) {
    write_slot(number, record);
    index_add(record);
    log(record, same_record ? HOBBES_CHANGED : HOBBES_APPEARED);
  } else {
    index_add(record);
  }
  return {};
}

void Mirror::erase(std::uint64_t id) {
  hobbes_record old;
  std::uint64_t number = id & 0xffffffffU;
  if (NisView(base_, size_).slot(number, &old) != NisView::Status::good || old.id != id) return;
  hobbes_record free{};
  index_remove(old);
  write_slot(number, free);
  log(old, HOBBES_GONE);
}

void Mirror::beat() { store(&header().writer_heartbeat_ns, clock_ns(CLOCK_BOOTTIME)); }
void Mirror::retire() { store(&header().retired, 1); }
std::uint64_t Mirror::sequence() const { return load(&header().log_head); }

void Mirror::continue_from(std::uint64_t sequence) {
  if (sequence > load(&header().log_head)) store(&header().log_head, sequence);
}

bool Mirror::intact() const {
  struct stat mine {
  }, named{};
  return ::fstat(fd_.get(), &mine) == 0 && ::stat(path_.c_str(), &named) == 0 &&
         mine.st_ino == named.st_ino && mine.st_dev == named.st_dev &&
         static_cast<std::size_t>(mine.st_size) >= size_;
}

}  // namespace hobbes
