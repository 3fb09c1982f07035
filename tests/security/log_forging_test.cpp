// The class of logs that others write: what a program of an enclave says is one line of hobbesd's
// log, and is told apart from hobbesd's own.
#include "attacker.h"

namespace hobbes::test {
namespace {

TEST(LogForging, TheCauseOfACrashIsNoLineOfItsOwn) {
  SharedNode node;
  node.wake_daemon();
  Json patch = {{"hobbes", {{"manage", "none"}, {"cores", nullptr}}},
                {"linux", {{"namespaces", Json::array({{{"type", "mount"}}})}}}};
  patch["process"]["args"] = {"/usr/bin/python3", "-c", python(node, R"(
forged = 'nothing\n[2030-01-01 00:00:00.000] [hobbesd] [error] root has said so\r\x1b[2J'
who = dict(root=RUN + '/enclaves', id='inner')
print(Control().ask(op='enclave.event', event='crashed', cause=forged, **who))
)")};
  Outcome outcome =
      node.run({"hobbes-run", "run", "--bundle", node.bundle("inner", "true", patch), "inner"});
  ASSERT_NE(outcome.out.find("'ok': True"), std::string::npos) << outcome.out << outcome.err;
  std::string log = Files::system().read(node.run_folder() + "/hobbesd.log").value_or("");
  EXPECT_NE(log.find("nothing"), std::string::npos) << "the cause is in the log";
  EXPECT_EQ(("\n" + log).find("\n[2030"), std::string::npos) << log;
  EXPECT_EQ(log.find('\x1b'), std::string::npos) << "it moves the cursor of a person who reads it";
}

}  // namespace
}  // namespace hobbes::test
