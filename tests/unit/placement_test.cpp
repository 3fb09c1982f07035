#include "partition/placement.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "topology/discover.h"

namespace hobbes {
namespace {

Inventory machine(const std::string& description) {
  auto inventory = discover("synthetic:" + description);
  EXPECT_TRUE(inventory) << inventory.error().text();
  return *inventory;
}

const char* const one_socket = "pack:1 [numa(memory=16GB)] l3:1 core:8 pu:1";
const char* const two_by_64_smt = "pack:2 [numa(memory=64GB)] l3:8 core:8 pu:2";
const char* const eight_nodes = "pack:8 [numa(memory=8GB)] l3:1 core:4 pu:1";
const char* const with_memory_only_node =
    "pack:1 [numa(memory=16GB)] [numa(memory=4GB)] core:4 pu:1";

CoreRequest cores(unsigned count, Policy policy = Policy::compact) {
  CoreRequest request;
  request.count = count;
  request.policy = policy;
  return request;
}

TEST(Placement, SyntheticMachinesAreSeenAsDescribed) {
  EXPECT_EQ(machine(one_socket).cores.size(), 8U);
  Inventory big = machine(two_by_64_smt);
  EXPECT_EQ(big.cores.size(), 128U);
  EXPECT_EQ(big.cores[0].threads.count(), 2U);
  EXPECT_EQ(big.packages, 2U);
  EXPECT_EQ(machine(eight_nodes).nodes.size(), 8U);
  Inventory odd = machine(with_memory_only_node);
  ASSERT_EQ(odd.nodes.size(), 2U);
  EXPECT_TRUE(odd.nodes[1].cpus.empty());
}

TEST(Placement, WholeCoresAreGivenWithAllTheirThreads) {
  auto placement = place(machine(two_by_64_smt), {}, {}, cores(3), {});
  ASSERT_TRUE(placement);
  EXPECT_EQ(placement->cpus.count(), 6U);
}

TEST(Placement, CompactStaysOnOneCacheAndSpreadUsesEveryNode) {
  Inventory inventory = machine(two_by_64_smt);
  auto caches_of = [&](const CpuSet& cpus) {
    std::set<unsigned> caches;
    for (unsigned cpu : cpus.members()) caches.insert(inventory.core_of(cpu)->l3);
    return caches.size();
  };
  auto compact = place(inventory, {}, {}, cores(8), {});
  ASSERT_TRUE(compact);
  EXPECT_EQ(caches_of(compact->cpus), 1U);
  EXPECT_EQ(compact->cpu_nodes.count(), 1U);
  auto spread = place(inventory, {}, {}, cores(8, Policy::spread), {});
  ASSERT_TRUE(spread);
  EXPECT_EQ(spread->cpu_nodes.count(), 2U);
  EXPECT_EQ(caches_of(spread->cpus), 8U);
}

TEST(Placement, LocalNeedsOneNodeForEverything) {
  Inventory inventory = machine(eight_nodes);
  MemoryRequest memory;
  memory.size = 4ULL << 30U;
  auto placed = place(inventory, {}, {}, cores(4, Policy::local), memory);
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->cpu_nodes.count(), 1U);
  EXPECT_EQ(placed->nodes(), placed->cpu_nodes);
  EXPECT_EQ(place(inventory, {}, {}, cores(5, Policy::local), {}).error().code, Code::exhausted);
  memory.size = 10ULL << 30U;
  EXPECT_EQ(place(inventory, {}, {}, cores(2, Policy::local), memory).error().code,
            Code::exhausted);
  EXPECT_TRUE(place(inventory, {}, {}, cores(2), memory))
      << "another policy may take memory of two nodes";
}

TEST(Placement, MemoryOfAMemoryOnlyNodeCanBeAskedFor) {
  MemoryRequest memory;
  memory.size = 1ULL << 30U;
  memory.numa = 1;
  auto placed = place(machine(with_memory_only_node), {}, {}, cores(1), memory);
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->memory.at(1), 1ULL << 30U);
}

TEST(Placement, ARefusalSaysWhatIsFreeAndWhoHoldsTheRest) {
  Inventory inventory = machine(one_socket);
  std::vector<Lease> leases = {
      {"climate", *CpuSet::parse("0-5"), false, false, {{0, 8ULL << 30U}}}};
  Limits limits;
  limits.reserved = CpuSet{7};
  auto refused = place(inventory, leases, limits, cores(2), {});
  ASSERT_FALSE(refused);
  std::string text = refused.error().text();
  EXPECT_NE(text.find("'climate' holds 0-5"), std::string::npos) << text;
  EXPECT_NE(text.find("host keeps 7"), std::string::npos) << text;
  EXPECT_NE(text.find("CPUs 6"), std::string::npos) << text;
  MemoryRequest memory;
  memory.size = 12ULL << 30U;
  EXPECT_NE(place(inventory, leases, {}, {}, memory).error().text().find("'climate' holds 8 GiB"),
            std::string::npos);
}

