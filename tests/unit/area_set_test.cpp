// The areas of a program on a co-kernel, compiled for the host.
#include "bundles/kitten/kernel/area_set.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace kitten {
namespace {

constexpr std::uint64_t page = 4096;

class CountedAreas final : public AreaPool {
 public:
  Area* take() override {
    if (taken_.size() >= limit) return nullptr;
    auto* out = new Area{};
    taken_.insert(out);
    return out;
  }
  void give(Area* area) override {
    EXPECT_EQ(taken_.erase(area), 1U) << "an area given back that is none";
    delete area;
  }
  [[nodiscard]] std::size_t count() const { return taken_.size(); }
  std::size_t limit = 100'000;

 private:
  std::set<Area*> taken_;
};

struct Areas : ::testing::Test {
  CountedAreas pool;
  AreaSet set{pool};
  void TearDown() override {
    set.clear();
    EXPECT_EQ(pool.count(), 0U);
  }
  bool add(std::uint64_t first, std::uint64_t pages, std::uint8_t protection,
           std::uint16_t shared = 0) {
    return set.add({first * page, (first + pages) * page, protection, shared, nullptr});
  }
  std::string text() const {
    std::string out;
    for (const Area* area = set.first(); area != nullptr; area = area->next)
      out += std::to_string(area->begin / page) + "-" + std::to_string(area->end / page) + ":" +
             std::to_string(area->protection) + (area->shared != 0 ? "s " : " ");
    return out;
  }
};

TEST_F(Areas, NeighboursThatAreAlikeBecomeOne) {
  EXPECT_TRUE(add(10, 2, 3) && add(14, 2, 3) && add(12, 2, 3));
  EXPECT_EQ(text(), "10-16:3 ");
  EXPECT_TRUE(add(16, 2, 1) && add(8, 2, 3, 1));
  EXPECT_EQ(text(), "8-10:3s 10-16:3 16-18:1 ");
}

TEST_F(Areas, RemovingAndProtectingSplitWhatLiesAcrossAnEnd) {
  ASSERT_TRUE(add(10, 10, 3));
  ASSERT_TRUE(set.remove(12 * page, 14 * page));
  EXPECT_EQ(text(), "10-12:3 14-20:3 ");
  ASSERT_TRUE(set.protect(15 * page, 16 * page, 1));
  EXPECT_EQ(text(), "10-12:3 14-15:3 15-16:1 16-20:3 ");
  ASSERT_TRUE(set.protect(15 * page, 16 * page, 3));
  EXPECT_EQ(text(), "10-12:3 14-20:3 ");
  EXPECT_FALSE(set.covers(11 * page, 15 * page));
  EXPECT_TRUE(set.covers(15 * page, 20 * page));
}

TEST_F(Areas, TheHighestGapThatFitsIsFound) {
  ASSERT_TRUE(add(100, 10, 3) && add(120, 10, 3));
  EXPECT_EQ(set.gap(50 * page, 130 * page, 10 * page, page), 110 * page);
  EXPECT_EQ(set.gap(50 * page, 130 * page, 11 * page, page), 89 * page);
  EXPECT_EQ(set.gap(50 * page, 200 * page, 11 * page, page), 189 * page);
  EXPECT_EQ(set.gap(50 * page, 130 * page, 60 * page, page), 0U);
  EXPECT_EQ(set.gap(50 * page, 130 * page, 10 * page, 16 * page), 80 * page);
}

TEST_F(Areas, WithoutMemoryToSplitNothingChanges) {
  ASSERT_TRUE(add(10, 10, 3));
  pool.limit = 1;
  EXPECT_FALSE(set.remove(12 * page, 14 * page));
  EXPECT_FALSE(add(30, 1, 3));
  EXPECT_EQ(text(), "10-20:3 ");
}

// A map of pages kept beside the set must always say the same.
TEST_F(Areas, RandomOperationsAgreeWithAModel) {
  std::mt19937 random(20261126);
  std::map<std::uint64_t, std::uint8_t> model;
  constexpr std::uint64_t pages = 200;
  for (int step = 0; step < 20'000; ++step) {
    std::uint64_t first = random() % pages, count = 1 + random() % 20;
    auto protection = static_cast<std::uint8_t>(random() % 4);
    bool covered = true, any = false;
    for (std::uint64_t i = first; i < first + count; ++i) {
      covered = covered && model.count(i) != 0;
      any = any || model.count(i) != 0;
    }
    ASSERT_EQ(set.covers(first * page, (first + count) * page), covered);
    switch (random() % 3) {
      case 0:
        if (any) break;
        ASSERT_TRUE(add(first, count, protection));
        for (std::uint64_t i = first; i < first + count; ++i) model[i] = protection;
        break;
      case 1:
        ASSERT_TRUE(set.remove(first * page, (first + count) * page));
        for (std::uint64_t i = first; i < first + count; ++i) model.erase(i);
        break;
      default:
        if (!covered) break;
        ASSERT_TRUE(set.protect(first * page, (first + count) * page, protection));
        for (std::uint64_t i = first; i < first + count; ++i) model[i] = protection;
    }
    std::uint64_t last_end = 0;
    for (const Area* area = set.first(); area != nullptr; area = area->next) {
      ASSERT_LT(area->begin, area->end);
      ASSERT_GE(area->begin, last_end);
      last_end = area->end;
    }
    for (std::uint64_t i = 0; i < pages + 20; ++i) {
      const Area* area = set.find(i * page + 5);
      ASSERT_EQ(area != nullptr, model.count(i) != 0) << i << " in " << text();
      if (area != nullptr) {
        ASSERT_EQ(area->protection, model[i]);
      }
    }
  }
}

}  // namespace
}  // namespace kitten
