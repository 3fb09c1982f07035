// The description of a step is hostile until it is checked, and boxes are copied as they overlap.
#include <gtest/gtest.h>

#include <random>

#include "adios2/box.h"
#include "adios2/format.h"

namespace hobbes::adios {
namespace {

Step example() {
  Step out;
  out.number = 7;
  Variable field{"field", "double", Shape::global_array, {4, 4}, -1, false, {}};
  field.blocks.push_back({0, {0, 0}, {2, 4}, {5, 0, 64}});
  field.blocks.push_back({1, {2, 0}, {2, 4}, {6, 64, 64}});
  out.variables.push_back(field);
  out.attributes.push_back({"unit", "string", true, {"K"}});
  return out;
}

TEST(Adios2Format, AStepIsReadAsItWasWritten) {
  const std::string bytes = encode(example());
  const Step read = decode(bytes.data(), bytes.size());
  EXPECT_EQ(encode(read), bytes);
  EXPECT_NO_THROW(check_complete(read));
  ASSERT_EQ(read.variables.size(), 1U);
  EXPECT_EQ(read.variables[0].blocks[1].data.offset, 64U);
}

TEST(Adios2Format, CutAndChangedDescriptionsAreRefusedOrHarmless) {
  const std::string bytes = encode(example());
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW((void)decode(bytes.data(), size), std::runtime_error) << size;
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    std::string changed = bytes;
    for (auto n = 1 + random() % 3; n > 0; --n)
      changed[random() % changed.size()] = static_cast<char>(random());
    try {
      check_complete(decode(changed.data(), changed.size()));
    } catch (const std::runtime_error&) {
      continue;
    }
  }
}

TEST(Adios2Format, WhatReadersRelyOnIsChecked) {
  auto refused = [](const std::function<void(Step&)>& change) {
    Step step = example();
    change(step);
    EXPECT_THROW(check_complete(step), std::runtime_error);
  };
  refused([](Step& s) { s.variables.push_back(s.variables[0]); });
  refused([](Step& s) { s.variables[0].blocks.clear(); });
  refused([](Step& s) { s.variables[0].blocks[1].start.clear(); });
  refused([](Step& s) { s.variables[0].blocks[1].count.push_back(1); });
  EXPECT_THROW((void)bytes_of({std::uint64_t{1} << 61U}, 8), std::overflow_error);
  EXPECT_EQ(bytes_of({}, 8), 8U);
  EXPECT_EQ(bytes_of({3, 0}, 8), 0U);
}

// Against the plain way: element by element.
TEST(Adios2Box, WhatTwoBoxesHaveInCommonIsCopied) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    const std::size_t rank = 1 + random() % 4;
    Box source, target;
    for (std::size_t i = 0; i < rank; ++i) {
      source.start.push_back(random() % 4);
      source.count.push_back(random() % 5);
      target.start.push_back(random() % 4);
      target.count.push_back(1 + random() % 4);
    }
    std::vector<int> from(bytes_of(source.count, 1)), to(bytes_of(target.count, 1), -1);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<int>(i);
    std::vector<int> wanted = to;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      std::uint64_t rest = i, at = 0, stride = 1;
      bool inside = true;
      for (std::size_t d = rank; d-- > 0;) {
        const std::uint64_t position = target.start[d] + rest % target.count[d];
        rest /= target.count[d];
        inside =
            inside && position >= source.start[d] && position < source.start[d] + source.count[d];
        at += (position - source.start[d]) * stride;
        stride *= source.count[d];
      }
      if (inside) wanted[i] = from[at];
    }
    copy_common(source, reinterpret_cast<const char*>(from.data()), target,
                reinterpret_cast<char*>(to.data()), sizeof(int));
    ASSERT_EQ(to, wanted) << "round " << round;
  }
}

TEST(Adios2Box, AMemorySelectionIsRefusedWhereItDoesNotFit) {
  std::vector<int> memory(16), dense(4);
  char *a = reinterpret_cast<char*>(memory.data()), *b = reinterpret_cast<char*>(dense.data());
  for (int i = 0; i < 16; ++i) memory[static_cast<std::size_t>(i)] = i;
  copy_embedded({2, 2}, {1, 1}, {4, 4}, a, b, sizeof(int), true);
  EXPECT_EQ(dense, (std::vector<int>{5, 6, 9, 10}));
  EXPECT_THROW(copy_embedded({2, 2}, {3, 1}, {4, 4}, a, b, sizeof(int), true),
               std::invalid_argument);
  EXPECT_THROW(copy_embedded({2, 2}, {1}, {4, 4}, a, b, sizeof(int), true), std::invalid_argument);
}

}  // namespace
}  // namespace hobbes::adios
