#include "nis/reader.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/clock.h"
#include "core/window.h"

namespace hobbes {

Result<std::unique_ptr<NisReader>> NisReader::open(const std::string& path) {
  std::unique_ptr<NisReader> out(new NisReader);
  out->path_ = path;
  out->fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!out->fd_ && errno == ENOENT && mirror_window()) {
    HOBBES_TRY(memory, open_physical_memory(false));
    out->fd_ = std::move(memory);
    out->in_guest_ = true;
  }
  if (!out->fd_)
    return os_error("open the node's mirror " + path, errno,
                    "start hobbesd, or ask the administrator to");
  HOBBES_CHECK(out->map());
  return out;
}

NisReader::~NisReader() {
  for (auto& mapping : mappings_) ::munmap(mapping->base, mapping->size);
}

std::optional<NisReader::Extent> NisReader::extent() const {
  if (in_guest_) {
    auto window = mirror_window();
    if (!window) return std::nullopt;
    return Extent{window->address, window->size};
  }
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) return std::nullopt;
  return Extent{0, static_cast<std::uint64_t>(info.st_size)};
}

Result<void> NisReader::map() {
  auto now = extent();
  if (!now) return os_error("open the node's mirror " + path_, errno);
  auto corrupt = [&] {
    return Error{Code::corrupt, "open the node's mirror " + path_,
                 "it is cut short or not a mirror of this version",
                 "hobbesd replaces it when it starts; try again"};
  };
  auto size = static_cast<std::size_t>(now->size);
  if (size < 4096) return corrupt();
  void* base =
      ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_.get(), static_cast<off_t>(now->offset));
  if (base == MAP_FAILED) return os_error("map the node's mirror " + path_, errno);
  auto mapping = std::make_unique<Mapping>(Mapping{base, size, NisView(base, size)});
  if (mapping->view.check() != Status::good) {
    ::munmap(base, size);
    return corrupt();
  }
  current_.store(mapping.get(), std::memory_order_release);
  mappings_.push_back(std::move(mapping));
  return {};
}

bool NisReader::extend() {
  std::lock_guard lock(growing_);
  auto now = extent();
  if (!now) return false;
  // Another thread may have mapped the grown file meanwhile; a file that did not grow has nothing
  // more to show.
  if (now->size == mappings_.back()->size) return true;
  return now->size > mappings_.back()->size && map();
}

NisReader::Status NisReader::by_id(std::uint64_t id, hobbes_record* out) {
  Status status = view().by_id(id, out);
  if (status == Status::stale && extend()) status = view().by_id(id, out);
  return status;
}

NisReader::Status NisReader::by_name(std::uint16_t type, std::uint64_t scope, const char* name,
                                     hobbes_record* out) {
  Status status = view().by_name(type, scope, name, out);
  if (status == Status::stale && extend()) status = view().by_name(type, scope, name, out);
  return status;
}

NisReader::Status NisReader::next(std::uint16_t type, std::uint64_t* cursor, hobbes_record* out) {
  Status status = view().next(type, cursor, out);
  if (status == Status::stale && extend()) status = view().next(type, cursor, out);
  return status;
}

NisReader::Status NisReader::segment_named(const std::string& name, std::uint32_t uid,
                                           hobbes_record* out) {
  for (std::uint64_t owner : {std::uint64_t{uid}, std::uint64_t{0}})
    if (Status found = by_name(HOBBES_SEGMENT, owner, name.c_str(), out); found != Status::absent)
      return found;
  for (std::uint64_t cursor = 0;;) {
    Status found = next(HOBBES_SEGMENT, &cursor, out);
    if (found != Status::good || name == out->name) return found;
  }
}

std::vector<hobbes_record> NisReader::all(std::uint16_t type) {
  std::vector<hobbes_record> out;
  hobbes_record record;
  for (std::uint64_t cursor = 0; next(type, &cursor, &record) == Status::good;)
    out.push_back(record);
  return out;
}

bool NisReader::replaced() {
  if (view().retired()) return true;
  if (in_guest_) return false;  // a new one is shown in the same place, retired or not
  struct stat mine {
  }, named{};
  return ::fstat(fd_.get(), &mine) != 0 || ::stat(path_.c_str(), &named) != 0 ||
         mine.st_ino != named.st_ino || mine.st_dev != named.st_dev;
}

NisReader::Status NisReader::wait(std::uint64_t* sequence, hobbes_change* out, int timeout_ms) {
  using Clock = std::chrono::steady_clock;
  auto end = Clock::now() + std::chrono::milliseconds(timeout_ms < 0 ? 0 : timeout_ms);
  for (;;) {
    NisView now = view();
    std::uint32_t signal = __atomic_load_n(&now.header().signal, __ATOMIC_ACQUIRE);
    Status status = now.change(*sequence + 1, out);
    if (status == Status::good) ++*sequence;
    if (status != Status::absent) return status;
    if (replaced()) return Status::stale;
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (timeout_ms >= 0 && left.count() <= 0) return Status::absent;
    // A replaced mirror is never signalled again, so no single sleep is longer than this.
    auto nap = std::chrono::milliseconds(500);
    if (timeout_ms >= 0 && left < nap) nap = left;
    timespec limit{nap.count() / 1000, static_cast<long>(nap.count() % 1000) * 1'000'000L};
    // A guest's Linux knows no waiting on memory that is not its own: there it looks again soon.
    if (::syscall(SYS_futex, &now.header().signal, FUTEX_WAIT, signal, &limit, nullptr, 0) != 0 &&
        errno == EFAULT) {
      timespec soon{0, 2'000'000};
      ::nanosleep(&soon, nullptr);
    }
  }
}

std::uint64_t NisReader::writer_silence_ns() {
  std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
  std::uint64_t beat = __atomic_load_n(&view().header().writer_heartbeat_ns, __ATOMIC_ACQUIRE);
  return now > beat ? now - beat : 0;
}

}  // namespace hobbes
