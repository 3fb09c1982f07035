#include "remora/composition.h"

#include <gtest/gtest.h>

namespace hobbes {
namespace {

CompositionCheck check(const std::string& text) {
  return check_composition(text, "test", "/folder");
}

const std::string siblings = R"(<composition mpiComm="universe">
  <enclave name="sim" bundle="s" mpiComm="sims"><app name="a" path="/bin/a" ranks="3"/></enclave>
  <enclave name="ana" bundle="b"><app name="b" path="bin/b" ranks="2" argv="x y"><arg>z w</arg>
        <env name="K" value="V"/><mpiComm name="sims"/></app></enclave>
</composition>)";

const std::string printed_poster =
    "<composition mpiComm=\"universe\">\n  <enclave name=\"tool\" mpiComm=\"tool\">\n    <app>\n   "
    "   <mpiComm>\n    </app>\n  "
    "</enclave>\n</composition>\n";

TEST(Composition, SiblingsShareTheUniverseAndJoinSpacesByName) {
  auto result = check(siblings);
  ASSERT_TRUE(result.problems.empty()) << report("x", result.problems);
  const Composition& c = result.composition;
  EXPECT_EQ(c.ranks(), 5U);
  EXPECT_EQ(c.members("universe").size(), 5U);
  EXPECT_EQ(c.members("sims").size(), 5U) << "b joined it by name";
  EXPECT_EQ(c.apps[1].first_rank, 3U);
  EXPECT_EQ(c.apps[1].path, "/folder/bin/b");
  EXPECT_EQ(c.apps[1].args, (std::vector<std::string>{"x", "y", "z w"}));
  EXPECT_EQ(c.enclaves[0].bundle, "/folder/s");
}

TEST(Composition, AnAppWithoutMpiHasNoRanksAndComesAfterThoseThatHave) {
  auto result = check(
      R"(<composition mpiComm="u"><enclave name="e" bundle="b" mpiComm="E">
        <app name="tool" path="t" ranks="2" mpi="no"/>
    <app name="x" path="x" ranks="3"/></enclave></composition>)");
  ASSERT_TRUE(result.problems.empty()) << report("x", result.problems);
  const Composition& c = result.composition;
  EXPECT_EQ(c.ranks(), 3U);
  EXPECT_EQ(c.members("E"), (std::vector<unsigned>{0, 1, 2}));
  EXPECT_EQ(c.apps[1].name, "tool");
  EXPECT_EQ(c.apps[1].first_rank, 3U);
  auto wrong = check(
      R"(<composition><enclave name="e" bundle="b"><app path="t" mpi="no">
        <mpiComm name="universe"/></app>
    <app path="u" mpi="maybe"/></enclave></composition>)");
  ASSERT_EQ(wrong.problems.size(), 2U) << report("x", wrong.problems);
  EXPECT_NE(wrong.problems[0].found.find("mpi=\"no\""), std::string::npos);
}

TEST(Composition, NestingMeansSpacesOfEverythingBeneath) {
  auto result = check(
      R"(<composition mpiComm="u"><enclave name="a" mpiComm="A"><app name="x"/>
        <enclave name="b" mpiComm="B"><app name="y" ranks="2"/></enclave></enclave>
        </composition>)");
  ASSERT_TRUE(result.problems.empty()) << report("x", result.problems);
  EXPECT_EQ(result.composition.members("A"), (std::vector<unsigned>{0, 1, 2}));
  EXPECT_EQ(result.composition.members("B"), (std::vector<unsigned>{1, 2}));
  EXPECT_EQ(result.needs.size(), 4U) << "two bundles and two paths";
}

TEST(Composition, InstancesAreEnclavesAndAppsOfTheirOwnInOneSpace) {
  auto result = check(
      R"(<composition><enclave name="e" num="3" bundle="b" mpiComm="all">
        <app name="x" path="/x" ranks="2"/></enclave></composition>)");
  ASSERT_TRUE(result.problems.empty()) << report("x", result.problems);
  EXPECT_EQ(result.composition.enclaves.size(), 3U);
  EXPECT_EQ(result.composition.enclaves[2].name, "e.2");
  EXPECT_EQ(result.composition.apps[1].name, "x.1");
  EXPECT_EQ(result.composition.members("all").size(), 6U);
}

TEST(Composition, AnUnclosedElementIsNamedWithItsLineAndRemedy) {
  auto result = check(printed_poster);
  ASSERT_EQ(result.problems.size(), 1U);
  EXPECT_EQ(result.problems[0].line, 4U);
  EXPECT_NE(result.problems[0].remedy.find("<mpiComm/>"), std::string::npos);
}

TEST(Composition, EveryProblemIsReportedWithItsLine) {
  auto result = check(
      "<composition mpiComm=\"u\">\n<enclave name=\"a/b\" num=\"0\" bundle=\"b\">\n<app name=\"x\" "
      "path=\"/x\" ranks=\"-1\" "
      "colour=\"red\"/>\n<app name=\"x\" path=\"/y\"><mpiComm "
      "name=\"nowhere\"/></app>\n<box/></enclave></composition>");
  std::string text = report("f", result.problems);
  for (const char* part :
       {"f:2: found name=\"a/b\"", "f:2: found num=\"0\"", "f:3: found ranks=\"-1\"",
        "f:3: found attribute colour", "f:4: found a second app",
        "f:4: found the space \"nowhere\"", "f:5: found <box>"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST(Composition, HostileDocumentsAreRefused) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "<enclave>";
  EXPECT_FALSE(check(deep).problems.empty());
  EXPECT_FALSE(check(std::string(composition_size_limit + 1, ' ')).problems.empty());
  EXPECT_FALSE(check("<composition name=\"\xff\xfe\"/>").problems.empty());
  std::string hidden = "<composition>";
  for (int i = 0; i < 36000; ++i) hidden += "<enclave><!--</-->";
  for (int i = 0; i < 36000; ++i) hidden += "</enclave>";
  EXPECT_FALSE(check(hidden + "</composition>").problems.empty())
      << "comments hide the closing of nothing";
  EXPECT_FALSE(check("").problems.empty());
  EXPECT_FALSE(check("<a/>").problems.empty());
  EXPECT_FALSE(check(std::string("<composition>\0</composition>", 28)).problems.empty());
  EXPECT_FALSE(check(
                   R"(<composition><enclave name="e" num="64" bundle="b">
        <app name="x" path="/x" ranks="4096"/></enclave></composition>)")
                   .problems.empty());
}

TEST(Composition, MoreUnnamedSpacesThanEnclosingOnesAreRefused) {
  EXPECT_FALSE(check(
                   R"(<composition><enclave name="e" bundle="b" mpiComm="E"><app name="x" path="/x">
        <mpiComm/><mpiComm/></app></enclave></composition>)")
                   .problems.empty());
}

}  // namespace
}  // namespace hobbes
