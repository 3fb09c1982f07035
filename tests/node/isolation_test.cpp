// What real interrupts do while cores are leased.
#include <signal.h>

#include <map>

#include "bundle/bundle.h"
#include "core/cpu_set.h"
#include "core/file.h"
#include "node_harness.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

using Places = std::map<std::string, std::string>;

// Where the kernel delivers each interrupt: number -> CPUs.
Places places() {
  Places out;
  for (const std::string& number : Files::system().list("/proc/irq").value_or({}))
    if (auto text = Files::system().read("/proc/irq/" + number + "/smp_affinity_list"))
      out[number] = text->substr(0, text->find('\n'));
  return out;
}

// How many of those that were at `cpu` beside other CPUs are there still.
int left_at(unsigned cpu, const Places& before) {
  int count = 0;
  for (const auto& [number, list] : places()) {
    if (before.count(number) == 0) continue;
    auto now = CpuSet::parse(list), then = CpuSet::parse(before.at(number));
    count += now && then && then->count() > 1 && now->has(cpu) ? 1 : 0;
  }
  return count;
}

TEST(Isolation, InterruptsKeepOffLeasedCoresAndComeBackAlsoAfterAKill) {
  Node node;
  const std::string policy = node.folder() + "/policy.json";
  ASSERT_TRUE(replace_file(policy, R"({"interrupts": "steer"})"));
  const std::vector<std::string> daemon = {HOBBES_BUILD_DIR "/bin/hobbesd", "--config", policy};
  const Places before = places();
  const int could_move = left_at(3, before), at_two = left_at(2, before);
  ASSERT_GT(could_move, 2) << "this node has no interrupts to move";
  const std::string bundle = node.bundle(
      "b", "exec sleep 1000", {{"hobbes", {{"cores", {{"list", "3"}, {"count", nullptr}}}}}});
  // Some are bound to one CPU by their driver although they name more.
  auto steered = [&] { return left_at(3, before) <= could_move / 2; };
  {
    Background manager(node, "first", daemon);
    ASSERT_TRUE(eventually([&] { return node.daemon() != 0; }));
    ASSERT_EQ(node.create("a", bundle).wait_status, 0);
    EXPECT_TRUE(steered());
    EXPECT_EQ(left_at(2, before), at_two) << "other CPUs keep theirs";
    node.good({"hobbes-run", "delete", "--force", "a"});
    EXPECT_TRUE(eventually([&] { return places() == before; }));

    ASSERT_EQ(node.create("a", bundle).wait_status, 0);
    EXPECT_TRUE(steered());
    manager.signal(SIGKILL);
    EXPECT_TRUE(manager.ended(5));
  }
  EXPECT_TRUE(steered()) << "the enclave has its core, with hobbesd or without";
  {
    Background manager(node, "second", daemon);
    ASSERT_TRUE(eventually([&] { return node.daemon() != 0; }));
    EXPECT_TRUE(steered());
    node.good({"hobbes-run", "delete", "--force", "a"});
    EXPECT_TRUE(eventually([&] { return places() == before; }));
    // A policy that is taken back.
    ASSERT_EQ(node.create("a", bundle).wait_status, 0);
    EXPECT_TRUE(steered());
    ASSERT_TRUE(replace_file(policy, R"({"interrupts": "leave"})"));
    manager.signal(SIGHUP);
    EXPECT_TRUE(eventually([&] { return places() == before; }));
    node.good({"hobbes-run", "delete", "--force", "a"});
  }
  node.expect_clean();
  ASSERT_TRUE(replace_file(policy, R"({"interrupts": "maybe"})"));
  Outcome refused = node.run({daemon[0], "--config", policy, "--check"});
  EXPECT_NE(refused.wait_status, 0);
  EXPECT_NE(refused.err.find("/interrupts"), std::string::npos) << refused.err;
}

// The host's hierarchies are those of v1 (tests/conformance/batch_test.cpp); this node has v2.
TEST(Isolation, AnEnclaveOfASlurmStepIsBesideItsTasksWhereControlGroupsAreV2) {
  Node node;
  Json config = example_config(Kind::linux_, true);
  config["linux"]["namespaces"] = {{{"type", "mount"}}, {{"type", "uts"}}, {{"type", "pid"}}};
  config["process"]["user"] = {{"uid", 65534}, {"gid", 65534}};
  const std::string shown = node.folder() + "/shown";
  ASSERT_TRUE(make_directories(shown));
  ASSERT_TRUE(replace_file(shown + "/config.json", to_text(config)));
  const std::string step = "srun --quiet -c1 --mem=200 ";
  Outcome outcome =
      node.run({HOBBES_SOURCE_DIR "/tests/conformance/slurm", node.folder(), HOBBES_BUILD_DIR,
                "cd /; " + step + "--enclave=" + shown + " sh -c 'cat /proc/self/cgroup; nproc'; " +
                    step + "sh -c 'hobbes-run run --detach --bundle " + shown +
                    " left </dev/null >/dev/null 2>&1'; for i in $(seq 300); do [ $(sinfo -h -o "
                    "%t) = idle ] && break; sleep 0.1; done; sinfo -h -o %t",
                "cgroups"},
               150);
  EXPECT_NE(outcome.out.find("slurmstepd.scope/job_1/step_0/user/user-"), std::string::npos)
      << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("\n1\nidle\n"), std::string::npos) << outcome.out << outcome.err;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
