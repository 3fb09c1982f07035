#include "xemem/segment.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <utility>

#include "core/file.h"
#include "xemem/snapshot_source.h"

namespace hobbes {
namespace {

Result<Fd> make_memory(const std::string& name, std::uint64_t size, std::uint64_t page_size) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (page_size == 2U << 20U) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  if (page_size == 1U << 30U) flags |= MFD_HUGETLB | MFD_HUGE_1GB;
  Fd fd(::memfd_create(("hobbes:" + name).c_str(), flags));
  std::string attempt = "make segment '" + name + "'";
  if (!fd)
    return os_error(attempt, errno,
                    "huge pages of that size may be missing: see /sys/kernel/mm/hugepages");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return os_error(attempt, errno);
  // Nobody who attaches may pull the memory away from under the others.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return os_error(attempt, errno);
  return fd;
}

// Whether [start, start+size) is plain private anonymous memory, from proc(5) smaps.
Result<void> check_convertible(const std::string& attempt, std::uintptr_t start, std::uint64_t size,
                               bool snapshots) {
  HOBBES_TRY(tasks, Files::system().list("/proc/self/task"));
  if (tasks.size() != 1)
    return Error{Code::busy, attempt,
                 std::to_string(tasks.size()) + " threads run and could write meanwhile",
                 "make it before starting threads"};
  HOBBES_TRY(text, Files::system().read("/proc/self/smaps", 64 << 20));
  auto unsupported = [&](const std::string& why) {
    return Error{Code::unsupported, attempt, why,
                 "use memory from malloc or mmap(MAP_PRIVATE | MAP_ANONYMOUS)"};
  };
  std::istringstream lines(text);
  std::uintptr_t covered = start;
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    std::uintptr_t first = 0, last = 0;
    char permissions[8] = {}, path[256] = {};
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %*s %255s", &first, &last,
                    permissions, path) >= 3) {
      inside = first <= covered && covered < last;
      if (!inside) continue;
      bool anonymous = path[0] == '\0' || std::strcmp(path, "[heap]") == 0 ||
                       std::strncmp(path, "[anon", 5) == 0;
      if (snapshots && std::strcmp(path, "[heap]") == 0)
        return unsupported("the library itself writes to the heap, also while snapshots are taken");
      if (permissions[3] != 'p' || !anonymous)
        return unsupported("a part of it is not private anonymous memory");
      if (permissions[0] != 'r' || permissions[1] != 'w')
        return unsupported("a part of it is not readable and writable");
      covered = last;
    } else if (inside && line.rfind("VmFlags:", 0) == 0) {
      for (const char* flag : {" lo ", " ht ", " io ", " pf "})
        if ((line + " ").find(flag) != std::string::npos)
          return unsupported("a part of it is locked, huge or a device's");
    }
    if (covered >= start + size && inside && line.rfind("VmFlags:", 0) == 0) return {};
  }
  return covered >= start + size ? Result<void>() : unsupported("a part of it is not mapped");
}

Result<void> check_snapshots(const SegmentOptions& options, const std::string& name) {
  if (options.snapshots && options.persistent)
    return Error{Code::invalid, "make segment '" + name + "'",
                 "a persistent segment outlives the program that gives snapshots of it",
                 "choose one of the two"};
  return {};
}

std::uint64_t rounded(std::uint64_t size, std::uint64_t page) {
  return (size + page - 1) / page * page;
}

}  // namespace

