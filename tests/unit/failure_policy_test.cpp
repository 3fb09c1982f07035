// What a composition ends for.
#include "remora/failure_policy.h"

#include <gtest/gtest.h>

namespace hobbes {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Phase = Rank::Phase;

class FailurePolicyTest : public ::testing::Test {
 protected:
  FailurePolicyTest() {
    for (unsigned i = 0; i < 3; ++i) {
      Rank rank;
      rank.app_rank = rank.global = i;
      rank.app_name = "melt";
      rank.enclave_name = "one";
      rank.stack_is_seen = false;
      rank.pid = static_cast<pid_t>(100 + i);
      rank.phase = Phase::started;
      ranks.push_back(std::move(rank));
    }
  }
  FailurePolicy policy(FailurePolicy::Limits limits) {
    return {limits, begin, [this](unsigned rank) { return counted[rank]; }};
  }
  void all_in(Phase phase) {
    for (Rank& rank : ranks) {
      rank.connected = true;
      rank.phase = phase;
      rank.since = begin;
    }
  }
  const FailurePolicy::Time begin{seconds(1000)};
  std::vector<Rank> ranks;
  remora_progress counted[3] = {};
};

TEST_F(FailurePolicyTest, TheTimeLimitNamesOneThatStillRuns) {
  auto limited = policy({seconds(5), seconds(100), seconds(100)});
  ranks[0].phase = Phase::ended;
  EXPECT_FALSE(limited.look(begin + seconds(5), ranks));
  auto failure = limited.look(begin + seconds(5) + milliseconds(1), ranks);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->status, 124);
  EXPECT_NE(failure->why.find("rank 1 of app \"melt\" in enclave \"one\" (pid 101) still runs"),
            std::string::npos)
      << failure->why;
  auto unlimited = policy({seconds(0), seconds(100), seconds(100)});
  EXPECT_FALSE(unlimited.look(begin + seconds(1'000'000), ranks));
}

TEST_F(FailurePolicyTest, ARankThatDoesNotReachMpiInitIsNamedOnce) {
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  for (unsigned i : {0U, 2U}) {
    ranks[i].connected = true;
    ranks[i].phase = Phase::in_init;
  }
  EXPECT_FALSE(watched.look(begin + seconds(100), ranks)) << "nobody has reached it yet";
  watched.note_init(begin + seconds(100));
  watched.note_init(begin + seconds(107));
  EXPECT_FALSE(watched.look(begin + seconds(108), ranks));
  auto failure = watched.look(begin + seconds(109), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("rank 1 of app"), std::string::npos) << failure->why;
  EXPECT_NE(failure->why.find("has not reached MPI_Init 8 s after the first one"),
            std::string::npos);
  EXPECT_FALSE(watched.look(begin + seconds(110), ranks));
}

TEST_F(FailurePolicyTest, ARankInMpiInitWithoutTheComponentIsNamed) {
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  all_in(Phase::running);
  ranks[2].phase = Phase::connected;
  watched.note_init(begin);
  auto failure = watched.look(begin + seconds(9), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("rank 2 of app"), std::string::npos) << failure->why;
  EXPECT_NE(failure->why.find("without the remora component"), std::string::npos);
}

TEST_F(FailurePolicyTest, AProgramOfMpiSessionsFailsOnlyThoseThatWaitInMpiInit) {
  all_in(Phase::connected);
  for (Rank& rank : ranks) rank.has_component = true;
  auto sessions = policy({seconds(0), seconds(8), seconds(60)});
  sessions.note_init(begin);
  EXPECT_FALSE(sessions.look(begin + seconds(9), ranks));
  auto mixed = policy({seconds(0), seconds(8), seconds(60)});
  ranks[1].phase = Phase::in_init;
  mixed.note_init(begin);
  auto failure = mixed.look(begin + seconds(9), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("rank 1 of app"), std::string::npos) << failure->why;
  EXPECT_NE(failure->why.find("which uses MPI sessions only"), std::string::npos);
}

TEST_F(FailurePolicyTest, ARankWithoutTheComponentIsTheCulpritAlsoBesideOneOfSessions) {
  all_in(Phase::connected);
  ranks[0].has_component = true;  // a program of sessions
  ranks[1].has_component = true;
  ranks[1].phase = Phase::in_init;
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  watched.note_init(begin);
  auto failure = watched.look(begin + seconds(9), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("rank 2 of app"), std::string::npos) << failure->why;
  EXPECT_NE(failure->why.find("without the remora component"), std::string::npos);
}

TEST_F(FailurePolicyTest, TheTimeToReachMpiInitRunsFromWhenAllHaveJoined) {
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  ranks[1].external = true;
  ranks[1].pid = 0;
  watched.note_join(begin);
  watched.note_init(begin);
  EXPECT_FALSE(watched.look(begin + seconds(50), ranks));
  ranks[1].pid = 5;
  EXPECT_FALSE(watched.look(begin + seconds(57), ranks));
  EXPECT_TRUE(watched.look(begin + seconds(59), ranks));
}

TEST_F(FailurePolicyTest, ARankThatNobodyJoinsAsIsNamedAfterThePeersTime) {
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  ranks[2].external = true;
  ranks[2].pid = 0;
  EXPECT_FALSE(watched.look(begin + seconds(1000), ranks)) << "nobody has joined yet";
  watched.note_join(begin);
  auto failure = watched.look(begin + seconds(61), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("rank 2 of app \"melt\" has not joined within 60 s"),
            std::string::npos)
      << failure->why;
}

TEST_F(FailurePolicyTest, ARankThatLeavesWithoutMpiInitFailsOnlyThoseThatWaitForIt) {
  auto watched = policy({seconds(0), seconds(8), seconds(60)});
  ranks[0].phase = Phase::ended;
  ranks[0].skipped = true;
  EXPECT_FALSE(watched.look(begin + seconds(1), ranks)) << "nobody is in MPI_Init";
  watched.note_init(begin + seconds(2));
  auto failure = watched.look(begin + seconds(2), ranks);
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->why.find("exited without MPI_Init"), std::string::npos) << failure->why;
}

TEST_F(FailurePolicyTest, WaitersForAMessageOfARankThatFinalizesAreADeadlock) {
  auto watched = policy({});
  all_in(Phase::running);
  ranks[0].phase = Phase::in_finalize;
  for (unsigned i : {1U, 2U}) counted[i] = {10, 7, {}};  // inside a wait: an odd number
  std::optional<Failure> failure;
  int looks = 0;
  for (auto now = begin + seconds(4); now < begin + seconds(30) && !failure; now += seconds(1)) {
    failure = watched.look(now, ranks);
    ++looks;
  }
  ASSERT_TRUE(failure);
  EXPECT_EQ(looks, DeadlockWatch::looks_needed);
  EXPECT_NE(failure->why.find("rank 0 of app \"melt\" in enclave \"one\" (pid 100) is in "
                              "MPI_Finalize while rank 1"),
            std::string::npos)
      << failure->why;
}

TEST_F(FailurePolicyTest, ARankThatSendsOrOneThatOnlyJustFinalizesIsNoDeadlock) {
  auto watched = policy({});
  all_in(Phase::running);
  ranks[0].phase = Phase::in_finalize;
  counted[1] = counted[2] = {10, 7, {}};
  for (auto now = begin + seconds(4); now < begin + seconds(40); now += seconds(1)) {
    ++counted[2].messages;
    EXPECT_FALSE(watched.look(now, ranks));
  }
  ranks[0].since = begin + seconds(1000);
  EXPECT_FALSE(watched.look(begin + seconds(1002), ranks));
}

}  // namespace
}  // namespace hobbes