TEST(Placement, SharedCoresOverlapOnlyWhereBothSaySo) {
  Inventory inventory = machine(one_socket);
  std::vector<Lease> leases = {{"a", *CpuSet::parse("0-7"), true, false, {}}};
  CoreRequest request = cores(2);
  EXPECT_FALSE(place(inventory, leases, {}, request, {}));
  request.shared = true;
  EXPECT_TRUE(place(inventory, leases, {}, request, {}));
  leases[0].shared = false;
  EXPECT_FALSE(place(inventory, leases, {}, request, {}));
}

TEST(Placement, ABatchJobsCpusetIsTheLimit) {
  Limits limits;
  limits.permitted = *CpuSet::parse("4-5");
  auto placed = place(machine(one_socket), {}, limits, cores(2), {});
  ASSERT_TRUE(placed);
  EXPECT_EQ(placed->cpus.text(), "4-5");
  EXPECT_FALSE(place(machine(one_socket), {}, limits, cores(3), {}));
}

TEST(Placement, ExplicitListsAreTakenAsTheyAreOrRefused) {
  Inventory inventory = machine(one_socket);
  CoreRequest request;
  request.list = *CpuSet::parse("2,5");
  EXPECT_EQ(place(inventory, {}, {}, request, {})->cpus.text(), "2,5");
  request.list = *CpuSet::parse("2,9");
  EXPECT_EQ(place(inventory, {}, {}, request, {}).error().code, Code::invalid);
  EXPECT_EQ(place(inventory, {{"x", CpuSet{5}, false, false, {}}}, {},
                  [] {
                    CoreRequest r;
                    r.list = CpuSet{5};
                    return r;
                  }(),
                  {})
                .error()
                .code,
            Code::exhausted);
}

TEST(Placement, RandomRequestsNeverOverlapAndNeverExceedAnything) {
  std::mt19937 random(1);
  for (const char* description : {one_socket, two_by_64_smt, eight_nodes, with_memory_only_node}) {
    Inventory inventory = machine(description);
    std::vector<Lease> leases;
    Limits limits;
    limits.reserved = CpuSet{0};
    for (int round = 0; round < 400; ++round) {
      if (!leases.empty() && random() % 3 == 0) {
        leases.erase(leases.begin() + static_cast<long>(random() % leases.size()));
        continue;
      }
      MemoryRequest memory;
      memory.size = (random() % 64) << 26U;
      auto placed =
          place(inventory, leases, limits,
                cores(static_cast<unsigned>(1 + random() % 6), static_cast<Policy>(random() % 3)),
                memory);
      if (!placed) continue;
      EXPECT_TRUE((placed->cpus & limits.reserved).empty());
      for (const Lease& other : leases) EXPECT_TRUE((other.cpus & placed->cpus).empty());
      leases.push_back({"r" + std::to_string(round), placed->cpus, false, false, placed->memory});
      for (const NumaNode& node : inventory.nodes) {
        std::uint64_t sum = 0;
        for (const Lease& lease : leases)
          if (lease.memory.count(node.id) != 0) sum += lease.memory.at(node.id);
        EXPECT_LE(sum, node.memory);
      }
    }
  }
}

// Kinds with a kernel of their own take memory that Linux has given up or can give up; the others
// only what Linux has.
TEST(Placement, DetachedMemoryComesFromWhatLinuxCanGiveUp) {
  Inventory inventory = machine(one_socket);
  NumaNode& node = inventory.nodes.front();
  std::uint64_t usable = node.memory - node.memory / 100 * Limits().host_memory_percent;
  EXPECT_EQ(free_memory(node, {}, {}, true), 0U) << "nothing of it is removable";
  node.detached = 1ULL << 30U;
  node.removable = 2ULL << 30U;
  EXPECT_EQ(free_memory(node, {}, {}), usable);
  EXPECT_EQ(free_memory(node, {}, {}, true), 3ULL << 30U);
  std::vector<Lease> leases = {{"kernel", CpuSet{1}, false, true, {{node.id, 1536ULL << 20U}}}};
  EXPECT_EQ(free_memory(node, leases, {}, true), 1536ULL << 20U);
  Limits kept_from_linux;
  kept_from_linux.set_aside = {{node.id, 256ULL << 20U}, {node.id + 1, 1ULL << 40U}};
  EXPECT_EQ(free_memory(node, leases, kept_from_linux, true), 1792ULL << 20U);
  EXPECT_EQ(free_memory(node, leases, {}), usable - (512ULL << 20U))
      << "half a GiB of it was Linux's";
  leases.push_back({"linux", CpuSet{2}, false, false, {{node.id, usable - (512ULL << 20U)}}});
  EXPECT_EQ(free_memory(node, leases, {}, true), 0U);
  EXPECT_EQ(free_memory(node, leases, {}), 0U);
}

}  // namespace
}  // namespace hobbes
