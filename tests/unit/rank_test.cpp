// Ranks of a composition and the CPUs that they are bound to.
#include "remora/rank.h"

#include <gtest/gtest.h>

namespace hobbes {
namespace {

class RankTest : public ::testing::Test {
 protected:
  void add(const std::string& name, std::size_t enclave, unsigned ranks,
           const std::string& cores = "") {
    CompositionApp app;
    app.name = name;
    app.enclave = enclave;
    app.ranks = ranks;
    app.cores = CpuSet::parse(cores).value_or(CpuSet());
    app.first_rank = next;
    next += ranks;
    composition.apps.push_back(app);
  }
  void enclave(const std::string& name, const std::string& cpus) {
    composition.enclaves.push_back({});
    composition.enclaves.back().name = name;
    places.emplace_back();
    places.back().cpus = CpuSet::parse(cpus).value_or(CpuSet());
    places.back().needed = true;
  }
  std::vector<std::string> bindings() {
    const std::vector<Rank> ranks = ranks_of(composition, places);
    std::vector<std::string> out;
    for (const Rank& rank : ranks)
      out.push_back(binding_of(rank, ranks, composition, places).text());
    return out;
  }
  Composition composition;
  std::vector<Stage::Place> places;
  unsigned next = 0;
};

using Texts = std::vector<std::string>;

TEST_F(RankTest, AreNumberedByAppAndNamedWithTheirEnclave) {
  enclave("sim", "1-4");
  enclave("tool", "");
  add("melt", 0, 2);
  add("look", 1, 1);
  const std::vector<Rank> ranks = ranks_of(composition, places);
  ASSERT_EQ(ranks.size(), 3U);
  EXPECT_EQ(ranks[2].global, 2U);
  EXPECT_EQ(ranks[2].app_rank, 0U);
  EXPECT_EQ(ranks[1].name(), "melt:1");
  EXPECT_EQ(ranks[1].full_name(), "rank 1 of app \"melt\" in enclave \"sim\" (pid 0)");
}

TEST_F(RankTest, ShareTheirEnclavesCpusEvenly) {
  enclave("sim", "2-5");
  enclave("free", "");
  add("melt", 0, 2);
  add("look", 1, 1);
  EXPECT_EQ(bindings(), (Texts{"2-3", "4-5", ""}));
}

TEST_F(RankTest, TakeTurnsOnTooFewCpus) {
  enclave("sim", "2,7");
  add("melt", 0, 3);
  EXPECT_EQ(bindings(), (Texts{"2", "7", "2"}));
  EXPECT_TRUE(crowd_of(0, composition, places).takes_turns());
}

TEST_F(RankTest, AreBoundToTheCoresThatTheirAppNames) {
  enclave("sim", "4-9");
  add("melt", 0, 2, "0-3");
  add("look", 0, 1, "5");
  add("lost", 0, 1, "40");  // the enclave has no such core
  EXPECT_EQ(bindings(), (Texts{"4-5", "6-7", "9", "4-9"}));
}

}  // namespace
}  // namespace hobbes
