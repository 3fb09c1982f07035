// When a composition counts as deadlocked.
#include "remora/deadlock.h"

#include <gtest/gtest.h>

namespace hobbes {
namespace {

using Ranks = std::vector<DeadlockWatch::Subject>;

TEST(DeadlockWatch, RanksThatWaitInTheSameCallsForLongAreOne) {
  DeadlockWatch watch;
  const Ranks stuck = {{3, 10, 7}, {5, 12, 1}};
  for (int look = 1; look < DeadlockWatch::looks_needed; ++look)
    EXPECT_FALSE(watch.look(stuck)) << look;
  EXPECT_EQ(watch.look(stuck), 3U);
}

TEST(DeadlockWatch, WhoComputesSendsOrWaitsAnewIsNone) {
  for (const DeadlockWatch::Subject& other :
       {DeadlockWatch::Subject{3, 10, 8}, DeadlockWatch::Subject{3, 11, 7},
        DeadlockWatch::Subject{3, 10, 9}}) {
    DeadlockWatch watch;
    for (int look = 1; look < DeadlockWatch::looks_needed; ++look)
      EXPECT_FALSE(watch.look({{3, 10, 7}, {5, 12, 1}}));
    EXPECT_FALSE(watch.look({other, {5, 12, 1}}));
    EXPECT_FALSE(watch.look({{3, 10, 7}, {5, 12, 1}})) << "it begins anew";
  }
}

TEST(DeadlockWatch, NobodyIsNoDeadlock) {
  DeadlockWatch watch;
  for (int look = 0; look < 2 * DeadlockWatch::looks_needed; ++look) EXPECT_FALSE(watch.look({}));
}

}  // namespace
}  // namespace hobbes
