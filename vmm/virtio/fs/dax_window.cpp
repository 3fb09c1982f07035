#include "vmm/virtio/fs/dax_window.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace hobbes::vmm {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::size_t mapping_limit = 4096;  // of those that Linux allows a process

// How many bytes of a mapping a file of so many fills, in whole pages.
std::uint64_t filled(std::uint64_t bytes, std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t end = (bytes + page - 1) / page * page;
  return end <= offset ? 0 : std::min(end - offset, size);
}

}  // namespace

Result<DaxWindow> DaxWindow::make(Gpa address, std::uint64_t size) {
  DaxWindow out;
  void* host = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (host == MAP_FAILED) return os_error("make the window of a shared folder", errno);
  out.host_ = static_cast<std::byte*>(host);
  out.address_ = address;
  out.size_ = size;
  return out;
}

DaxWindow::DaxWindow(DaxWindow&& other) noexcept
    : address_(other.address_),
      size_(other.size_),
      host_(std::exchange(other.host_, nullptr)),
      mappings_(std::move(other.mappings_)) {}

DaxWindow::~DaxWindow() {
  if (host_ != nullptr) ::munmap(host_, size_);
}

bool DaxWindow::holds(std::uint64_t at, std::uint64_t size) const {
  return at % page == 0 && size % page == 0 && size != 0 && at < size_ && size <= size_ - at;
}

bool DaxWindow::show_file(std::uint64_t at, const Mapping& mapping, std::uint64_t from,
                          std::uint64_t to) {
  int protection = mapping.writable ? PROT_READ | PROT_WRITE : PROT_READ;
  return from == to ||
         ::mmap(host_ + at + from, to - from, protection, MAP_SHARED | MAP_FIXED,
                mapping.file.get(), static_cast<off_t>(mapping.offset + from)) != MAP_FAILED;
}

bool DaxWindow::show_memory(std::uint64_t at, std::uint64_t size, int protection) {
  return size == 0 ||
         ::mmap(host_ + at, size, protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

int DaxWindow::map(Fd file, std::uint64_t offset, std::uint64_t size, std::uint64_t at,
                   bool writable) {
  constexpr std::uint64_t most = 1ULL << 62U;
  if (!holds(at, size) || offset % page != 0 || offset > most) return EINVAL;
  std::scoped_lock guard(lock_);
  if (mappings_.size() >= mapping_limit) return ENFILE;
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return errno;
  if (int error = unmap_locked(at, size); error != 0) return error;
  Mapping fresh{std::move(file), info.st_dev, info.st_ino, offset, size, 0, writable};
  fresh.shown = filled(static_cast<std::uint64_t>(info.st_size), offset, size);
  if (!show_file(at, fresh, 0, fresh.shown)) return errno;
  if (!show_memory(at + fresh.shown, size - fresh.shown, PROT_READ | PROT_WRITE)) {
    int error = errno;
    (void)show_memory(at, size, PROT_NONE);
    return error;
  }
  mappings_.emplace(at, std::move(fresh));
  return 0;
}

int DaxWindow::unmap(std::uint64_t at, std::uint64_t size) {
  if (!holds(at, size)) return EINVAL;
  std::scoped_lock guard(lock_);
  return unmap_locked(at, size);
}

// A guest gives back what it was given, so a mapping that reaches into the part goes as a whole.
int DaxWindow::unmap_locked(std::uint64_t at, std::uint64_t size) {
  auto one = mappings_.upper_bound(at);
  if (one != mappings_.begin()) --one;
  while (one != mappings_.end() && one->first < at + size) {
    if (one->first + one->second.size <= at) {
      ++one;
      continue;
    }
    if (!show_memory(one->first, one->second.size, PROT_NONE)) return errno;
    one = mappings_.erase(one);
  }
  return 0;
}

void DaxWindow::reset() {
  std::scoped_lock guard(lock_);
  if (mappings_.empty()) return;
  (void)show_memory(0, size_, PROT_NONE);
  mappings_.clear();
}

std::size_t DaxWindow::mappings() const {
  std::scoped_lock guard(lock_);
  return mappings_.size();
}

bool DaxWindow::follow_size(std::uint64_t at, Mapping& mapping, std::uint64_t bytes) {
  const std::uint64_t now = filled(bytes, mapping.offset, mapping.size);
  if (now == mapping.shown) return false;
  const bool done = now > mapping.shown
                        ? show_file(at, mapping, mapping.shown, now)
                        : show_memory(at + now, mapping.shown - now, PROT_READ | PROT_WRITE);
  if (done) mapping.shown = now;
  return done;
}

void DaxWindow::follow_size(dev_t device, ino_t number, std::uint64_t bytes) {
  std::scoped_lock guard(lock_);
  for (auto& [at, mapping] : mappings_)
    if (mapping.device == device && mapping.number == number) (void)follow_size(at, mapping, bytes);
}

bool DaxWindow::follow_sizes() {
  std::scoped_lock guard(lock_);
  bool changed = false;
  for (auto& [at, mapping] : mappings_)
    if (struct stat info{}; ::fstat(mapping.file.get(), &info) == 0)
      changed = follow_size(at, mapping, static_cast<std::uint64_t>(info.st_size)) || changed;
  return changed;
}

}  // namespace hobbes::vmm
