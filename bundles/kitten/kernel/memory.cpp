#include "memory.h"

#include <cerrno>

#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "exceptions.h"
#include "lock.h"
#include "shared.h"

extern "C" {
extern const char image_start[], text_end[], rodata_end[], image_end[];
extern std::uint64_t early_directory_high[];
std::uint64_t kernel_root;
}

namespace kitten {
namespace {

constexpr std::uint64_t stack_frames = 8, fault_stack_frames = 2;
// Of the first extent: the shared 2 MiB, the image, and the first block of protected frames.
constexpr std::uint64_t fixed_bytes = 3 * block_size;

SpinLock memory_lock;
bool mapped = false;  // the physical map exists

void* translate(std::uint64_t address) { return reinterpret_cast<void*>(physical_map + address); }

constinit Frames all_frames(translate);

std::uint64_t* reach(std::uint64_t table);

// Frames that are read-only in the physical map: a chain of free ones, refilled by the 2 MiB block.
class ProtectedFrames {
 public:
  void add_block(std::uint64_t address) {
    for (; next_ != end_; next_ += frame_size) give(next_);
    next_ = address;
    end_ = address + block_size;
  }
  std::uint64_t take() {
    if (free_ != 0) {
      std::uint64_t out = free_;
      free_ = *reach(out);
      --free_count_;
      return out;
    }
    if (next_ == end_) return 0;
    std::uint64_t out = next_;
    next_ += frame_size;
    return out;
  }
  void give(std::uint64_t address) {
    WriteWindow window;
    *reach(address) = free_;
    free_ = address;
    ++free_count_;
  }
  [[nodiscard]] std::uint64_t available() const {
    return free_count_ + (end_ - next_) / frame_size;
  }

