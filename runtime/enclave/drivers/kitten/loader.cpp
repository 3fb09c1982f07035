#include "enclave/drivers/kitten/loader.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <x86intrin.h>

#include <cerrno>
#include <cstring>

#include "abi/kitten.h"
#include "core/clock.h"
#include "core/size.h"
#include "enclave/drivers/kitten/elf_image.h"

namespace hobbes {
namespace {

constexpr std::uint64_t image_window = 2ULL << 20U;  // the kernel's addresses for its image

Result<Mapping> map_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return os_error("open the kernel image " + path, errno);
  if (info.st_size == 0 || !S_ISREG(info.st_mode))
    return Error{Code::invalid, "load the kernel image " + path,
                 "it is no file with something in it", "name an image such as kitten.img"};
  void* base =
      ::mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (base == MAP_FAILED) return os_error("map the kernel image " + path, errno);
  return Mapping(base, static_cast<std::size_t>(info.st_size));
}

// XCR0, which programs may read where Linux has switched XSAVE on.
std::uint64_t extended_states() {
  unsigned a, b, c, d;
  constexpr unsigned osxsave = 1U << 27U;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & osxsave) == 0) return 0;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32U | low;
}

template <std::size_t n>
void copy_text(char (&to)[n], const std::string& from) {
  std::strncpy(to, from.c_str(), n - 1);
}

}  // namespace

Result<std::uint64_t> load_kernel(const std::string& path, const std::string& command_line,
                                  const KittenPlan& plan, const ModuleEnclave& module) {
  const Extent& base = plan.extents.front();
  std::string attempt = "load the kernel image " + path;
  HOBBES_TRY(file, map_file(path));
  ElfImage image(file.base(), file.size());
  if (const char* problem = image.problem())
    return Error{Code::invalid, attempt, problem, "name an image such as kitten.img"};
  if (image.high() - image.low() > image_window)
    return Error{Code::invalid, attempt,
                 "it needs " + format_size(image.high() - image.low()) +
                     " at its addresses, the window has 2 MiB",
                 "name an image built for Hobbes"};
  if (base.size < HOBBES_IMAGE_OFFSET + 3 * image_window)
    return Error{Code::exhausted, attempt,
                 "its first piece of memory has only " + format_size(base.size),
                 "give the enclave 8 MiB or more"};
  if (command_line.size() >= sizeof(hobbes_boot::command_line))
    return Error{Code::invalid, attempt, "the command line is longer than 1023 characters",
                 "shorten image.cmdline"};

  HOBBES_TRY(memory, module.map(base.address, HOBBES_IMAGE_OFFSET + image_window));
  auto* bytes = static_cast<unsigned char*>(memory.base());
  for (unsigned i = 0; i < image.segments(); ++i) {
    const ElfSegment& segment = image.segment(i);
    std::memcpy(bytes + HOBBES_IMAGE_OFFSET + (segment.address - image.low()),
                static_cast<const char*>(file.base()) + segment.offset, segment.file_size);
  }

  HOBBES_TRY(version, module.version());
  hobbes_boot boot{};
  boot.magic = HOBBES_BOOT_MAGIC;
  boot.version = HOBBES_KITTEN_VERSION;
  boot.size = sizeof boot;
  boot.base = base.address;
  boot.image = base.address + HOBBES_IMAGE_OFFSET;
  boot.image_size = image.high() - image.low();
  boot.tsc_khz = version.tsc_khz;
  boot.x2apic = version.x2apic;
  boot.enclave = plan.handle;
  boot.wall_tsc = __rdtsc();
  boot.wall_ns = clock_ns(CLOCK_REALTIME);
  boot.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  boot.xcr0 = extended_states();
  boot.cores = 1;
  boot.core[0] = {plan.cores.front().apic_id, plan.cores.front().cpu};
  for (const Extent& extent : plan.extents) {
    if (boot.extents == HOBBES_KITTEN_EXTENTS)
      return Error{Code::exhausted, attempt, "its memory is in more than 256 pieces",
                   "ask for less, or free larger pieces"};
    boot.extent[boot.extents++] = {extent.address, extent.size, extent.slot, extent.node};
  }
  copy_text(boot.name, plan.name);
  copy_text(boot.command_line, command_line);
  std::memcpy(bytes + HOBBES_BOOT_OFFSET, &boot, sizeof boot);
  return base.address + HOBBES_IMAGE_OFFSET + (image.entry() - image.low());
}

}  // namespace hobbes
