// The parts of the co-kernel that can be compiled for this machine, and what both sides share with
// it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "abi/apic.h"
#include "abi/kitten.h"
#include "bundles/kitten/kernel/frames.h"
#include "bundles/kitten/kernel/paging.h"
#include "enclave/drivers/kitten/elf_image.h"
#include "ipc/ring.h"

namespace kitten {

using hobbes::ElfImage;
namespace {

constexpr std::uint64_t mega = 1ULL << 20U;

// Memory that pretends to be physical: at its own address.
class Arena {
 public:
  explicit Arena(std::uint64_t size) : memory_(std::aligned_alloc(Frames::block, size)) {
    std::memset(memory_, 0xa5, size);
  }
  ~Arena() { std::free(memory_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  [[nodiscard]] std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(memory_); }

 private:
  void* memory_;
};

void* identity(std::uint64_t address) { return reinterpret_cast<void*>(address); }

TEST(Frames, EachFrameIsGivenOnceAndCleared) {
  Arena arena(4 * mega);
  Frames frames(identity);
  ASSERT_TRUE(frames.add(arena.address(), 4 * mega, 7));
  std::uint64_t before = frames.free();
  std::set<std::uint64_t> seen;
  while (std::uint64_t frame = frames.take(Use::stacks)) {
    EXPECT_TRUE(seen.insert(frame).second) << "given twice";
    EXPECT_EQ(frame % Frames::frame, 0U);
    for (unsigned i = 0; i < 512; ++i) ASSERT_EQ(reinterpret_cast<std::uint64_t*>(frame)[i], 0U);
    std::memset(reinterpret_cast<void*>(frame), 0xff, Frames::frame);
  }
  EXPECT_EQ(seen.size() * Frames::frame, before);
  EXPECT_EQ(frames.free(), 0U);
  for (std::uint64_t frame : seen) frames.give(frame, Use::stacks);
  EXPECT_EQ(frames.free(), before);
}

TEST(Frames, AnExtentInUseStaysAndSaysByWhom) {
  Arena one(4 * mega), two(4 * mega);
  Frames frames(identity);
  ASSERT_TRUE(frames.add(one.address(), 4 * mega, 1, 2 * mega));
  ASSERT_TRUE(frames.add(two.address(), 4 * mega, 2));
  std::uint64_t size = 0;
  EXPECT_EQ(frames.remove(1, &size), 0U) << "the kernel lives in it";
  EXPECT_EQ(frames.remove(9, &size), 0U);
  std::uint64_t block = frames.take_block(Use::tables);
  ASSERT_GE(block, two.address());
  ASSERT_LT(block, two.address() + 4 * mega);
  EXPECT_EQ(frames.remove(2, &size), 0U);
  EXPECT_EQ(frames.in_use(2)[static_cast<std::size_t>(Use::tables)], 512U);
  frames.give_block(block, Use::tables);
  EXPECT_EQ(frames.remove(2, &size), two.address());
  EXPECT_EQ(size, 4 * mega);
  EXPECT_EQ(frames.extents(), 1U);
}

TEST(Frames, ImpossibleExtentsAreRefused) {
  Arena arena(4 * mega);
  Frames frames(identity);
  EXPECT_FALSE(frames.add(0, 2 * mega, 1));
  EXPECT_FALSE(frames.add(arena.address() + 4096, 2 * mega, 1));
  EXPECT_FALSE(frames.add(arena.address(), 0, 1));
  EXPECT_FALSE(frames.add(~0ULL - 2 * mega + 1, 4 * mega, 1));
  EXPECT_FALSE(frames.add(arena.address(), 2 * mega, 1, 2 * mega)) << "nothing would be left";
  ASSERT_TRUE(frames.add(arena.address(), 4 * mega, 1));
  EXPECT_FALSE(frames.add(arena.address() + 2 * mega, 2 * mega, 2)) << "overlaps";
}

TEST(Frames, ADoubleOrForeignReturnChangesNothing) {
  Arena arena(2 * mega);
  Frames frames(identity);
  ASSERT_TRUE(frames.add(arena.address(), 2 * mega, 1));
  std::uint64_t frame = frames.take(Use::stacks), before = frames.free();
  frames.give(frame, Use::stacks);
  frames.give(frame, Use::stacks);
  frames.give(0x1000, Use::stacks);
  EXPECT_EQ(frames.free(), before + Frames::frame);
}

// Tables in ordinary memory, counted.
class CountedTables final : public TableMemory {
 public:
  std::uint64_t take() override {
    if (tables_.size() >= limit) return 0;
    next_ += 4096;
    tables_[next_].resize(512);
    return next_;
  }
  void give(std::uint64_t address) override {
    EXPECT_EQ(tables_.erase(address), 1U) << "a table given back that is none";
  }
  [[nodiscard]] const std::uint64_t* table(std::uint64_t address) const override {
    return tables_.at(address).data();
  }
  void store(std::uint64_t table, unsigned index, std::uint64_t entry) override {
    tables_.at(table).at(index) = entry;
  }
  [[nodiscard]] std::size_t count() const { return tables_.size(); }

