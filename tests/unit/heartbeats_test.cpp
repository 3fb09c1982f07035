#include "hobbesd/heartbeats.h"

#include "unit/manager_part.h"

namespace hobbes::test {
namespace {

constexpr std::uint64_t second = 1'000'000'000;

class HeartbeatsTest : public ManagerPart {
 protected:
  // One that has promised a sign of life every ten seconds.
  hobbes_record promising(const std::string& name, std::uint64_t last) const {
    hobbes_record record = enclave(name, "0");
    record.body.enclave.heartbeat_ns = last;
    commit(record);
    commit(enclave_document_name(record.id), {{"heartbeat", 10}});
    return record;
  }
};

TEST_F(HeartbeatsTest, AnEnclaveThatIsSilentForLongerThanPromisedIsNamed) {
  Heartbeats heartbeats(*nis);
  promising("late", 95 * second);
  promising("lively", 106 * second);
  enclave("never-promised", "1");
  std::vector<hobbes_record> silent;
  for (std::uint64_t now = 100; now <= 112; ++now) silent = heartbeats.silent(now * second);
  ASSERT_EQ(silent.size(), 1U);
  EXPECT_STREQ(silent[0].name, "late");
}

TEST_F(HeartbeatsTest, AManagerThatDidNotListenAccusesNobodyAtOnce) {
  Heartbeats heartbeats(*nis);
  promising("a", 1 * second);
  EXPECT_TRUE(heartbeats.silent(100 * second).empty()) << "just started";
  for (std::uint64_t now = 101; now <= 110; ++now)
    EXPECT_TRUE(heartbeats.silent(now * second).empty()) << now;
  EXPECT_EQ(heartbeats.silent(111 * second).size(), 1U);
  EXPECT_TRUE(heartbeats.silent(200 * second).empty()) << "the node was suspended";
}

TEST_F(HeartbeatsTest, WhatDoesNotRunOwesNothing) {
  Heartbeats heartbeats(*nis);
  hobbes_record record = promising("paused", 1 * second);
  record.state = HOBBES_PAUSED;
  commit(record);
  for (std::uint64_t now = 100; now <= 130; ++now)
    EXPECT_TRUE(heartbeats.silent(now * second).empty());
}

}  // namespace
}  // namespace hobbes::test
