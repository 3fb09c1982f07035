#include "hobbesd/interrupt_steering.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <vector>

#include "unit/made_up_files.h"

namespace hobbes {
namespace {

struct Killed {};

// Four CPUs; the kernel refuses to move some interrupts, and hobbesd may be killed at a move.
class Interrupts : public MadeUpFiles {
 public:
  std::map<std::string, std::string> places;  // number -> list
  std::set<std::string> fixed, unreadable;
  bool list_fails = false;
  mutable int writes = 0;
  int killed_at = -1;  // the move
  bool killed_before = false;

  static std::string number_in(const std::string& path) {
    const std::size_t slash = path.find('/', 5);
    return path.rfind("/irq/", 0) == 0 ? path.substr(5, slash - 5) : "";
  }
  Result<std::string> read(const std::string& path, std::size_t limit) const override {
    if (path == "/sys/devices/system/cpu/online") return std::string("0-3\n");
    if (path.rfind("/irq/", 0) != 0) return Files::system().read(path, limit);
    if (unreadable.count(number_in(path)) != 0) return os_error("read " + path, EMFILE);
    auto at = places.find(number_in(path));
    if (at == places.end()) return os_error("read " + path, ENOENT);
    return at->second + "\n";
  }
  Result<void> write(const std::string& path, std::string_view text) const override {
    const int number = writes++;
    if (number == killed_at && killed_before) throw Killed{};
    if (fixed.count(number_in(path)) != 0) return os_error("write " + path, EIO);
    const_cast<Interrupts*>(this)->places[number_in(path)] = std::string(text);
    if (number == killed_at) throw Killed{};
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& path) const override {
    if (list_fails) return os_error("list " + path, EMFILE);
    std::vector<std::string> out = {"default_smp_affinity"};
    for (const auto& [number, cpus] : places) out.push_back(number);
    return out;
  }
  bool exists(const std::string& path) const override { return Files::system().exists(path); }
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

TEST_F(InterruptSteeringTest, AKillAtAnyMoveLosesNoPlace) {
  const Places before = kernel.places;
  const std::vector<CpuSet> steps = {{3}, {2, 3}, {2}, {}};
  int kills = 0;
  for (std::size_t killed_in = 0; killed_in < steps.size(); ++killed_in)
    for (int move = 0; move < 4; ++move)
      for (bool first : {true, false}) {
        kernel.places = before;
        kernel.killed_at = -1;
        for (std::size_t step = 0; step < killed_in; ++step)
          ASSERT_TRUE(steering().keep_off(steps[step]));
        kernel.writes = 0;
        kernel.killed_at = move;
        kernel.killed_before = first;
        try {
          (void)steering().keep_off(steps[killed_in]);
        } catch (const Killed&) {
          ++kills;
        }
        kernel.killed_at = -1;
        ASSERT_TRUE(steering().keep_off(CpuSet{3}));
        EXPECT_EQ(kernel.places["1"], "0-2");
        ASSERT_TRUE(steering().keep_off(CpuSet{}));
        EXPECT_EQ(kernel.places, before) << killed_in << " " << move << " " << first;
        EXPECT_FALSE(Files::system().exists(folder_ + "/memory"));
      }
  EXPECT_GT(kills, 15);
}

TEST_F(InterruptSteeringTest, OneThatCannotBeMovedForAWhileIsNotForgotten) {
  const Places before = kernel.places;
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  kernel.fixed = {"1"};
  ASSERT_TRUE(steering().keep_off(CpuSet{2, 3}));
  EXPECT_EQ(kernel.places["1"], "0-2");
  ASSERT_TRUE(steering().keep_off(CpuSet{}));
  EXPECT_EQ(kernel.places["1"], "0-2") << "it cannot be put back either";
  kernel.fixed = {};
  kernel.unreadable = {"1"};
  ASSERT_TRUE(steering().keep_off(CpuSet{}));
  kernel.unreadable = {};
  kernel.list_fails = true;
  EXPECT_FALSE(steering().keep_off(CpuSet{}));
  kernel.list_fails = false;
  ASSERT_TRUE(steering().keep_off(CpuSet{}));
  EXPECT_EQ(kernel.places, before);
}

TEST_F(InterruptSteeringTest, OneThatIsNewIsMovedWhenItIsLookedAgain) {
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  kernel.places["30"] = "0-3";
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places["30"], "0-2");
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
}

TEST_F(InterruptSteeringTest, AMemoryThatCannotBeReadIsPutAside) {
  ASSERT_TRUE(replace_file(folder_ + "/memory", "{"));
  EXPECT_EQ(steering().keep_off(CpuSet{3}).error().code, Code::corrupt);
  EXPECT_TRUE(Files::system().exists(folder_ + "/memory.unreadable"));
  ASSERT_TRUE(steering().keep_off(CpuSet{3}));
  EXPECT_EQ(kernel.places["1"], "0-2");
  for (const char* text :
       {"[]", "7", R"({"1": 7})", R"({"1": {"home": "x", "now": "0-2", "next": ""}})"}) {
    kernel.places["1"] = "0-3";
    ASSERT_TRUE(replace_file(folder_ + "/memory", text));
    EXPECT_TRUE(steering().keep_off(CpuSet{3})) << text;
    EXPECT_EQ(kernel.places["1"], "0-2") << text;
  }
}

}  // namespace
}  // namespace hobbes
