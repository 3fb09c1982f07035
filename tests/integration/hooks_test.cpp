// What hooks are told, with whose rights they run, and what becomes of the others when one fails.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

Json hook(const std::string& script) {
  return {{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}};
}

Json no_lease_with(const std::string& stage, const Json& hooks) {
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"][stage] = hooks;
  return patch;
}

TEST(Hooks, OneThatFailsWhenNothingCanBeTakenBackHindersNoOther) {
  Node node;
  for (const char* stage : {"poststart", "poststop"}) {
    std::string seen = node.folder() + "/" + stage;
    std::string bundle = node.bundle(
        "b", "sleep 0.1",
        no_lease_with(
            stage, {hook("echo first >&2; exit 3"), hook("exit 4"), hook("echo ran > " + seen)}));
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "a"});
    EXPECT_EQ(outcome.wait_status, 0) << stage << ": " << outcome.err;
    EXPECT_EQ(Files::system().read(seen).value_or(""), "ran\n") << stage;
    EXPECT_NE(outcome.err.find("first"), std::string::npos) << stage << " warns: " << outcome.err;
    EXPECT_NE(outcome.err.find("code 4"), std::string::npos)
        << stage << " warns of each: " << outcome.err;
    node.expect_clean();
  }
}

TEST(Hooks, PoststartIsToldOfARunningProgramHoweverShort) {
  Node node;
  std::string seen = node.folder() + "/seen";
  std::string bundle = node.bundle(
      "b", "true", no_lease_with("poststart", {hook("sleep 0.5"), hook("cat > " + seen)}));
  node.good({"hobbes-run", "run", "--bundle", bundle, "a"});
  auto state = parse_json(Files::system().read(seen).value_or(""), "state");
  ASSERT_TRUE(state);
  EXPECT_EQ(text_at(*state, "status"), "running");
  EXPECT_GT(number_at(*state, "pid"), 0);
}

TEST(Hooks, StartContainerHasTheRightsOfTheProgram) {
  Node node;
  std::string tell =
      "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status > /tmp/rights; id -u >> "
      "/tmp/rights";
  Json patch = no_lease_with("startContainer", Json::array({hook(tell)}));
  patch["process"] = {{"user", {{"uid", 65534}, {"gid", 65534}}}, {"noNewPrivileges", true}};
  patch["linux"]["seccomp"] = {
      {"defaultAction", "SCMP_ACT_ALLOW"},
      {"syscalls", Json::array({{{"names", {"acct"}}, {"action", "SCMP_ACT_ERRNO"}}})}};
  std::string bundle = node.bundle("b",
                                   "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; id "
                                   "-u; echo hook; cat /tmp/rights",
                                   patch);
  std::string out = node.good({"hobbes-run", "run", "--bundle", bundle, "a"});
  std::size_t at = out.find("hook\n");
  ASSERT_NE(at, std::string::npos) << out;
  EXPECT_EQ(out.substr(0, at), out.substr(at + 5));
  EXPECT_NE(out.find("Seccomp:\t2"), std::string::npos) << out;
}

}  // namespace
}  // namespace hobbes::test
