// The class of a policy that fails open: what an administrator has written and cannot be followed
// keeps hobbesd from serving, and what he writes anew is followed when he says so.
#include "attacker.h"

namespace hobbes::test {
namespace {

const std::string daemon_program = HOBBES_BUILD_DIR "/bin/hobbesd";

class Policy : public ::testing::Test {
 protected:
  // How hobbesd ends with these options; 137 when it serves.
  [[nodiscard]] Outcome serves(std::vector<std::string> options) const {
    options.insert(options.begin(), {"timeout", "-s", "KILL", "4", daemon_program, "--foreground"});
    return node.run(options);
  }
  static void expect_refused(const Outcome& outcome, const std::string& words) {
    EXPECT_EQ(exit_code_of(outcome.wait_status), 1) << "it serves all the same: " << outcome.err;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
  }
  [[nodiscard]] std::string written(const Json& policy) const {
    std::string path = node.folder() + "/policy.json";
    EXPECT_TRUE(replace_file(path, to_text(policy)));
    return path;
  }
  // What a user is answered who asks for an enclave.
  [[nodiscard]] std::string reserves(const std::string& id) const {
    ::chmod(node.folder().c_str(), 0755);
    std::string text = python(node,
                              "c = Control()\nc.ask(op='root.make')\n"
                              "print(c.ask(op='enclave.reserve', root=RUN + '/users/1235', id='" +
                                  id + "', kind='linux'))\n");
    return node.run(as_user(attacker, {"/usr/bin/python3", "-c", text})).out;
  }
  Node node;
};

TEST_F(Policy, AFileThatIsNamedAndMissingIsFatal) {
  std::string path = node.folder() + "/missing.json";
  expect_refused(serves({"--config", path}), path);
}

TEST_F(Policy, ReservedCoresThatTheNodeDoesNotHaveAreFatal) {
  long last = ::sysconf(_SC_NPROCESSORS_CONF);
  expect_refused(serves({"--reserve-cores", std::to_string(last + 7)}), "hobbesd: ");
  expect_refused(
      serves({"--config", written({{"reservedCores", "0," + std::to_string(last + 7)}})}),
      "hobbesd: ");
}

TEST_F(Policy, AHangUpReadsItAnewAndEndsNobody) {
  std::string path = written({{"quotas", {{"default", {{"enclaves", 5}}}}}});
  Background daemon(node, "daemon", {daemon_program, "--config", path});
  ASSERT_TRUE(eventually([&] { return answers(node, 2); }));
  EXPECT_NE(reserves("a").find("'ok': True"), std::string::npos);
  (void)written({{"quotas", {{"default", {{"enclaves", 0}}}}}});
  daemon.signal(SIGHUP);
  std::string said;
  EXPECT_TRUE(eventually([&] { return (said = reserves("b")).find("quota") != std::string::npos; }))
      << said;
  EXPECT_FALSE(daemon.ended(0)) << "SIGHUP has ended hobbesd";
}

// Who reloads and has made a mistake keeps what he had.
TEST_F(Policy, AHangUpWithABrokenFileKeepsTheOldOne) {
  std::string path = written({{"quotas", {{"default", {{"enclaves", 0}}}}}});
  Background daemon(node, "daemon", {daemon_program, "--config", path});
  ASSERT_TRUE(eventually([&] { return answers(node, 2); }));
  for (const char* text : {"{", R"({"quota": {}})"}) {
    ASSERT_TRUE(replace_file(path, text));
    daemon.signal(SIGHUP);
    ASSERT_FALSE(daemon.ended(1)) << "SIGHUP has ended hobbesd";
    std::string said = reserves("a");
    EXPECT_NE(said.find("quota"), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace hobbes::test
