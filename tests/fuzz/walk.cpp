// The module's walk through page tables that a hostile kernel has written: the input is its memory.
extern "C" {
#include "kmod/walk.h"
}

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr std::uint64_t page = 4096, begin = 0x100000000, pages = 8;

const void* memory_of(void* context, std::uint64_t address) {
  auto& memory = *static_cast<std::vector<std::uint64_t>*>(context);
  if (address % page != 0 || address < begin || address >= begin + pages * page) return nullptr;
  return memory.data() + (address - begin) / 8;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint64_t> memory(pages * page / 8);
  std::uint64_t root, address;
  if (size < 16) return 0;
  std::memcpy(&root, data, 8);
  std::memcpy(&address, data + 8, 8);
  std::memcpy(memory.data(), data + 16, size - 16 < pages * page ? size - 16 : pages * page);
  for (bool write : {false, true}) {
    std::uint64_t physical = 0;
    bool writable = false;
    if (walk_tables(memory_of, &memory, root, address, write, &physical, &writable) != WALK_FOUND)
      continue;
    if (memory_of(&memory, physical) == nullptr || (write && !writable)) std::abort();
  }
  return 0;
}
