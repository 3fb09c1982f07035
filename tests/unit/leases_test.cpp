#include "hobbesd/leases.h"

#include "topology/discover.h"
#include "unit/manager_part.h"

namespace hobbes::test {
namespace {

class LeasesTest : public ManagerPart {
 protected:
  LeasesTest() {
    auto found = discover("synthetic:pack:1 [numa(memory=16GB)] l3:1 core:4 pu:1");
    EXPECT_TRUE(found);
    inventory = *found;
    for (const Core& core : inventory.cores) {
      hobbes_record record = nis->make(HOBBES_CORE, 0, "core" + std::to_string(core.id));
      record.state = HOBBES_CORE_FREE;
      set_cpus(record.body.core.cpus, core.threads);
      commit(record);
    }
  }
  static Json cores(unsigned count) { return {{"kind", "linux"}, {"cores", {{"count", count}}}}; }
  const hobbes_record* core(unsigned number) const {
    return nis->by_name(HOBBES_CORE, 0, "core" + std::to_string(number));
  }
  Inventory inventory;
  Policies policies;
};

TEST_F(LeasesTest, WhatIsAskedForGoesBesideWhatIsHeld) {
  Leases leases(*nis, inventory, policies);
  enclave("a", "0-1");
  auto placement = leases.placement_for(session(0), cores(2), 0, {});
  ASSERT_TRUE(placement);
  EXPECT_EQ(placement->cpus.text(), "2-3");
  EXPECT_EQ(leases.free().text(), "2-3");
  EXPECT_EQ(leases.placement_for(session(0), cores(3), 0, {}).error().code, Code::exhausted);
}

TEST_F(LeasesTest, AnEnclaveThatHasEndedHoldsNothing) {
  Leases leases(*nis, inventory, policies);
  hobbes_record record = enclave("a", "0-3");
  EXPECT_EQ(leases.free().text(), "");
  record.state = HOBBES_CRASHED;
  commit(record);
  EXPECT_EQ(leases.free().text(), "0-3");
}

TEST_F(LeasesTest, PlansOfOneRequestLeaveRoomForEachOther) {
  Leases leases(*nis, inventory, policies);
  Json one = cores(2), two = cores(2), three = cores(1);
  one["id"] = "one", two["id"] = "two", three["id"] = "three";
  auto both = leases.plan(session(0), {{"plans", {one, two}}});
  ASSERT_TRUE(both) << both.error().text();
  EXPECT_EQ(both->body["placements"][0]["cpus"], "0-1");
  EXPECT_EQ(both->body["placements"][1]["cpus"], "2-3");
  auto all = leases.plan(session(0), {{"plans", {one, two, three}}});
  ASSERT_FALSE(all);
  EXPECT_NE(all.error().text().find("plan enclave 'three' beside 2 others"), std::string::npos)
      << all.error().text();
}

TEST_F(LeasesTest, AUsersQuotaCountsWhatHeHoldsAndWhatIsPlanned) {
  policies.users[7].cores = 2;
  Leases leases(*nis, inventory, policies);
  EXPECT_TRUE(leases.placement_for(session(7), cores(2), 0, {}));
  enclave("of-seven", "0", 7);
  EXPECT_TRUE(leases.placement_for(session(7), cores(1), 0, {}));
  EXPECT_EQ(leases.placement_for(session(7), cores(2), 0, {}).error().code, Code::exhausted);
  EXPECT_TRUE(leases.placement_for(session(8), cores(2), 0, {})) << "another user's";
  const Lease planned{"planned", *CpuSet::parse("1"), false, false, {}};
  EXPECT_EQ(leases.placement_for(session(7), cores(1), 0, {planned}).error().code, Code::exhausted);
}

TEST_F(LeasesTest, AResizeKeepsTheCoresThatItCan) {
  Leases leases(*nis, inventory, policies);
  hobbes_record record = enclave("a", "1-2");
  enclave("b", "0");
  auto fewer = leases.resized(session(0), record, {{"cores", {{"count", 1}}}});
  ASSERT_TRUE(fewer);
  EXPECT_EQ(fewer->cpus.text(), "1");
  auto more = leases.resized(session(0), record, {{"cores", {{"count", 3}}}});
  ASSERT_TRUE(more);
  EXPECT_EQ(more->cpus.text(), "1-3");
  auto same = leases.resized(session(0), record, {{"memory", {{"size", 1 << 20}}}});
  ASSERT_TRUE(same);
  EXPECT_EQ(same->cpus.text(), "1-2") << "what is not mentioned stays";
  EXPECT_FALSE(leases.resized(session(0), record, {{"cores", {{"count", 4}}}}));
}

TEST_F(LeasesTest, RecordsOfCoresFollowTheLease) {
  Leases leases(*nis, inventory, policies);
  const hobbes_record shared_a = enclave("a", "0", 0, 1), shared_b = enclave("b", "0", 0, 1);
  Transition begun;
  leases.show(begun, shared_a, true);
  ASSERT_TRUE(nis->commit(begun));
  EXPECT_EQ(core(0)->state, HOBBES_CORE_LEASED);
  EXPECT_EQ(core(0)->enclave, shared_a.id);
  EXPECT_EQ(core(1)->state, HOBBES_CORE_FREE);
  Transition ended;
  leases.show(ended, shared_a, false);
  ASSERT_TRUE(nis->commit(ended));
  EXPECT_EQ(core(0)->enclave, shared_b.id) << "another one still has it";
  EXPECT_EQ(core(0)->state, HOBBES_CORE_LEASED);
}

TEST_F(LeasesTest, ABatchJobsCallerStaysInItsCpuset) {
  Leases leases(*nis, inventory, policies);
  Session confined = session(0);
  confined.allowed = *CpuSet::parse("2-3");
  auto placement = leases.placement_for(confined, cores(2), 0, {});
  ASSERT_TRUE(placement);
  EXPECT_EQ(placement->cpus.text(), "2-3");
  EXPECT_FALSE(leases.placement_for(confined, cores(3), 0, {}));
  EXPECT_EQ(leases.shared_cpus(confined).text(), "2-3");
}

}  // namespace
}  // namespace hobbes::test
