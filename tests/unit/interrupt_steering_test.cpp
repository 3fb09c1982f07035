#include "hobbesd/interrupt_steering.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

namespace hobbes {
namespace {

// The kernel refuses to move some.
class Interrupts : public Files {
 public:
  std::map<std::string, std::string> places;  // number -> list
  std::set<std::string> fixed;
  mutable int writes = 0;

  static std::string number_in(const std::string& path) {
    const std::size_t slash = path.find('/', 5);
    return path.rfind("/irq/", 0) == 0 ? path.substr(5, slash - 5) : "";
  }
  Result<std::string> read(const std::string& path, std::size_t limit) const override {
    if (path.rfind("/irq/", 0) != 0) return Files::system().read(path, limit);
    auto at = places.find(number_in(path));
    if (at == places.end()) return os_error("read " + path, ENOENT);
    return at->second + "\n";
  }
  Result<void> write(const std::string& path, std::string_view text) const override {
    ++writes;
    if (fixed.count(number_in(path)) != 0) return os_error("write " + path, EIO);
    const_cast<Interrupts*>(this)->places[number_in(path)] = std::string(text);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string&) const override {
    std::vector<std::string> out = {"default_smp_affinity"};
    for (const auto& [number, cpus] : places) out.push_back(number);
    return out;
  }
  bool exists(const std::string& path) const override { return Files::system().exists(path); }
  Result<void> write_within(const std::string& path, std::string_view,
                            std::chrono::milliseconds) const override {
    return os_error("write " + path, EROFS);
  }
  Result<void> make_directory(const std::string& path, mode_t) const override {
    return os_error("make " + path, EROFS);
  }
  Result<void> remove_directory(const std::string& path) const override {
    return os_error("remove " + path, EROFS);
  }
};

class InterruptSteeringTest : public ::testing::Test {
 protected:
  InterruptSteeringTest() {
    char name[] = "/tmp/hobbes-steering-XXXXXX";
    folder_ = ::mkdtemp(name);
    kernel.places = {{"1", "0-3"}, {"24", "2-3"}, {"25", "3"}, {"26", "0,3"}};
  }
  ~InterruptSteeringTest() override { std::filesystem::remove_all(folder_); }
  InterruptSteering steering() { return InterruptSteering(folder_ + "/memory", "/irq", kernel); }
  using Places = std::map<std::string, std::string>;
  Interrupts kernel;
  std::string folder_;
};

TEST_F(InterruptSteeringTest, MovesThemAndPutsThemBack) {
  InterruptSteering one = steering();
  const Places before = kernel.places;
  ASSERT_TRUE(one.keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places, (Places{{"1", "0-2"}, {"24", "2"}, {"25", "3"}, {"26", "0"}}))
      << "one that has no other CPU stays";
  const int writes = kernel.writes;
  ASSERT_TRUE(one.keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.writes, writes);
  ASSERT_TRUE(one.keep_off(CpuSet{2, 3}));
  EXPECT_EQ(kernel.places, (Places{{"1", "0-1"}, {"24", "2-3"}, {"25", "3"}, {"26", "0"}}));
  ASSERT_TRUE(one.keep_off(CpuSet{}));
  EXPECT_EQ(kernel.places, before);
  EXPECT_FALSE(Files::system().exists(folder_ + "/memory"));
}

TEST_F(InterruptSteeringTest, AnotherHobbesdPutsThemBack) {
  const Places before = kernel.places;
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places["1"], "0-2");
  ASSERT_TRUE(steering().keep_off(CpuSet{}));
  EXPECT_EQ(kernel.places, before);
}

TEST_F(InterruptSteeringTest, WhatSomebodyElseChoosesMeanwhileIsWhereItGoesBackTo) {
  InterruptSteering one = steering();
  ASSERT_TRUE(one.keep_off(CpuSet{3}));
  kernel.places["1"] = "1,3";
  ASSERT_TRUE(one.keep_off(CpuSet{0, 3}));
  EXPECT_EQ(kernel.places["1"], "1");
  ASSERT_TRUE(one.keep_off(CpuSet{}));
  EXPECT_EQ(kernel.places["1"], "1,3");
}

TEST_F(InterruptSteeringTest, ThoseThatTheKernelDoesNotMoveAreLeftAlone) {
  kernel.fixed = {"24"};
  InterruptSteering one = steering();
  ASSERT_TRUE(one.keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places["24"], "2-3");
  EXPECT_EQ(kernel.places["1"], "0-2");
  kernel.places.erase("1");  // its device has gone
  ASSERT_TRUE(one.keep_off(CpuSet{}));
  EXPECT_FALSE(Files::system().exists(folder_ + "/memory"));
}

TEST_F(InterruptSteeringTest, NoneIsMovedThatCouldNotBeRemembered) {
  const Places before = kernel.places;
  InterruptSteering one(folder_ + "/no/such/memory", "/irq", kernel);
  EXPECT_FALSE(one.keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places, before);
  for (const char* text :
       {"", "[]", "{", R"({"1": 7})", R"({"1": {"before": "x", "now": "0-3"}})"}) {
    ASSERT_TRUE(replace_file(folder_ + "/memory", text));
    (void)steering().keep_off(CpuSet{3});
    (void)steering().keep_off(CpuSet{});
  }
}

}  // namespace
}  // namespace hobbes
