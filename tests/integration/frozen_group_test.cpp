// A control group that somebody has frozen would hold whatever enters it before it can say so.
#include "partition/cgroup.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

TEST(FrozenGroup, TakesNoEnclaveUntilItIsThawed) {
  Node node;
  auto layout = CgroupLayout::detect();
  ASSERT_TRUE(layout);
  std::string path = "/frozen-" + std::to_string(::getpid());
  Cgroup group(*layout, path);
  ASSERT_TRUE(group.create());
  ASSERT_TRUE(group.freeze(true));
  std::string bundle = node.bundle(
      "b", "echo ran", {{"hobbes", {{"cores", nullptr}}}, {"linux", {{"cgroupsPath", path}}}});
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"}, 20);
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("frozen"), std::string::npos) << outcome.err;
  EXPECT_TRUE(node.enclave("a").empty());
  ASSERT_TRUE(group.create());
  ASSERT_TRUE(group.freeze(false));
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "b"}), "ran\n");
  (void)group.remove();
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
