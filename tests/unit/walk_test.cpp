// The module's walk through a co-kernel's page tables, compiled for the host, against the tables
// that the co-kernel's own code makes.
extern "C" {
#include "kmod/walk.h"
}

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "bundles/kitten/kernel/paging.h"

namespace kitten {
namespace {

constexpr std::uint64_t page = 4096, block = 0x200000;

// An enclave of 64 MiB at 4 GiB, of which only the tables have content.
class Enclave final : public TableMemory {
 public:
  static constexpr std::uint64_t begin = 1ULL << 32U, size = 64ULL << 20U;
  std::uint64_t take() override {
    std::uint64_t out = begin + size - page * ++used_;
    tables_[out].resize(512);
    return out;
  }
  void give(std::uint64_t address) override { tables_.erase(address); }
  [[nodiscard]] const std::uint64_t* table(std::uint64_t address) const override {
    return tables_.at(address).data();
  }
  void store(std::uint64_t table, unsigned index, std::uint64_t entry) override {
    tables_.at(table).at(index) = entry;
  }
  static const void* memory(void* self, std::uint64_t address) {
    static const std::uint64_t empty[512] = {};
    auto& enclave = *static_cast<Enclave*>(self);
    ++enclave.looks;
    if (address < begin || address > begin + size - page || address % page != 0) return nullptr;
    auto found = enclave.tables_.find(address);
    return found == enclave.tables_.end() ? empty : found->second.data();
  }
  unsigned looks = 0;

 private:
  std::uint64_t used_ = 0;
  std::map<std::uint64_t, std::vector<std::uint64_t>> tables_;
};

struct Walk : ::testing::Test {
  Enclave enclave;
  PageTables tables{enclave, false};
  std::uint64_t physical = 0;
  bool writable = false;
  void SetUp() override { ASSERT_TRUE(tables.create()); }
  walk_result walk(std::uint64_t address, bool write) {
    return walk_tables(Enclave::memory, &enclave, tables.root(), address, write, &physical,
                       &writable);
  }
};

TEST_F(Walk, FindsWhatTheKernelHasMappedForAProgramWithItsRights) {
  ASSERT_TRUE(tables.map(0x400000, Enclave::begin, block, {false, true, false, true}));
  ASSERT_TRUE(
      tables.map(0x7dfffff00000, Enclave::begin + block, 3 * page, {true, false, false, true}));
  EXPECT_EQ(walk(0x400000 + 5 * page + 123, false), WALK_FOUND);
  EXPECT_EQ(physical, Enclave::begin + 5 * page);
  EXPECT_FALSE(writable);
  EXPECT_EQ(walk(0x400000, true), WALK_FORBIDDEN);
  EXPECT_EQ(walk(0x7dfffff02fff, true), WALK_FOUND);
  EXPECT_EQ(physical, Enclave::begin + block + 2 * page);
  EXPECT_TRUE(writable);
  EXPECT_EQ(walk(0x7dfffff03000, false), WALK_NOTHING);
  EXPECT_EQ(walk(0x10000, false), WALK_NOTHING);
}

TEST_F(Walk, WhatAProgramMayNotTouchIsForbidden) {
  ASSERT_TRUE(tables.map(0x400000, Enclave::begin, page, {true, false, false, false}));
  EXPECT_EQ(walk(0x400000, false), WALK_FORBIDDEN);
  ASSERT_TRUE(tables.retire(0x400000, page));
  EXPECT_EQ(walk(0x400000, false), WALK_NOTHING);
}

TEST_F(Walk, PagesAndTablesOutsideOfTheEnclaveAreCorrupt) {
  ASSERT_TRUE(tables.map(0x400000, 0x100000, page, {true, false, false, true}));
  EXPECT_EQ(walk(0x400000, false), WALK_CORRUPT) << "Linux's memory";
  ASSERT_TRUE(tables.map(0x600000, Enclave::begin + Enclave::size - page, 2 * page,
                         {true, false, false, true}));
  EXPECT_EQ(walk(0x600000, false), WALK_FOUND);
  EXPECT_EQ(walk(0x601000, false), WALK_CORRUPT) << "behind the enclave's end";
  enclave.store(tables.root(), 1, 0x2000 | 7);
  EXPECT_EQ(walk(1ULL << 39U, false), WALK_CORRUPT) << "a table of Linux's";
  enclave.store(tables.root(), 2, Enclave::begin | 0x87);
  EXPECT_EQ(walk(2ULL << 39U, false), WALK_CORRUPT) << "a large page of 512 GiB";
}

TEST_F(Walk, TablesThatLeadInCirclesEndAfterFourLevels) {
  for (unsigned i = 0; i < 512; ++i) enclave.store(tables.root(), i, tables.root() | 7);
  enclave.looks = 0;
  EXPECT_EQ(walk(0x123456789000, true), WALK_FOUND) << "its own root, as a page";
  EXPECT_EQ(physical, tables.root());
  EXPECT_LE(enclave.looks, 5U);
}

// Whatever a kernel writes: what is found lies in its own memory.
TEST_F(Walk, NoEntryLeadsOutOfTheEnclave) {
  std::mt19937_64 random(20261126);
  std::vector<std::uint64_t> made = {tables.root()};
  for (int i = 0; i < 6; ++i) made.push_back(enclave.take());
  unsigned found = 0;
  for (int step = 0; step < 50'000; ++step) {
    std::uint64_t entry = random();
    if (step % 2 == 0) entry = made[random() % made.size()] | (random() & 0x8000000000000fff);
    if (step % 7 == 0) entry = (Enclave::begin + random() % Enclave::size) | (entry & 0xfff);
    enclave.store(made[random() % made.size()], static_cast<unsigned>(random() % 4), entry);
    std::uint64_t address = 0;
    for (unsigned shift : {39U, 30U, 21U, 12U}) address |= (random() % 4) << shift;
    if (walk(address, random() % 2 == 0) != WALK_FOUND) continue;
    ++found;
    ASSERT_EQ(physical % page, 0U);
    ASSERT_GE(physical, Enclave::begin);
    ASSERT_LE(physical, Enclave::begin + Enclave::size - page);
  }
  EXPECT_GT(found, 100U);
}

}  // namespace
}  // namespace kitten
