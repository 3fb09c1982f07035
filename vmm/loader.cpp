#include "vmm/loader.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "core/size.h"

namespace hobbes::vmm {
namespace {

const std::string load_attempt = "load the guest's kernel";

Error bad_image(const std::string& why) {
  return {Code::invalid, load_attempt, why,
          "give a Linux bzImage or vmlinux, or an ELF image with a PVH entry"};
}
Error too_large(const std::string& what) {
  return {Code::exhausted, load_attempt, what + " does not fit into the guest's memory",
          "raise memory.size in the bundle"};
}

class ImageFile {
 public:
  explicit ImageFile(int fd) : fd_(fd) {
    struct stat info {};
    if (::fstat(fd, &info) == 0 && info.st_size > 0)
      size_ = static_cast<std::uint64_t>(info.st_size);
  }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> to) const {
    if (offset > size_ || to.size() > size_ - offset) return bad_image("the image is truncated");
    while (!to.empty()) {
      ssize_t n = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error(load_attempt, errno);
      if (n == 0) return bad_image("the image is truncated");
      offset += static_cast<std::uint64_t>(n);
      to = to.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }
  template <class T>
  Result<T> structure(std::uint64_t offset) const {
    T out{};
    HOBBES_CHECK(read(offset, std::as_writable_bytes(std::span(&out, 1))));
    return out;
  }

 private:
  int fd_;
  std::uint64_t size_ = 0;
};

// ---- PVH (xen/include/public/arch-x86/hvm/start_info.h, version 1) ----

struct StartInfo {
  std::uint32_t magic = 0x336ec578, version = 1, flags = 0, modules = 0;
  std::uint64_t modules_at = 0, command_line = 0, acpi_root = 0, memory_map = 0;
  std::uint32_t memory_map_entries = 0, reserved = 0;
};
struct StartModule {
  std::uint64_t address = 0, size = 0, command_line = 0, reserved = 0;
};
struct MapEntry {
  std::uint64_t address = 0, size = 0;
  std::uint32_t type = 0, reserved = 0;
};
static_assert(sizeof(StartInfo) == 56 && sizeof(StartModule) == 32 && sizeof(MapEntry) == 24);
constexpr std::uint32_t ram = 1, reserved_memory = 2;
constexpr std::uint32_t pvh_entry_note = 18;

struct Loaded {
  Gpa entry = 0, end = 0;  // `end`: first free address behind it
};

std::vector<MapEntry> memory_map(const GuestMemory& memory) {
  std::vector<MapEntry> out = {{0, conventional_end, ram, 0},
                               {acpi_at, extended_at - acpi_at, reserved_memory, 0}};
  for (const Region& region : memory.regions()) {
    Gpa from = std::max(region.address, extended_at);
    if (region.address + region.size > from)
      out.push_back({from, region.address + region.size - from, ram, 0});
  }
  return out;
}

Result<std::optional<Gpa>> pvh_entry(const ImageFile& file, const Elf64_Phdr& segment) {
  if (segment.p_filesz > 64 * 1024) return std::optional<Gpa>();
  std::vector<std::byte> notes(segment.p_filesz);
  HOBBES_CHECK(file.read(segment.p_offset, notes));
  for (std::size_t at = 0; at + sizeof(Elf64_Nhdr) <= notes.size();) {
    Elf64_Nhdr note{};
    std::memcpy(&note, &notes[at], sizeof note);
    std::uint64_t name = at + sizeof note, content = name + ((note.n_namesz + 3ULL) & ~3ULL),
                  next = content + ((note.n_descsz + 3ULL) & ~3ULL);
    if (next > notes.size()) break;
    if (note.n_type == pvh_entry_note && note.n_namesz == 4 &&
        std::memcmp(&notes[name], "Xen", 4) == 0 && note.n_descsz >= 4) {
      std::uint64_t entry = 0;
      std::memcpy(&entry, &notes[content], note.n_descsz >= 8 ? 8 : 4);
      return std::optional<Gpa>(entry);
    }
    at = next;
  }
  return std::optional<Gpa>();
}

Result<Loaded> load_elf(const GuestMemory& memory, const ImageFile& file) {
  HOBBES_TRY(header, file.structure<Elf64_Ehdr>(0));
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64)
    return bad_image("it is not an x86-64 ELF image");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 || header.e_phnum > 128)
    return bad_image("its program headers are wrong");
  Loaded out;
  std::optional<Gpa> entry;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    HOBBES_TRY(segment, file.structure<Elf64_Phdr>(header.e_phoff + i * sizeof(Elf64_Phdr)));
    if (segment.p_type == PT_NOTE && !entry) {
      HOBBES_TRY(found, pvh_entry(file, segment));
      entry = found;
    }
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    if (segment.p_filesz > segment.p_memsz)
      return bad_image("a segment is larger in the file than in memory");
    if (segment.p_paddr < extended_at) return bad_image("a segment lies below 1 MiB");
    auto to = memory.at(segment.p_paddr, segment.p_memsz);
    if (to.empty())
      return too_large("the kernel (" + format_size(segment.p_paddr + segment.p_memsz) + ")");
    HOBBES_CHECK(file.read(segment.p_offset, to.first(segment.p_filesz)));
    std::memset(to.data() + segment.p_filesz, 0, segment.p_memsz - segment.p_filesz);
    out.end = std::max(out.end, segment.p_paddr + segment.p_memsz);
  }
  if (!entry) return bad_image("it has no PVH entry note");
  if (*entry < extended_at || *entry >= out.end)
    return bad_image("its PVH entry lies outside of it");
  out.entry = *entry;
  return out;
}

// ---- bzImage ----