  std::size_t limit = 100'000;

 private:
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::vector<std::uint64_t>> tables_;
};

struct Tables : ::testing::Test {
  CountedTables memory;
  PageTables tables{memory, true};
  std::uint64_t physical = 0, page = 0;
  Access access;
  void SetUp() override { ASSERT_TRUE(tables.create()); }
  bool at(std::uint64_t address) { return tables.find(address, &physical, &access, &page); }
};

TEST_F(Tables, TheLargestPagesThatFitAreUsed) {
  constexpr std::uint64_t giga = 1ULL << 30U;
  std::uint64_t base = 0xffff800000000000 + giga - 2 * mega - 4096;
  ASSERT_TRUE(tables.map(base, giga - 2 * mega - 4096, 2 * giga, {true, false, false}));
  ASSERT_TRUE(at(base));
  EXPECT_EQ(page, 4096U);
  ASSERT_TRUE(at(base + 4096));
  EXPECT_EQ(page, 2 * mega);
  ASSERT_TRUE(at(base + 4096 + 2 * mega + 12345));
  EXPECT_EQ(page, giga);
  EXPECT_EQ(physical, giga + 12345);
  EXPECT_FALSE(at(base - 1));
  EXPECT_FALSE(at(base + 2 * giga));
}

TEST_F(Tables, NothingIsEverWritableAndExecutable) {
  EXPECT_FALSE(tables.map(0x1000, 0x1000, 0x1000, {true, true, false}));
  ASSERT_TRUE(tables.map(0x1000, 0x1000, 0x1000, {false, true, false}));
  EXPECT_FALSE(tables.protect(0x1000, 0x1000, {true, true, false}));
  ASSERT_TRUE(at(0x1000));
  EXPECT_FALSE(access.write);
  EXPECT_TRUE(access.execute);
}

TEST_F(Tables, ALargePageIsSplitWhereItsPartsDiffer) {
  ASSERT_TRUE(tables.map(0x40000000, 0x40000000, 1ULL << 30U, {true, false, false}));
  std::uint64_t middle = 0x40000000 + 100 * mega + 4096;
  ASSERT_TRUE(tables.protect(middle, 4096, {false, false, false}));
  ASSERT_TRUE(at(middle));
  EXPECT_FALSE(access.write);
  EXPECT_EQ(page, 4096U);
  for (std::uint64_t other : std::vector<std::uint64_t>{middle - 1, middle + 4096, 0x40000000,
                                                        0x40000000 + (1ULL << 30U) - 1}) {
    ASSERT_TRUE(at(other));
    EXPECT_TRUE(access.write);
    EXPECT_EQ(physical, other) << "the split moved memory";
  }
}

TEST_F(Tables, UnmappingGivesAllTablesBackButThoseOfTheRoot) {
  ASSERT_TRUE(tables.map(0xfffff00000000000, 0x5000, 4096, {false, false, false}));
  ASSERT_TRUE(tables.unmap(0xfffff00000000000, 4096));
  std::size_t before = memory.count();
  EXPECT_EQ(before, 2U);
  ASSERT_TRUE(tables.map(0xfffff00000001000, 0x5000, 700 * 4096, {false, false, false}));
  EXPECT_GT(memory.count(), before);
  ASSERT_TRUE(tables.unmap(0xfffff00000001000, 700 * 4096));
  EXPECT_FALSE(at(0xfffff00000001000));
  EXPECT_EQ(memory.count(), before) << "tables are left";
}

TEST_F(Tables, WhatDoesNotFitLeavesNoTrace) {
  ASSERT_TRUE(tables.map(0x203000, 0x9000, 0x1000, {true, false, false}));
  std::size_t before = memory.count();
  EXPECT_FALSE(tables.map(0x200000, 0x100000, 0x8000, {true, false, false}))
      << "the fourth page is taken";
  EXPECT_FALSE(at(0x200000));
  ASSERT_TRUE(at(0x203000));
  EXPECT_EQ(physical, 0x9000U);
  EXPECT_EQ(memory.count(), before);
  memory.limit = memory.count() + 1;
  EXPECT_FALSE(tables.map(0x8000000000, 0x1000, 0x1000, {true, false, false}))
      << "needs three tables";
  EXPECT_FALSE(at(0x8000000000));
  EXPECT_EQ(memory.count(), before + 1) << "tables of the failed mapping are left";
}

// A map of pages kept beside the tables must always say the same.
TEST_F(Tables, RandomOperationsAgreeWithAModel) {
  std::mt19937_64 random(20261122);
  struct Page {
    std::uint64_t physical;
    bool write;
  };
  std::map<std::uint64_t, Page> model;
  constexpr std::uint64_t pages = 2048;  // four large pages
  for (int step = 0; step < 3000; ++step) {
    std::uint64_t first = random() % pages, count = 1 + random() % (step % 7 == 0 ? 1024 : 16);
    count = std::min(count, pages - first);
    std::uint64_t address = 0x40000000 + first * 4096;
    bool write = random() % 2 == 0;
    auto each = [&](auto action) {
      for (std::uint64_t i = 0; i < count; ++i) action(address + i * 4096, i);
    };
    switch (random() % 3) {
      case 0: {
        std::uint64_t to = (first + 4096 * (random() % 2)) * 4096;
        bool free = true;
        each([&](std::uint64_t a, std::uint64_t) { free = free && model.count(a) == 0; });
        ASSERT_EQ(tables.map(address, to, count * 4096, {write, false, false}), free);
        if (free)
          each([&](std::uint64_t a, std::uint64_t i) { model[a] = {to + i * 4096, write}; });
        break;
      }
      case 1:
        ASSERT_TRUE(tables.unmap(address, count * 4096));
        each([&](std::uint64_t a, std::uint64_t) { model.erase(a); });
        break;
      default:
        ASSERT_TRUE(tables.protect(address, count * 4096, {write, false, false}));
        each([&](std::uint64_t a, std::uint64_t) {
          if (auto found = model.find(a); found != model.end()) found->second.write = write;
        });
    }
    if (step % 50 != 0) continue;
    for (std::uint64_t i = 0; i < pages; ++i) {
      std::uint64_t a = 0x40000000 + i * 4096;
      auto found = model.find(a);
      ASSERT_EQ(at(a), found != model.end()) << std::hex << a;
      if (found == model.end()) continue;
      ASSERT_EQ(physical, found->second.physical);
      ASSERT_EQ(access.write, found->second.write);
    }
  }
  ASSERT_TRUE(tables.unmap(0x40000000, pages * 4096));
  EXPECT_EQ(memory.count(), 2U) << "only the root and its one table are left";
}

TEST_F(Tables, AProgramsTablesShareTheKernelsHalfAndGoAlone) {
  ASSERT_TRUE(tables.map(0xffff800000200000, 0x200000, 2 * mega, {true, false, false}));
  std::size_t before = memory.count();
  PageTables program(memory, false);
  ASSERT_TRUE(program.create_beside(tables));
  ASSERT_TRUE(program.map(0x400000, 0x800000, 3 * mega, {true, true, false, true}));
  ASSERT_TRUE(program.find(0xffff800000212345, &physical, &access, &page));
  EXPECT_EQ(physical, 0x212345U);
  EXPECT_FALSE(access.program);
  ASSERT_TRUE(program.find(0x400000, &physical, &access, &page));
  EXPECT_TRUE(access.program && access.write && access.execute) << "a program may want that";
  EXPECT_FALSE(at(0x400000));
  // What the kernel's root names later is taken over when it is asked for.
  ASSERT_TRUE(tables.map(0xfffff00000000000, 0x5000, 4096, {false, false, false}));
  EXPECT_FALSE(program.find(0xfffff00000000000, &physical, &access, &page));
  program.share_kernel_half(tables);
  EXPECT_TRUE(program.find(0xfffff00000000000, &physical, &access, &page));
  program.destroy();
  EXPECT_TRUE(at(0xffff800000200000)) << "the kernel's own tables were given back";
  EXPECT_EQ(memory.count(), before + 3);
}

TEST_F(Tables, RetiredPagesLeadNowhereAndAreHandedOverOnce) {
  struct Sink final : PageSink {
    void take(std::uint64_t at, std::uint64_t size) override { pages[at] += size; }
    std::map<std::uint64_t, std::uint64_t> pages;
  } sink;
  ASSERT_TRUE(tables.map(0x400000, 0x800000, 2 * mega, {true, false, false, true}));
  ASSERT_TRUE(tables.map(0x600000, 0x1234000, 0x3000, {true, false, false, true}));
  ASSERT_TRUE(tables.retire(0x500000, mega + 0x2000)) << "begins within a large page";
  EXPECT_TRUE(at(0x4ff000));
  EXPECT_FALSE(at(0x500000));
  EXPECT_FALSE(at(0x601000));
  EXPECT_TRUE(at(0x602000));
  EXPECT_FALSE(tables.map(0x602000, 0x1000, 0x1000, {})) << "what stays is in the way";
  tables.reap(0x400000, 4 * mega, sink);
  EXPECT_EQ(sink.pages.size(), mega / 4096 + 2);
  EXPECT_EQ(sink.pages[0x900000], 4096U);
  EXPECT_EQ(sink.pages[0x1235000], 4096U);
  tables.reap(0x400000, 4 * mega, sink);
  EXPECT_EQ(sink.pages[0x900000], 4096U) << "handed over twice";
}

class RingMemory : public ::testing::Test {
 protected:
  static constexpr std::size_t bytes = 4096;
  alignas(64) unsigned char memory[bytes] = {};
  hobbes::Ring writer{memory, bytes}, reader{memory, bytes};
  hobbes_ring& header() { return *reinterpret_cast<hobbes_ring*>(memory); }
};

TEST_F(RingMemory, FramesComeOutAsTheyWentInAroundTheEnd) {
  std::mt19937 random(1);
  std::vector<unsigned char> in(reader.largest()), out(reader.largest());
  for (int i = 0; i < 5000; ++i) {
    std::size_t size = random() % 700, got = 0;
    for (std::size_t j = 0; j < size; ++j) in[j] = static_cast<unsigned char>(random());
    ASSERT_EQ(writer.put(in.data(), size), hobbes::Ring::Status::good);
    ASSERT_EQ(reader.take(out.data(), out.size(), &got), hobbes::Ring::Status::good);
    ASSERT_EQ(got, size);
    ASSERT_EQ(std::memcmp(in.data(), out.data(), size), 0);
  }
  std::size_t got = 0;
  EXPECT_EQ(reader.take(out.data(), out.size(), &got), hobbes::Ring::Status::empty);
}

TEST_F(RingMemory, AFullRingRefusesAndLosesNothing) {
  char word[8] = "frame";
  int put = 0, taken = 0;
  while (writer.put(word, sizeof word) == hobbes::Ring::Status::good) ++put;
  EXPECT_GT(put, 100);
  std::size_t got = 0;
  char out[8];
  while (reader.take(out, sizeof out, &got) == hobbes::Ring::Status::good) ++taken;
  EXPECT_EQ(taken, put);
}

TEST_F(RingMemory, ACounterOrLengthThatCannotBeIsCorrupt) {
  char out[64];
  std::size_t got = 0;
  header().head = 1ULL << 40U;
  EXPECT_EQ(reader.take(out, sizeof out, &got), hobbes::Ring::Status::corrupt);
  EXPECT_EQ(writer.put(out, 8), hobbes::Ring::Status::corrupt);
  reader.reset();
  EXPECT_EQ(reader.take(out, sizeof out, &got), hobbes::Ring::Status::empty);
  header().head = header().tail + 16;
  std::memset(memory + sizeof(hobbes_ring), 0xff,
              bytes - sizeof(hobbes_ring));  // a length of four billion
  EXPECT_EQ(reader.take(out, sizeof out, &got), hobbes::Ring::Status::corrupt);
}

TEST_F(RingMemory, AnyGarbageIsSurvived) {
  std::mt19937_64 random(7);
  std::vector<unsigned char> out(bytes);
  for (int i = 0; i < 20000; ++i) {
    for (std::size_t j = 0; j + 8 <= bytes; j += 8) {
      std::uint64_t value = random();
      if (j > 512 && i % 4 != 0) break;
      std::memcpy(memory + j, &value, 8);
    }
    if (i % 2 == 0) header().head = header().tail + random() % bytes;
    std::size_t got = 0;
    if (reader.take(out.data(), out.size(), &got) == hobbes::Ring::Status::good) {
      ASSERT_LE(got, reader.largest());
    }
    std::uint64_t lost = 0;
    ASSERT_LE(reader.read(out.data(), 100, &lost), 100U);
  }
}

TEST_F(RingMemory, AStreamKeepsTheNewestAndSaysWhatIsLost) {
  std::string text(10'000, 'x');
  text += "the end";
  for (std::size_t i = 0; i < text.size(); i += 100)
    writer.write(text.data() + i, std::min<std::size_t>(100, text.size() - i));
  std::string out(reader.capacity(), '\0');
  std::uint64_t lost = 0;
  std::size_t size = reader.read(out.data(), out.size(), &lost);
  EXPECT_EQ(size, reader.capacity());
  EXPECT_EQ(lost, text.size() - reader.capacity());
  EXPECT_EQ(out.substr(size - 7), "the end");
}

TEST_F(RingMemory, TwoThreadsPassAMillionBytes) {
  std::thread producer([&] {
    for (std::uint64_t i = 0; i < 60'000;)
      if (writer.put(&i, sizeof i) == hobbes::Ring::Status::good)
        ++i;
      else
        std::this_thread::yield();
  });
  for (std::uint64_t expected = 0; expected < 60'000;) {
    std::uint64_t value = 0;
    std::size_t got = 0;
    auto status = reader.take(&value, sizeof value, &got);
    if (status == hobbes::Ring::Status::empty) std::this_thread::yield();
    if (status != hobbes::Ring::Status::good) {
      if (status != hobbes::Ring::Status::empty) ADD_FAILURE() << "corrupt";
      continue;
    }
    ASSERT_EQ(value, expected++);
  }
  producer.join();
}

struct Elf : ::testing::Test {
  std::vector<unsigned char> file = std::vector<unsigned char>(64 + 2 * 56 + 100);
  template <class T>
  void put(std::size_t at, T value) {
    std::memcpy(file.data() + at, &value, sizeof value);
  }
  void SetUp() override {
    const unsigned char id[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    std::memcpy(file.data(), id, sizeof id);
    put<std::uint16_t>(16, 2);
    put<std::uint16_t>(18, 62);
    put<std::uint64_t>(24, 0x1010);
    put<std::uint64_t>(32, 64);
    put<std::uint16_t>(54, 56);
    put<std::uint16_t>(56, 2);
    segment(0, 5, 176, 0x1000, 100, 100);
    segment(1, 6, 200, 0x2000, 10, 4096);
  }
  void segment(std::size_t i, std::uint32_t flags, std::uint64_t offset, std::uint64_t address,
               std::uint64_t in_file, std::uint64_t in_memory) {
    std::size_t at = 64 + i * 56;
    put<std::uint32_t>(at, 1);
    put<std::uint32_t>(at + 4, flags);
    put<std::uint64_t>(at + 8, offset);
    put<std::uint64_t>(at + 16, address);
    put<std::uint64_t>(at + 32, in_file);
    put<std::uint64_t>(at + 40, in_memory);
  }
  std::string problem() {
    const char* text = ElfImage(file.data(), file.size()).problem();
    return text == nullptr ? "" : text;
  }
};

TEST_F(Elf, AnExecutableIsReadWithItsSegments) {
  ElfImage image(file.data(), file.size());
  ASSERT_EQ(image.problem(), nullptr);
  EXPECT_EQ(image.entry(), 0x1010U);
  ASSERT_EQ(image.segments(), 2U);
  EXPECT_TRUE(image.segment(0).execute);
  EXPECT_TRUE(image.segment(1).write);
  EXPECT_EQ(image.low(), 0x1000U);
  EXPECT_EQ(image.high(), 0x3000U);
}

TEST_F(Elf, EveryWrongFieldHasItsOwnText) {
  auto broken = [&](auto change) {
    SetUp();
    change();
    return problem();
  };
  EXPECT_EQ(broken([&] { file[1] = 'X'; }), "it is no ELF file");
  EXPECT_EQ(broken([&] { file[4] = 1; }), "it is not 64-bit little-endian");
  EXPECT_EQ(broken([&] { put<std::uint16_t>(18, 183); }), "it is not for x86-64");
  EXPECT_EQ(broken([&] { put<std::uint16_t>(16, 3); }), "it is no static executable");
  EXPECT_EQ(broken([&] { put<std::uint64_t>(32, 1ULL << 60U); }),
            "its program headers lie outside the file");
  EXPECT_EQ(broken([&] { segment(0, 5, 176, 0x1000, 5000, 5000); }),
            "a segment lies outside the file: it is truncated");
  EXPECT_EQ(broken([&] { segment(0, 5, 176, 0x1000, 100, 50); }),
            "a segment is larger in the file than in memory");
  EXPECT_EQ(broken([&] { segment(1, 6, 176, ~0ULL - 10, 10, 100); }),
            "a segment wraps around the end of memory");
  EXPECT_EQ(broken([&] { segment(1, 6, 200, 0x1020, 10, 10); }), "two segments overlap");
  EXPECT_EQ(broken([&] { put<std::uint64_t>(24, 0x2000); }),
            "its entry point is in no executable segment");
}

TEST_F(Elf, NoiseIsRefusedWithoutLookingOutside) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 50'000; ++i) {
    SetUp();
    for (int flips = 0; flips < 4; ++flips)
      file[random() % file.size()] = static_cast<unsigned char>(random());
    std::vector<unsigned char> exact(
        file.begin(), file.begin() + static_cast<std::ptrdiff_t>(random() % (file.size() + 1)));
    ElfImage image(exact.data(), exact.size());
    if (image.problem() != nullptr) continue;
    for (unsigned s = 0; s < image.segments(); ++s)
      ASSERT_LE(image.segment(s).offset + image.segment(s).file_size, exact.size());
  }
}

TEST(InterruptCommand, PutsTheDestinationWhereEachControllerLooksForIt) {
  EXPECT_EQ(hobbes_interrupt_command(0, 3, 0x4f0), 0x03000000000004f0ULL);
  EXPECT_EQ(hobbes_interrupt_command(1, 3, 0x4f0), 0x00000003000004f0ULL);
  EXPECT_EQ(hobbes_interrupt_command(1, 0x12345678, 0xf0), 0x12345678000000f0ULL);
}

TEST(KittenAbi, TheStatusPageIsOnePageAndTheBootParametersEndBeforeTheConsole) {
  EXPECT_LE(sizeof(hobbes_status), 4096U);
  EXPECT_LE(HOBBES_BOOT_OFFSET + sizeof(hobbes_boot), HOBBES_CONSOLE_OFFSET);
  EXPECT_LE(HOBBES_REPLY_OFFSET + HOBBES_RING_BYTES, HOBBES_IMAGE_OFFSET);
}

}  // namespace
}  // namespace kitten
