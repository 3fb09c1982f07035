// Reading a static ELF64 executable for x86-64 (System V ABI, "Object Files"). Freestanding: Linux
// loads the kernel with it. The file is untrusted: every offset and length is checked before it is
// used.
#pragma once
#include <cstddef>
#include <cstdint>

namespace hobbes {

struct ElfSegment {
  std::uint64_t address = 0, memory_size = 0;  ///< virtual
  std::uint64_t offset = 0, file_size = 0;     ///< in the file
  bool write = false, execute = false;
};

/// A view of a whole file; owns nothing.
class ElfImage {
 public:
  static constexpr unsigned segment_limit = 16;

  ElfImage(const void* file, std::size_t size)
      : file_(static_cast<const unsigned char*>(file)), size_(size) {
    problem_ = read();
  }

  /// Null when the file can be loaded, else what is wrong with it.
  [[nodiscard]] const char* problem() const { return problem_; }
  [[nodiscard]] std::uint64_t entry() const { return entry_; }
  [[nodiscard]] unsigned segments() const { return count_; }
  [[nodiscard]] const ElfSegment& segment(unsigned i) const { return segments_[i]; }
  /// The lowest address of any segment, and the first one behind the highest.
  [[nodiscard]] std::uint64_t low() const { return low_; }
  [[nodiscard]] std::uint64_t high() const { return high_; }

 private:
  struct Header {
    unsigned char identity[16];
    std::uint16_t type, machine;
    std::uint32_t version;
    std::uint64_t entry, program_offset, section_offset;
    std::uint32_t flags;
    std::uint16_t header_size, program_size, program_count, section_size, section_count, names;
  };
  struct Program {
    std::uint32_t type, flags;
    std::uint64_t offset, address, physical, file_size, memory_size, align;
  };
  static_assert(sizeof(Header) == 64 && sizeof(Program) == 56);

  const char* read() {
    Header header;
    if (size_ < sizeof header) return "it is shorter than an ELF header";
    __builtin_memcpy(&header, file_, sizeof header);
    const unsigned char* id = header.identity;
    if (id[0] != 0x7f || id[1] != 'E' || id[2] != 'L' || id[3] != 'F') return "it is no ELF file";
    if (id[4] != 2 || id[5] != 1) return "it is not 64-bit little-endian";
    if (header.machine != 62) return "it is not for x86-64";
    if (header.type != 2) return "it is no static executable";
    if (header.program_size != sizeof(Program) || header.program_count == 0)
      return "it has no program headers";
    if (header.program_offset > size_ ||
        header.program_count > (size_ - header.program_offset) / sizeof(Program))
      return "its program headers lie outside the file";
    entry_ = header.entry;
    low_ = ~0ULL;
    for (unsigned i = 0; i < header.program_count; ++i) {
      Program program;
      __builtin_memcpy(&program, file_ + header.program_offset + i * sizeof program,
                       sizeof program);
      if (program.type != 1 || program.memory_size == 0) continue;
      if (count_ == segment_limit) return "it has too many segments";
      if (program.offset > size_ || program.file_size > size_ - program.offset)
        return "a segment lies outside the file: it is truncated";
      if (program.file_size > program.memory_size)
        return "a segment is larger in the file than in memory";
      if (program.address + program.memory_size < program.address)
        return "a segment wraps around the end of memory";
      for (unsigned j = 0; j < count_; ++j)
        if (program.address < segments_[j].address + segments_[j].memory_size &&
            segments_[j].address < program.address + program.memory_size)
          return "two segments overlap";
      segments_[count_++] = {
          program.address,   program.memory_size,       program.offset,
          program.file_size, (program.flags & 2U) != 0, (program.flags & 1U) != 0};
      if (program.address < low_) low_ = program.address;
      if (program.address + program.memory_size > high_)
        high_ = program.address + program.memory_size;
    }
    if (count_ == 0) return "it has no segments to load";
    for (unsigned i = 0; i < count_; ++i)
      if (segments_[i].execute && entry_ >= segments_[i].address &&
          entry_ < segments_[i].address + segments_[i].memory_size)
        return nullptr;
    return "its entry point is in no executable segment";
  }

  const unsigned char* file_;
  std::size_t size_;
  const char* problem_ = nullptr;
  std::uint64_t entry_ = 0, low_ = 0, high_ = 0;
  ElfSegment segments_[segment_limit] = {};
  unsigned count_ = 0;
};

}  // namespace hobbes