Result<Loaded> load_bzimage(const GuestMemory& memory, const ImageFile& file, boot_params& params) {
  HOBBES_TRY(header, file.structure<setup_header>(offsetof(boot_params, hdr)));
  if (header.header != 0x53726448) return bad_image("it is neither an ELF image nor a bzImage");
  if (header.version < 0x20c || (header.xloadflags & XLF_KERNEL_64) == 0 ||
      (header.loadflags & LOADED_HIGH) == 0)
    return bad_image("it is a bzImage without a 64-bit entry");
  std::uint64_t sectors = header.setup_sects == 0 ? 4 : header.setup_sects,
                code = (sectors + 1) * 512;
  if (code >= file.size()) return bad_image("the image is truncated");
  std::uint64_t length = file.size() - code,
                needed = std::max<std::uint64_t>(length, header.init_size);
  constexpr Gpa load_at = 16 * mib;  // where Linux likes to run, so that it need not move itself
  auto to = memory.at(load_at, needed);
  if (to.empty()) return too_large("the kernel (" + format_size(load_at + needed) + ")");
  HOBBES_CHECK(file.read(code, to.first(length)));
  params.hdr = header;
  params.hdr.type_of_loader = 0xff;
  params.hdr.code32_start = static_cast<std::uint32_t>(load_at);
  return Loaded{load_at + 0x200, load_at + needed};
}

Result<void> write_boot_params(const GuestMemory& memory, boot_params& params, Gpa acpi_root,
                               Gpa initrd, std::uint64_t initrd_size) {
  params.hdr.cmd_line_ptr = static_cast<std::uint32_t>(command_line_at);
  params.hdr.ramdisk_image = static_cast<std::uint32_t>(initrd);
  params.hdr.ramdisk_size = static_cast<std::uint32_t>(initrd_size);
  params.acpi_rsdp_addr = acpi_root;
  auto map = memory_map(memory);
  params.e820_entries = static_cast<__u8>(map.size());
  for (std::size_t i = 0; i < map.size(); ++i)
    params.e820_table[i] = {map[i].address, map[i].size, map[i].type};
  if (!memory.write(boot_params_at, params)) return too_large("the boot protocol");
  // The first 4 GiB, identically, in large pages.
  constexpr std::uint64_t present = 3, large = 0x80;
  bool good = memory.write(page_tables_at, page_tables_at + 0x1000 + present);
  for (std::uint64_t i = 0; i < 4; ++i)
    good = good && memory.write(page_tables_at + 0x1000 + i * 8,
                                page_tables_at + 0x2000 + i * 0x1000 + present);
  for (std::uint64_t i = 0; i < 4 * 512; ++i)
    good = good && memory.write(page_tables_at + 0x2000 + i * 8, (i << 21U) + present + large);
  for (auto [slot, value] :
       {std::pair{2ULL, 0x00af9b000000ffffULL}, std::pair{3ULL, 0x00cf93000000ffffULL}})
    good = good && memory.write(gdt_at + slot * 8, value);
  if (!good) return too_large("the boot protocol");
  return {};
}

}  // namespace

Result<EntryState> load_guest(const GuestMemory& memory, const KernelImage& image, Gpa acpi_root) {
  ImageFile file(image.kernel);
  if (file.size() == 0) return bad_image("the image is empty or no file");
  if (image.command_line.size() >= command_line_limit)
    return Error{
        Code::invalid, load_attempt,
        "the command line has " + std::to_string(image.command_line.size()) + " characters",
        "keep it below " + std::to_string(command_line_limit)};
  HOBBES_TRY(magic, file.structure<std::uint32_t>(0));
  bool elf = magic == 0x464c457f;
  boot_params params{};
  auto loaded = elf ? load_elf(memory, file) : load_bzimage(memory, file, params);
  if (!loaded) return std::move(loaded).error();

  // The RAM disk goes to the top of low memory.
  std::uint64_t disk_size = 0;
  Gpa disk_at = 0;
  if (image.initrd >= 0) {
    ImageFile disk(image.initrd);
    disk_size = disk.size();
    if (disk_size == 0 || disk_size >= low_end)
      return Error{Code::invalid, load_attempt, "the initial RAM disk is empty or no file", ""};
    Gpa top = std::min<Gpa>(memory.low_top(), 2 * gib);
    if (disk_size > top || (top - disk_size) / 4096 * 4096 < loaded->end)
      return too_large("the kernel with an initial RAM disk of " + format_size(disk_size));
    disk_at = (top - disk_size) / 4096 * 4096;
    HOBBES_CHECK(disk.read(0, memory.at(disk_at, disk_size)));
  }
  auto line = memory.at(command_line_at, command_line_limit);
  if (line.empty()) return too_large("the command line");
  std::memcpy(line.data(), image.command_line.c_str(), image.command_line.size() + 1);

  EntryState out;
  out.address = loaded->entry;
  if (!elf) {
    HOBBES_CHECK(write_boot_params(memory, params, acpi_root, disk_at, disk_size));
    out.long_mode = true;
    out.rsi = boot_params_at;
    return out;
  }
  StartInfo info;
  auto map = memory_map(memory);
  info.command_line = command_line_at;
  info.acpi_root = acpi_root;
  info.memory_map = memory_map_at;
  info.memory_map_entries = static_cast<std::uint32_t>(map.size());
  bool good = true;
  for (std::size_t i = 0; i < map.size(); ++i)
    good = good && memory.write(memory_map_at + i * sizeof(MapEntry), map[i]);
  if (disk_size != 0) {
    info.modules = 1;
    info.modules_at = modules_at;
    good = good && memory.write(modules_at, StartModule{disk_at, disk_size, 0, 0});
  }
  if (!good || !memory.write(start_info_at, info)) return too_large("the boot protocol");
  out.rbx = start_info_at;
  return out;
}

}  // namespace hobbes::vmm
