// The class of processes that outlive their job: what a rank's wrapper has started is the
// composition's, also in an enclave that was there before and stays.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class Orphans : public ::testing::Test {
 protected:
  Orphans() {
    Json spaces = {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}}}}}};
    spaces["mounts"] = Json::array({{{"destination", node.folder()},
                                     {"type", "bind"},
                                     {"source", node.folder()},
                                     {"options", {"bind", "rw"}}}});
    node.good({"hobbes-run", "run", "--detach", "--bundle",
               node.bundle("old", "exec sleep 1000", spaces), "old"});
  }
  ~Orphans() override {
    for (pid_t pid : started()) ::kill(pid, SIGKILL);
    (void)node.run({"hobbes-run", "delete", "--force", "old"});
  }
  // A composition of one rank in the enclave "old" that runs this script. Each process it starts
  // notes its number.
  [[nodiscard]] std::string composition(const std::string& script) const {
    EXPECT_TRUE(replace_file(node.folder() + "/app",
                             "#!/bin/sh\ncd " + node.folder() + "\n" + script + "\n", 0755));
    std::string path = node.folder() + "/c.xml";
    EXPECT_TRUE(replace_file(path,
                             "<composition name=\"orphans\"><enclave name=\"e\" use=\"old\"><app "
                             "name=\"a\" mpi=\"no\" path=\"" +
                                 node.folder() + "/app\" ranks=\"1\"/></enclave></composition>"));
    return path;
  }
  [[nodiscard]] std::vector<pid_t> started() const {
    std::vector<pid_t> out;
    for (const std::string& name : Files::system().list(node.folder()).value_or({}))
      if (name.rfind("child.", 0) == 0) out.push_back(std::atoi(name.c_str() + 6));
    return out;
  }
  void expect_all_gone() const {
    ASSERT_FALSE(started().empty());
    for (pid_t pid : started())
      EXPECT_TRUE(eventually([&] {
        return process_state(pid) == '\0' || process_state(pid) == 'Z';
      })) << "process "
          << pid << " is left";
    EXPECT_EQ(text_at(node.enclave("old"), "state"), "running")
        << "the enclave is not the composition's";
  }
  Node node;
};

const char* const lasting_child = "sh -c 'touch child.$$; exec sleep 777'";

TEST_F(Orphans, GoWithACompositionThatHasFailed) {
  Outcome outcome = node.run(
      {"remora", "run", "--timeout", "2", composition(std::string(lasting_child) + "; true")}, 30);
  EXPECT_EQ(exit_code_of(outcome.wait_status), 124) << outcome.err;
  expect_all_gone();
}

TEST_F(Orphans, GoWithACompositionWhoseRankFailed) {
  Outcome outcome = node.run({"remora", "run", "--timeout", "20",
                              composition(std::string(lasting_child) + " & sleep 0.5; exit 3")},
                             30);
  EXPECT_EQ(exit_code_of(outcome.wait_status), 3) << outcome.err;
  expect_all_gone();
}

TEST_F(Orphans, GoWithACompositionThatHasEnded) {
  Outcome outcome = node.run(
      {"remora", "run", "--timeout", "20",
       composition(std::string("setsid ") + lasting_child + " >/dev/null 2>&1 & sleep 0.5")},
      30);
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  expect_all_gone();
}

TEST_F(Orphans, GoWithTheirLauncher) {
  Background launcher(
      node, "launcher",
      {HOBBES_BUILD_DIR "/bin/remora", "run", composition(std::string(lasting_child) + "; true")});
  ASSERT_TRUE(eventually([&] { return !started().empty(); }));
  launcher.signal(SIGKILL);
  EXPECT_TRUE(launcher.ended(10));
  expect_all_gone();
}

}  // namespace
}  // namespace hobbes::test
