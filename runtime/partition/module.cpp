#include "partition/module.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "core/file.h"
#include "core/size.h"

namespace hobbes {
namespace {

constexpr const char* load_remedy =
    "load the module: modprobe hobbes where it is installed (dkms install hobbes), or kmod/build "
    "and insmod hobbes.ko";

std::string hex_text(std::uint64_t value) {
  std::ostringstream out;
  out << "0x" << std::hex << value;
  return out.str();
}

template <class T>
Result<void> request(int fd, unsigned long number, T& argument, const std::string& attempt,
                     const std::string& remedy = {}) {
  int result = 0;
  do {
    result = ::ioctl(fd, number, &argument);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return {};
  return os_error(attempt, errno, remedy);
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

Result<ModuleEnclave> ModuleEnclave::open() {
  Fd fd(::open(HOBBES_KMOD_DEVICE, O_RDWR | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
      return Error{Code::unavailable, "open " HOBBES_KMOD_DEVICE,
                   "the kernel module hobbes is not loaded", load_remedy};
    return os_error("open " HOBBES_KMOD_DEVICE, errno,
                    "taking cores and memory from Linux needs root");
  }
  ModuleEnclave out(std::move(fd));
  HOBBES_TRY(version, out.version());
  if (version.version != HOBBES_KMOD_VERSION)
    return Error{Code::unavailable, "use the kernel module hobbes",
                 "it speaks version " + std::to_string(version.version) +
                     ", this program version " + std::to_string(HOBBES_KMOD_VERSION),
                 "load the module that was built with this program"};
  return out;
}

std::optional<Error> ModuleEnclave::obstacle() {
  auto opened = open();
  if (opened) return std::nullopt;
  return std::move(opened).error();
}

Result<hobbes_kmod_version> ModuleEnclave::version() const {
  hobbes_kmod_version out{};
  HOBBES_CHECK(request(fd_.get(), HOBBES_IOC_VERSION, out, "ask the kernel module for its version",
                       load_remedy));
  return out;
}

Result<void> ModuleEnclave::name(const std::string& text) const {
  hobbes_kmod_enclave out{};
  std::strncpy(out.name, text.c_str(), sizeof out.name - 1);
  return request(fd_.get(), HOBBES_IOC_NAME, out, "name an enclave");
}

Result<hobbes_kmod_state> ModuleEnclave::state() const {
  hobbes_kmod_state out{};
  HOBBES_CHECK(request(fd_.get(), HOBBES_IOC_STATE, out, "ask for an enclave's state"));
  return out;
}

Result<Extent> ModuleEnclave::take_extent(unsigned node, std::uint64_t size) const {
  hobbes_kmod_extent ask{};
  ask.size = size;
  ask.node = node;
  std::string attempt =
      "take " + format_size(size) + " of memory on NUMA node " + std::to_string(node);
  if (::ioctl(fd_.get(), HOBBES_IOC_EXTENT_TAKE, &ask) != 0) {
    if (errno == ENOSPC)
      return Error{Code::exhausted, attempt, "the pool of that node has none left",
                   "ask for less or delete an enclave"};
    return os_error(attempt, errno);
  }
  return Extent{ask.address, ask.size, node, ask.slot};
}

Result<void> ModuleEnclave::return_extent(unsigned slot) const {
  hobbes_kmod_extent ask{};
  ask.slot = slot;
  return request(fd_.get(), HOBBES_IOC_EXTENT_RETURN, ask,
                 "give back extent " + std::to_string(slot));
}

Result<unsigned> ModuleEnclave::take_core(unsigned cpu) const {
  hobbes_kmod_core ask{};
  ask.cpu = cpu;
  std::string attempt = "take CPU " + std::to_string(cpu) + " from Linux";
  if (::ioctl(fd_.get(), HOBBES_IOC_CORE_TAKE, &ask) != 0) {
    switch (errno) {
      case EINVAL:
        return Error{Code::invalid, attempt,
                     cpu == 0 ? "CPU 0 cannot be given up" : "there is no such CPU",
                     "choose another core"};
      case EEXIST:
        return Error{Code::busy, attempt, "another enclave has it", "see `hobbes topology`"};
      case EBUSY:
        return Error{
            Code::busy, attempt, "Linux does not let go of it",
            "look for SCHED_DEADLINE tasks on it, or an isolated cpuset that holds it alone"};
      default:
        return os_error(attempt, errno);
    }
  }
  return ask.apic_id;
}

Result<void> ModuleEnclave::return_core(unsigned cpu) const {
  hobbes_kmod_core ask{};
  ask.cpu = cpu;
  return request(fd_.get(), HOBBES_IOC_CORE_RETURN, ask, "give back CPU " + std::to_string(cpu));
}

Result<void> ModuleEnclave::boot(unsigned cpu, const Extent& base, std::uint64_t entry,
                                 std::uint64_t rdi, std::uint64_t rsi) const {
  hobbes_kmod_boot ask{cpu, base.slot, entry, rdi, rsi};
  std::string attempt = "start the co-kernel on CPU " + std::to_string(cpu);
  if (::ioctl(fd_.get(), HOBBES_IOC_BOOT, &ask) == 0) return {};
  if (errno == EXDEV)
    return Error{Code::busy, attempt, "the other hardware thread of its core still serves Linux",
                 "lease whole cores: use \"count\""};
  if (errno == ETIMEDOUT)
    return Error{Code::timeout, attempt, "the core did not arrive in 64-bit mode",
                 "see the kernel log"};
  return os_error(attempt, errno);
}

Result<void> ModuleEnclave::signal(unsigned cpu, unsigned vector) const {
  hobbes_kmod_signal ask{cpu, vector};
  return request(fd_.get(), HOBBES_IOC_SIGNAL, ask, "interrupt CPU " + std::to_string(cpu));
}

Result<void> ModuleEnclave::attach_doorbell(int eventfd, unsigned cpu) const {
  hobbes_kmod_doorbell ask{eventfd, cpu};
  return request(fd_.get(), HOBBES_IOC_DOORBELL, ask, "attach a doorbell");
}

Result<Mapping> ModuleEnclave::map(std::uint64_t address, std::size_t size) const {
  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(),
                      static_cast<off_t>(address));
  if (base == MAP_FAILED)
    return os_error("map the enclave's memory at " + hex_text(address), errno);
  return Mapping(base, size);
}

Result<std::vector<hobbes_kmod_run>> ModuleEnclave::pin(const void* memory, std::size_t size,
                                                        bool writable, unsigned* slot) const {
  std::vector<hobbes_kmod_run> runs(size / 4096 + 1);
  hobbes_kmod_pin ask{};
  ask.address = reinterpret_cast<std::uint64_t>(memory);
  ask.size = size;
  ask.runs = reinterpret_cast<std::uint64_t>(runs.data());
  ask.capacity = static_cast<std::uint32_t>(runs.size());
  ask.writable = writable ? 1 : 0;
  HOBBES_CHECK(request(fd_.get(), HOBBES_IOC_PIN, ask,
                       "pin " + format_size(size) + " for the co-kernel",
                       "raise the limit of locked memory"));
  runs.resize(ask.count);
  *slot = ask.slot;
  return runs;
}

Result<void> ModuleEnclave::unpin(unsigned slot) const {
  hobbes_kmod_pin ask{};
  ask.slot = slot;
  return request(fd_.get(), HOBBES_IOC_UNPIN, ask, "unpin memory");
}

Result<Fd> ModuleEnclave::view() const {
  hobbes_kmod_view ask{};
  HOBBES_CHECK(request(fd_.get(), HOBBES_IOC_VIEW, ask, "make a view of a program's memory"));
  return Fd(ask.fd);
}

Result<void> ModuleEnclave::settle() const {
  while (::ioctl(fd_.get(), HOBBES_IOC_SETTLE) != 0)
    if (errno != EINTR) return os_error("wait for enclaves to be taken down", errno);
  return {};
}

Result<void> ModuleEnclave::pool_add(std::uint64_t address, std::uint64_t size,
                                     unsigned node) const {
  hobbes_kmod_chunk ask{address, size, node, 0};
  return request(fd_.get(), HOBBES_IOC_POOL_ADD, ask,
                 "add memory at " + hex_text(address) + " to the pool");
}

Result<void> ModuleEnclave::pool_remove(std::uint64_t address, std::uint64_t size,
                                        unsigned node) const {
  hobbes_kmod_chunk ask{address, size, node, 0};
  return request(fd_.get(), HOBBES_IOC_POOL_REMOVE, ask,
                 "take memory at " + hex_text(address) + " out of the pool");
}

Result<ModuleReport> ModuleReport::read() {
  HOBBES_TRY(text, Files::system().read(HOBBES_KMOD_DEVICE, 4 << 20));
  ModuleReport out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string noun, skipped;
    words >> noun;
    if (noun == "chunk") {
      Chunk chunk;
      words >> std::hex >> chunk.address >> std::dec >> skipped >> chunk.size >> skipped >>
          chunk.node >> skipped >> chunk.free;
      if (words.fail()) continue;
      chunk.reserved = words >> skipped && skipped == "reserved";
      out.chunks.push_back(chunk);
    } else if (noun == "extent" || noun == "busy") {
      out.holders.insert(line.substr(line.rfind(' ') + 1));
    } else if (noun == "core") {
      unsigned cpu = 0;
      std::string state;
      words >> cpu >> state;
      if (words.fail() || cpu >= CpuSet::capacity) continue;
      out.cores.add(cpu);
      out.holders.insert(line.substr(line.rfind(' ') + 1));
      if (state == "quarantined") out.quarantined.add(cpu);
    }
  }
  return out;
}

}  // namespace hobbes