 private:
  std::uint64_t next_ = 0, end_ = 0;
  std::uint64_t free_ = 0;  // its first word leads to the next
  std::uint64_t free_count_ = 0;
};
ProtectedFrames protected_frames;

// In the final tables the physical map; before, the early identity window that `enter_memory` has
// made over the protected block.
std::uint64_t early_offset = 0;
std::uint64_t* reach(std::uint64_t table) {
  return reinterpret_cast<std::uint64_t*>(mapped ? physical_map + table : early_offset + table);
}

class KernelTables final : public TableMemory {
 public:
  std::uint64_t take() override {
    std::uint64_t out = protected_frames.take();
    if (out == 0) return 0;
    WriteWindow window;
    for (unsigned i = 0; i < 512; ++i) reach(out)[i] = 0;
    return out;
  }
  void give(std::uint64_t address) override { protected_frames.give(address); }
  [[nodiscard]] const std::uint64_t* table(std::uint64_t address) const override {
    return reach(address);
  }
  void store(std::uint64_t table, unsigned index, std::uint64_t entry) override {
    WriteWindow window;
    __atomic_store_n(reach(table) + index, entry, __ATOMIC_RELEASE);
  }
};
constinit KernelTables table_memory;

bool refill();

// The same frames, for callers that do not hold the memory lock.
class ProgramTables final : public TableMemory {
 public:
  std::uint64_t take() override {
    Locked locked(memory_lock);
    return refill() ? table_memory.take() : 0;
  }
  void give(std::uint64_t address) override {
    Locked locked(memory_lock);
    table_memory.give(address);
  }
  [[nodiscard]] const std::uint64_t* table(std::uint64_t address) const override {
    return table_memory.table(address);
  }
  void store(std::uint64_t table, unsigned index, std::uint64_t entry) override {
    table_memory.store(table, index, entry);
  }
};
constinit ProgramTables tables_of_programs;
constinit PageTables tables(table_memory, false);

constexpr Access data{true, false, false}, constant{false, false, false}, code{false, true, false};

// More protected frames, while there are enough left for any one mapping.
bool refill() {
  constexpr std::uint64_t reserve = 64;
  if (protected_frames.available() >= reserve) return true;
  std::uint64_t block = all_frames.take_block(Use::tables);
  if (block == 0) return protected_frames.available() != 0;
  if (!tables.protect(physical_map + block, block_size, constant)) return false;
  shoot_down();  // no core may go on writing through what it remembers
  protected_frames.add_block(block);
  return true;
}

void require(bool good, const char* what) {
  if (!good) panic(what);
}

}  // namespace

WriteWindow::WriteWindow() : flags_(cpu::read_flags()) {
  cpu::interrupts_off();
  cpu::write_cr0(cpu::read_cr0() & ~cpu::cr0_write_protect);
}

WriteWindow::~WriteWindow() {
  cpu::write_cr0(cpu::read_cr0() | cpu::cr0_write_protect);
  if ((flags_ & 0x200U) != 0) cpu::interrupts_on();
}

Frames& frames() { return all_frames; }

void enter_memory(std::uint64_t base, std::uint64_t size, std::uint32_t slot) {
  // One more 2 MiB page of the early tables, after image and shared window, shows the protected
  // block.
  auto* directory = early_directory_high;
  std::uint64_t protected_block = base + 2 * block_size;
  directory[2] = protected_block | 0x83U;
  std::uint64_t window = IMAGE_ADDRESS + 2 * block_size;
  cpu::invalidate_page(window);
  early_offset = window - protected_block;

  protected_frames.add_block(protected_block);
  std::uint64_t image = base + HOBBES_IMAGE_OFFSET;
  auto address_of = [](const char* symbol) { return reinterpret_cast<std::uint64_t>(symbol); };
  auto map_image = [&](std::uint64_t from, std::uint64_t to, Access access) {
    return tables.map(from, image + (from - IMAGE_ADDRESS), to - from, access);
  };
  bool good =
      tables.create() && map_image(IMAGE_ADDRESS, address_of(text_end), code) &&
      map_image(address_of(text_end), address_of(rodata_end), constant) &&
      map_image(address_of(rodata_end), address_of(image_end), data) &&
      tables.map(SHARED_ADDRESS, base, block_size, data) &&
      tables.map(physical_map + protected_block, protected_block, block_size, constant) &&
      tables.map(physical_map + base + fixed_bytes, base + fixed_bytes, size - fixed_bytes, data);
  require(good, "no memory for the first page tables");
  mapped = true;
  kernel_root = tables.root();
  cpu::write_cr3(kernel_root);
  require(all_frames.add(base, size, slot, fixed_bytes), "the first extent is unusable");
}

int add_memory(std::uint64_t address, std::uint64_t size, std::uint32_t slot) {
  Locked locked(memory_lock);
  if (address == 0 || (address | size) % block_size != 0 || size == 0 || address + size < address ||
      address + size > 1ULL << 46U)
    return EINVAL;
  if (!refill()) return ENOMEM;
  if (!tables.map(physical_map + address, address, size, data)) return EEXIST;
  if (all_frames.add(address, size, slot)) return 0;
  (void)tables.unmap(physical_map + address, size);
  return EINVAL;
}

int remove_memory(std::uint32_t slot) {
  Locked locked(memory_lock);
  if (all_frames.in_use(slot) == nullptr) return ENOENT;
  if (!refill()) return ENOMEM;
  std::uint64_t size = 0, address = all_frames.remove(slot, &size);
  if (address == 0) return EBUSY;
  require(tables.unmap(physical_map + address, size), "no memory to unmap an extent");
  shoot_down();
  return 0;
}

TableMemory& program_tables() { return tables_of_programs; }
const PageTables& kernel_tables() { return tables; }

std::uint64_t take_frame(Use use) {
  Locked locked(memory_lock);
  return all_frames.take(use);
}
std::uint64_t take_block(Use use) {
  std::uint64_t out;
  {
    Locked locked(memory_lock);
    out = all_frames.take_block(use);
  }
  if (out != 0) __builtin_memset(at_physical(out), 0, block_size);
  return out;
}
void give_frame(std::uint64_t address, Use use) {
  Locked locked(memory_lock);
  all_frames.give(address, use);
}
void give_block(std::uint64_t address, Use use) {
  Locked locked(memory_lock);
  all_frames.give_block(address, use);
}
std::uint64_t free_memory() {
  Locked locked(memory_lock);
  return all_frames.free();
}
std::uint64_t total_memory() {
  Locked locked(memory_lock);
  return all_frames.total();
}

std::uint64_t take_protected() {
  Locked locked(memory_lock);
  return refill() ? table_memory.take() : 0;
}

std::uint64_t* window_at(unsigned window) {
  return reinterpret_cast<std::uint64_t*>(window_area + window * window_stride);
}

int map_window(unsigned window, std::uint64_t offset, std::uint64_t physical, std::uint64_t size) {
  if ((offset | physical | size) % frame_size != 0 || size == 0 || offset > window_stride ||
      size > window_stride - offset || physical + size < physical || physical + size > 1ULL << 46U)
    return EINVAL;
  Locked locked(memory_lock);
  if (!refill()) return ENOMEM;
  std::uint64_t address = window_area + window * window_stride + offset;
  return tables.map(address, physical, size, constant) ? 0 : EEXIST;
}

int unmap_window(unsigned window, std::uint64_t size) {
  if (size == 0 || size % frame_size != 0 || size > window_stride) return EINVAL;
  Locked locked(memory_lock);
  if (!refill()) return ENOMEM;
  bool good = tables.unmap(window_area + window * window_stride, size);
  shoot_down();
  return good ? 0 : ENOMEM;
}

void stack_bounds(unsigned core, unsigned which, std::uint64_t* low, std::uint64_t* high) {
  std::uint64_t pages = which == 0 ? stack_frames : fault_stack_frames;
  *low = stack_area + core * stack_stride + which * (stack_stride / 4) + frame_size;
  *high = *low + pages * frame_size;
}

std::uint64_t make_stack(unsigned core, unsigned which) {
  std::uint64_t low, high;
  stack_bounds(core, which, &low, &high);
  Locked locked(memory_lock);
  for (std::uint64_t at = low; at < high; at += frame_size) {
    std::uint64_t physical;
    Access access;
    std::uint64_t page;
    if (tables.find(at, &physical, &access, &page)) continue;  // left by a core that was removed
    std::uint64_t frame = refill() ? table_memory.take() : 0;
    if (frame == 0 || !refill() || !tables.map(at, frame, frame_size, data)) return 0;
  }
  return high;
}

void map_device(std::uint64_t virtual_address, std::uint64_t physical) {
  Locked locked(memory_lock);
  require(refill() && tables.map(virtual_address, physical, frame_size, {true, false, true}),
          "no memory to map a device");
}

}  // namespace kitten
