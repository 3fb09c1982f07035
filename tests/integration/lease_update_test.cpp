// The class of limits that drift from their lease: what an enclave may use and what it has leased
// are one thing, and an update that cannot keep them so, or does nothing, says so.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class LeaseUpdate : public ::testing::Test {
 protected:
  LeaseUpdate() {
    node.good({"hobbes-run", "run", "--detach", "--bundle",
               node.bundle("b", "exec sleep 1000",
                           {{"hobbes",
                             {{"cores", {{"count", nullptr}, {"list", "0"}}},
                              {"memory", {{"size", "64MiB"}}}}}}),
               "a"});
  }
  ~LeaseUpdate() override { (void)node.run({"hobbes-run", "delete", "--force", "a"}); }
  [[nodiscard]] Outcome update(std::vector<std::string> options) const {
    options.insert(options.begin(), {"hobbes-run", "update"});
    options.emplace_back("a");
    return node.run(options);
  }
  // The CPUs that its programs really have.
  [[nodiscard]] std::string cpus() const {
    std::string pid = std::to_string(number_at(node.enclave("a"), "pid"));
    std::string list = node.run({"grep", "Cpus_allowed_list", "/proc/" + pid + "/status"}).out;
    return list.substr(list.find('\t') + 1);
  }
  [[nodiscard]] std::int64_t limit() const {
    return number_at(parse_json(node.good({"hobbes-run", "events", "--stats", "a"}), "stats")
                         .value_or(Json::object())["data"],
                     "memory.limit");
  }
  Node node;
};

TEST_F(LeaseUpdate, LeasedCoresAreNotLeftForOthers) {
  Outcome outcome = update({"--cpuset-cpus", "1"});
  EXPECT_NE(outcome.wait_status, 0) << "its cores are leased: " << cpus();
  EXPECT_NE(outcome.err.find("--cores"), std::string::npos)
      << "what to do instead is said: " << outcome.err;
  EXPECT_EQ(cpus(), "0\n");
  // Nobody runs where somebody else has a lease.
  std::string other = node.bundle("c", "grep Cpus_allowed_list /proc/self/status",
                                  {{"hobbes", {{"cores", {{"count", 1}}}}}});
  std::string said = node.good({"hobbes-run", "run", "--bundle", other, "other"});
  EXPECT_NE(said.substr(said.find('\t') + 1), cpus()) << "two enclaves have leased one core";
}

TEST_F(LeaseUpdate, LeasedCoresAreNotLeftByAResourcesFileEither) {
  std::string path = node.folder() + "/resources.json";
  ASSERT_TRUE(replace_file(path, R"({"cpu": {"cpus": "1"}})"));
  EXPECT_NE(update({"--resources", path}).wait_status, 0);
  EXPECT_EQ(cpus(), "0\n");
}

TEST_F(LeaseUpdate, AMemoryLimitBeyondTheLeaseIsRefused) {
  EXPECT_NE(update({"--memory", "1GiB"}).wait_status, 0);
  EXPECT_LE(limit(), 64 << 20);
  // Less than the lease is the enclave's own affair.
  EXPECT_EQ(update({"--memory", "32MiB"}).wait_status, 0);
  EXPECT_EQ(limit(), 32 << 20);
}

TEST_F(LeaseUpdate, NoMemoryAtAllIsNoSize) {
  Outcome outcome = update({"--memory-size", "0"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("memory"), std::string::npos) << outcome.err;
  EXPECT_EQ(number_at(node.enclave("a"), "memory"), 64 << 20)
      << "the lease is gone and the limit stays at " << limit();
  EXPECT_EQ(limit(), 64 << 20);
}

TEST_F(LeaseUpdate, WithoutAnyChangeIsRefused) {
  Outcome outcome = update({});
  EXPECT_NE(outcome.wait_status, 0) << "it says nothing and does nothing";
  EXPECT_FALSE(outcome.err.empty());
  std::string path = node.folder() + "/resources.json";
  ASSERT_TRUE(replace_file(path, "{}"));
  EXPECT_NE(update({"--resources", path}).wait_status, 0);
}

TEST_F(LeaseUpdate, LessMemoryThanIsInUseIsSaidToBeThat) {
  Outcome outcome = update({"--memory-size", "1KiB"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_EQ(outcome.err.find("Device or resource busy"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("memory"), std::string::npos) << outcome.err;
  EXPECT_EQ(number_at(node.enclave("a"), "memory"), 64 << 20) << "what was refused has no effect";
}

TEST_F(LeaseUpdate, ANegativeNumberOfCoresIsRefused) {
  for (const char* count : {"0", "-1"}) {
    Outcome outcome = update({"--cores", count});
    EXPECT_NE(outcome.wait_status, 0) << count;
    EXPECT_EQ(cpus(), "0\n");
  }
}

}  // namespace
}  // namespace hobbes::test
