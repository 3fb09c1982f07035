#include "vmm/virtio/fs/dax_window.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
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

// The guest can reach every address of the window at any time, so there is never a hole in it that
// other memory of this process could come to lie in: what is new is mapped elsewhere, where that
// may fail, and then moved over what is old.
int DaxWindow::place(void* fresh, std::uint64_t at, std::uint64_t size) {
  if (fresh == MAP_FAILED) return errno;
  if (::mremap(fresh, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, host_ + at) != MAP_FAILED)
    return 0;
  const int error = errno;
  ::munmap(fresh, size);
  // Linux may have taken away what was there before it failed.
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
  if (::mmap(host_ + at, size, PROT_NONE, flags, -1, 0) == MAP_FAILED && errno != EEXIST)
    std::abort();
  return error;
}

int DaxWindow::show_file(std::uint64_t at, const Mapping& mapping, std::uint64_t from,
                         std::uint64_t to) {
  if (from == to) return 0;
  const int protection = mapping.writable ? PROT_READ | PROT_WRITE : PROT_READ;
  return place(::mmap(nullptr, to - from, protection, MAP_SHARED, mapping.file.get(),
                      static_cast<off_t>(mapping.offset + from)),
               at + from, to - from);
}

int DaxWindow::show_memory(std::uint64_t at, std::uint64_t size, int protection) {
  if (size == 0) return 0;
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return place(::mmap(nullptr, size, protection, flags, -1, 0), at, size);
}

int DaxWindow::map(Fd file, std::uint64_t offset, std::uint64_t size, std::uint64_t at,
                   bool writable) {
  constexpr std::uint64_t most = 1ULL << 62U;
  if (!holds(at, size) || offset % page != 0 || offset > most) return EINVAL;
  std::scoped_lock guard(lock_);
  if (mappings_.size() >= mapping_limit) return ENFILE;
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return errno;
  // The same place again, as when a driver wants to write where it has read so far: without a
  // moment in between.
  if (auto same = mappings_.find(at); same != mappings_.end() && same->second.size == size)
    mappings_.erase(same);
  else if (int error = unmap_locked(at, size); error != 0)
    return error;
  Mapping fresh{std::move(file), info.st_dev, info.st_ino, offset, size, 0, writable};
  fresh.shown = filled(static_cast<std::uint64_t>(info.st_size), offset, size);
  int error = show_file(at, fresh, 0, fresh.shown);
  if (error == 0) error = show_memory(at + fresh.shown, size - fresh.shown, PROT_READ | PROT_WRITE);
  if (error != 0) {
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
    if (int error = show_memory(one->first, one->second.size, PROT_NONE); error != 0) return error;
    one = mappings_.erase(one);
  }
  return 0;
}

void DaxWindow::reset(bool used) {
  std::scoped_lock guard(lock_);
  used_ = used;
  if (mappings_.empty()) return;
  (void)show_memory(0, size_, PROT_NONE);
  mappings_.clear();
}

bool DaxWindow::used() const {
  std::scoped_lock guard(lock_);
  return used_;
}

std::size_t DaxWindow::mappings() const {
  std::scoped_lock guard(lock_);
  return mappings_.size();
}

bool DaxWindow::follow_size(std::uint64_t at, Mapping& mapping, std::uint64_t bytes) {
  const std::uint64_t now = filled(bytes, mapping.offset, mapping.size);
  if (now == mapping.shown) return false;
  const int error = now > mapping.shown
                        ? show_file(at, mapping, mapping.shown, now)
                        : show_memory(at + now, mapping.shown - now, PROT_READ | PROT_WRITE);
  if (error == 0) mapping.shown = now;
  return error == 0;
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
