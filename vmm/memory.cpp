#include "vmm/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/size.h"

namespace hobbes::vmm {
namespace {

constexpr std::uint64_t alignment = 2 * mib;  // of what shall have huge pages

// Anonymous: Linux gives it huge pages by itself where it has some, which memfds get only on nodes
// that were told so.
Result<std::byte*> map_anonymous(std::uint64_t size, int flags, const std::string& attempt) {
  void* base = ::mmap(nullptr, size + alignment, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (base == MAP_FAILED) return os_error(attempt, errno);
  auto* begin = static_cast<std::byte*>(base);
  std::uint64_t before =
      (alignment - reinterpret_cast<std::uintptr_t>(begin) % alignment) % alignment;
  if (before != 0) ::munmap(begin, before);
  ::munmap(begin + before + size, alignment - before);
  (void)::madvise(begin + before, size, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

Result<GuestMemory> GuestMemory::make(std::uint64_t size, std::uint64_t page_size,
                                      std::uint64_t spare) {
  std::string attempt = "make " + format_size(size) + " of guest memory";
  bool huge = page_size >= 2 * mib;
  if (size < 16 * mib || size % (huge ? page_size : 4096) != 0)
    return Error{Code::invalid, attempt, "a guest needs at least 16 MiB, in whole pages",
                 "change memory.size"};
  if (size > window_at - high_at)
    return Error{Code::invalid, attempt, "a guest has at most 252 GiB", "change memory.size"};
  GuestMemory out;
  void* base = MAP_FAILED;
  if (huge) {
    out.fd_.reset(static_cast<int>(::memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB)));
    if (!out.fd_ || ::ftruncate(out.fd_.get(), static_cast<off_t>(size)) != 0)
      return os_error(attempt, errno);
    base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, out.fd_.get(), 0);
    if (base == MAP_FAILED)
      return Error{Code::exhausted, attempt, "there are not enough free huge pages",
                   "raise /proc/sys/vm/nr_hugepages, or leave out memory.pageSize"};
  } else {
    HOBBES_TRY(mapped, map_anonymous(size, 0, attempt));
    base = mapped;
  }
  out.base_ = static_cast<std::byte*>(base);
  out.size_ = size;
  std::uint64_t low = std::min<std::uint64_t>(size, low_end);
  out.regions_.push_back({0, low, out.base_});
  if (size > low) out.regions_.push_back({high_at, size - low, out.base_ + low});
  if (spare != 0) {
    Gpa at = (high_at + (size - low) + gib - 1) / gib * gib;
    spare = std::min(spare, window_at - at) / gib * gib;
    // A node that counts every promise of memory has none to spare; the guest lives without.
    if (auto host = map_anonymous(spare, MAP_NORESERVE, attempt)) out.spare_ = {at, spare, *host};
  }
  return out;
}

GuestMemory& GuestMemory::operator=(GuestMemory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  std::swap(regions_, other.regions_);
  std::swap(spare_, other.spare_);
  std::swap(windows_, other.windows_);
  return *this;
}

GuestMemory::~GuestMemory() {
  if (base_ != nullptr) ::munmap(base_, size_);
  if (spare_.size != 0) ::munmap(spare_.host, spare_.size);
}

std::span<std::byte> GuestMemory::at(Gpa address, std::uint64_t size) const {
  auto within = [&](const Region& region) {
    return address >= region.address && address - region.address < region.size &&
           size <= region.size - (address - region.address);
  };
  for (const Region& region : regions_)
    if (within(region)) return {region.host + (address - region.address), size};
  if (within(spare_)) return {spare_.host + (address - spare_.address), size};
  for (const Region& window : windows_)
    if (within(window)) return {window.host + (address - window.address), size};
  return {};
}

}  // namespace hobbes::vmm
