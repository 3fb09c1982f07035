// The class of the confused deputy: a program inside an enclave has hobbesd act for it on the host.
// A grant says what may be named; the words of a command line are hobbesd's own.
#include "attacker.h"

namespace hobbes::test {
namespace {

class ManagementGrant : public ::testing::Test {
 protected:
  ManagementGrant() { node.wake_daemon(); }

  // A bundle whose hook, which runs outside of every enclave, leaves a trace.
  std::string evil() const {
    Json hook = {{"path", "/bin/sh"}, {"args", {"sh", "-c", "id -u > " + trace()}}};
    Json patch = {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}};
    patch["hooks"]["createRuntime"] = Json::array({hook});
    return node.bundle("evil", "true", patch);
  }
  [[nodiscard]] std::string trace() const { return node.folder() + "/trace"; }
  [[nodiscard]] std::string root() const { return node.run_folder() + "/enclaves"; }

  // Runs a program in an enclave "inner" that has the grant, and returns what it printed.
  std::string inside(const std::string& grant, const std::string& program) const {
    Json patch = {{"hobbes", {{"manage", grant}, {"cores", nullptr}}},
                  {"linux", {{"namespaces", Json::array({{{"type", "mount"}}})}}}};
    patch["process"]["args"] = {"/usr/bin/python3", "-c", python(node, program)};
    Outcome outcome =
        node.run({"hobbes-run", "run", "--bundle", node.bundle("inner", "true", patch), "inner"});
    EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
    return outcome.out + outcome.err;
  }

  // Asks for verbs on the enclave itself, which the grant covers, with the words of another
  // command.
  [[nodiscard]] std::string asking(const Json& words) const {
    return "words = json.loads('''" + to_text(words) + R"(''')
for verb in ('start', 'resume', 'update', 'exec'):
  c = Control()
  began = c.ask(op='operation.begin', verb=verb, id='inner', root=RUN + '/enclaves',
                arguments=words)
  print(verb, json.dumps(began))
  for _ in range(300):
    if not began['ok']: break
    asked = c.ask(op='operation.get', operation=began['operation'])
    if asked.get('state') != 'running': break
    time.sleep(0.05)
)";
  }

  Node node;
};

TEST_F(ManagementGrant, ForItselfIsNoWayToRunABundleOnTheHost) {
  std::string out = inside("self", asking({"--root", root(), "run", "--bundle", evil(), "outer"}));
  EXPECT_FALSE(Files::system().exists(trace()))
      << "a hook ran on the host as user " << Files::system().read(trace()).value_or("?") << out;
  EXPECT_TRUE(node.enclave("outer").empty());
  node.expect_clean();
}

TEST_F(ManagementGrant, ForItselfIsNoWayToActOnAnotherEnclave) {
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("other", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}), "other"});
  std::string out = inside("self", asking({"--root", root(), "delete", "--force", "other"}));
  EXPECT_EQ(text_at(node.enclave("other"), "state"), "running") << out;
  node.good({"hobbes-run", "delete", "--force", "other"});
  node.expect_clean();
}

// A grant for the node lets others' enclaves be named, but the words of the command line stay
// hobbesd's: an option of a verb that writes where it is told would write anywhere on the host.
class ManagementGrantOf : public ManagementGrant,
                          public ::testing::WithParamInterface<const char*> {};

TEST_P(ManagementGrantOf, AnyKindIsNoWayToWriteAFileOfTheHost) {
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("other", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}), "other"});
  std::string out = inside(
      GetParam(), asking({"--root", root(), "exec", "--pid-file", trace(), "other", "true"}));
  EXPECT_FALSE(Files::system().exists(trace())) << "root wrote a file of the host: " << out;
  node.good({"hobbes-run", "delete", "--force", "other"});
  node.expect_clean();
}

INSTANTIATE_TEST_SUITE_P(Every, ManagementGrantOf, ::testing::Values("self", "node"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace hobbes::test