Result<Segment> Segment::reserve(const std::string& name, std::uint64_t size,
                                 const SegmentOptions& options) {
  Segment out;
  out.name_ = name;
  out.options_ = options;
  out.size_ = rounded(size, options.page_size != 0 ? options.page_size : 4096);
  HOBBES_TRY(memory, make_memory(name, out.size_, options.page_size));
  void* base = ::mmap(nullptr, out.size_, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (base == MAP_FAILED)
    return os_error("map segment '" + name + "'", errno,
                    "it may need more huge pages than are free");
  out.memory_ = std::move(memory);
  out.base_ = base;
  return out;
}

Result<void> Segment::publish(Client& client, std::chrono::milliseconds deadline) {
  Json request = {{"name", name_},
                  {"mode", options_.mode},
                  {"persistent", options_.persistent},
                  {"fd", memory_.get()}};
  if (options_.page_size != 0) request["pageSize"] = options_.page_size;
  if (options_.snapshots) request["snapshots"] = true;
  if (options_.snapshot_of != 0) request["snapshotOf"] = options_.snapshot_of;
  if (!options_.enclaves.empty()) request["enclaves"] = options_.enclaves;
  HOBBES_TRY(made, client.call("segment.make", std::move(request), {}, deadline));
  handle_ = static_cast<std::uint64_t>(number_at(made.body, "handle"));
  remove_ = !options_.persistent;
  if (made.fds.empty()) return {};
  // In a virtual machine the agent has copied what was written so far to memory of the node.
  if (made.fds.size() != 2)
    return Error{Code::corrupt, "make segment '" + name_ + "'", "its memory did not come", ""};
  memory_ = std::move(made.fds[0]);
  life_ = std::move(made.fds[1]);
  at_ = static_cast<std::uint64_t>(number_at(made.body, "offset"));
  if (base_ != nullptr && ::mmap(base_, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                                 memory_.get(), static_cast<off_t>(at_)) == MAP_FAILED)
    return os_error("map segment '" + name_ + "'", errno);
  return {};
}

Result<Segment> Segment::make(const std::string& name, std::uint64_t size,
                              const SegmentOptions& options) {
  HOBBES_CHECK(check_snapshots(options, name));
  HOBBES_TRY(out, reserve(name, size, options));
  if (options.snapshots) HOBBES_CHECK(SnapshotSource::check(out.base_, out.size_));
  HOBBES_TRY(client, Client::connect());
  HOBBES_CHECK(out.publish(client));
  HOBBES_CHECK(out.serve_snapshots());
  return std::move(out);
}

Result<Segment> Segment::make_of(const std::string& name, void* start, std::uint64_t size,
                                 const SegmentOptions& options) {
  std::string attempt = "make existing memory segment '" + name + "'";
  auto address = reinterpret_cast<std::uintptr_t>(start);
  if (address % 4096 != 0 || size % 4096 != 0 || size == 0 || options.page_size != 0)
    return Error{Code::invalid, attempt, "it does not start and end on normal page borders",
                 "align it to 4096 bytes"};
  HOBBES_CHECK(check_snapshots(options, name));
  HOBBES_CHECK(check_convertible(attempt, address, size, options.snapshots));
  HOBBES_TRY(memory, make_memory(name, size, 0));
  // The copy, then the swap: with one thread nobody writes in between, and addresses stay as they
  // are.
  HOBBES_CHECK([&]() -> Result<void> {
    const char* from = static_cast<const char*>(start);
    for (std::uint64_t done = 0; done < size;) {
      ssize_t n = ::pwrite(memory.get(), from + done, size - done, static_cast<off_t>(done));
      if (n <= 0) return os_error(attempt, errno);
      done += static_cast<std::uint64_t>(n);
    }
    return {};
  }());
  Segment out;
  out.name_ = name;
  out.options_ = options;
  out.size_ = size;
  out.memory_ = std::move(memory);
  HOBBES_TRY(client, Client::connect());
  HOBBES_CHECK(out.publish(client));
  void* base = ::mmap(start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                      out.memory_.get(), static_cast<off_t>(out.at_));
  if (base == MAP_FAILED) return os_error(attempt, errno);
  out.base_ = base;
  out.unmap_ = false;  // the memory stays the program's own
  HOBBES_CHECK(out.serve_snapshots());
  return out;
}

Segment::Segment(Segment&& other) noexcept
    : name_(std::move(other.name_)),
      options_(std::move(other.options_)),
      memory_(std::move(other.memory_)),
      at_(other.at_),
      life_(std::move(other.life_)),
      base_(std::exchange(other.base_, nullptr)),
      size_(other.size_),
      handle_(std::exchange(other.handle_, 0)),
      remove_(std::exchange(other.remove_, false)),
      unmap_(other.unmap_),
      maker_(other.maker_),
      snapshots_(std::move(other.snapshots_)) {}

Segment::Segment() : maker_(::getpid()) {}

Result<void> Segment::serve_snapshots() {
  if (!options_.snapshots) return {};
  HOBBES_TRY(source, SnapshotSource::start({handle_, base_, size_,
                                            options_.page_size != 0 ? options_.page_size : 4096,
                                            options_.mode, options_.enclaves}));
  snapshots_ = std::move(source);
  return {};
}

Result<void> Segment::remove(std::chrono::milliseconds deadline) {
  if (handle_ == 0 || !remove_) return {};
  HOBBES_TRY(client, Client::connect(false));
  auto removed = client.call("segment.remove", {{"handle", handle_}}, {}, deadline);
  if (!removed && removed.error().code != Code::not_found) return std::move(removed).error();
  remove_ = false;
  return {};
}

Segment::~Segment() {
  if (maker_ != ::getpid()) {
    (void)snapshots_.release();  // its thread is the parent's
    return;
  }
  snapshots_.reset();
  if (base_ != nullptr && unmap_) ::munmap(base_, size_);
  (void)remove();
}

Result<void> declare_segment(Client& client, const std::string& name, std::uint64_t size,
                             mode_t mode, std::uint64_t enclave) {
  HOBBES_TRY(memory, make_memory(name, rounded(size, 4096), 0));
  HOBBES_TRY(
      made,
      client.call("segment.make",
                  {{"name", name}, {"mode", mode}, {"declaredBy", enclave}, {"fd", memory.get()}}));
  (void)made;
  return {};
}

Result<SegmentAccess> SegmentAccess::ask(Json request, bool writable,
                                         std::chrono::milliseconds deadline) {
  SegmentAccess out;
  request["access"] = writable ? "rw" : "ro";
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(answer, client.call("segment.attach", std::move(request), {}, deadline));
  if (answer.fds.size() != 1)
    return Error{Code::corrupt, "get a segment", "no memory came with the answer", ""};
  out.memory_ = std::move(answer.fds[0]);
  out.size_ = static_cast<std::uint64_t>(number_at(answer.body, "size"));
  out.offset_ = static_cast<std::uint64_t>(number_at(answer.body, "offset"));
  out.attachment_ = static_cast<std::uint64_t>(number_at(answer.body, "attachment"));
  out.writable_ = writable;
  out.deadline_ = deadline;
  out.name_ = text_at(answer.body, "name");
  out.handle_ = static_cast<std::uint64_t>(number_at(answer.body, "handle"));
  out.doorbell_ = std::make_unique<Doorbell>(
      static_cast<std::uint64_t>(number_at(answer.body, "handle")), out.attachment_, writable);
  return out;
}

Result<SegmentAccess> SegmentAccess::get(std::uint64_t handle, bool writable,
                                         std::chrono::milliseconds deadline, bool of_composition) {
  return ask({{"handle", handle}, {"ofComposition", of_composition}}, writable, deadline);
}
Result<SegmentAccess> SegmentAccess::get(const std::string& name, bool writable,
                                         std::chrono::milliseconds deadline) {
  return ask({{"name", name}}, writable, deadline);
}

SegmentAccess::SegmentAccess(SegmentAccess&& other) noexcept
    : memory_(std::move(other.memory_)),
      offset_(other.offset_),
      size_(other.size_),
      attachment_(std::exchange(other.attachment_, 0)),
      handle_(other.handle_),
      name_(std::move(other.name_)),
      writable_(other.writable_),
      deadline_(other.deadline_),
      doorbell_(std::move(other.doorbell_)) {}

SegmentAccess::~SegmentAccess() {
  if (attachment_ == 0) return;
  if (auto client = Client::connect(false))
    (void)client->call("segment.detach", {{"attachment", attachment_}}, {}, deadline_);
}

Result<void*> SegmentAccess::map(std::uint64_t offset, std::uint64_t size) const {
  if (offset % 4096 != 0 || size == 0 || offset > size_ || size > size_ - offset)
    return Error{Code::invalid, "attach a segment",
                 "[" + std::to_string(offset) + ", +" + std::to_string(size) +
                     ") is not inside its " + std::to_string(size_) +
                     " bytes, from a page border on",
                 ""};
  void* base = ::mmap(nullptr, size, writable_ ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                      memory_.get(), static_cast<off_t>(offset_ + offset));
  if (base == MAP_FAILED) return os_error("attach a segment", errno);
  return base;
}

}  // namespace hobbes
