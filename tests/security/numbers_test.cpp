// Numbers that people type: what is no number, or too large for what it stands for, is refused; it
// never becomes another one. (atoi gives 0 for words, and 9 for 4294967305.)
#include <signal.h>

#include "attack.h"

namespace hobbes::test {
namespace {

TEST(Numbers, ASignalNumberThatIsTooLargeIsRefusedAndSendsNothing) {
  Node node;
  ASSERT_EQ(node.create("a", node.busybox_bundle("b", "exec sleep 1000", no_lease())).wait_status,
            0);
  node.good({"hobbes-run", "start", "a"});
  for (const char* signal : {"4294967305", "18446744073709551625", "65", "99999999999999999999"}) {
    EXPECT_NE(node.run({"hobbes-run", "kill", "a", signal}).wait_status, 0) << signal;
    EXPECT_TRUE(holds(node.good({"hobbes-run", "state", "a"}), "\"running\""))
        << signal << " was sent";
  }
  node.good({"hobbes-run", "delete", "--force", "a"});
}

TEST(Numbers, ARankThatIsNoNumberIsNotRank0) {
  Node node;
  std::string document = node.folder() + "/c.xml", bundle = node.bundle("b", "true");
  ASSERT_TRUE(replace_file(
      document, "<composition name=\"c\"><enclave name=\"e\" bundle=\"" + bundle +
                    "\"><app name=\"x\" path=\"/bin/cat\" mpi=\"no\"/></enclave></composition>"));
  for (const char* rank : {"x", "1x", "4294967296", "-1", "", "1"}) {
    Outcome outcome = node.run({"sh", "-c",
                                "echo typed | " HOBBES_BUILD_DIR "/bin/remora run --stdin '" +
                                    std::string(rank) + "' " + document});
    EXPECT_NE(outcome.wait_status, 0) << "\"" << rank << "\"";
    EXPECT_FALSE(holds(outcome.out, "typed")) << "\"" << rank << "\" was taken for 0";
  }
  EXPECT_TRUE(
      holds(node.good({"sh", "-c",
                       "echo typed | " HOBBES_BUILD_DIR "/bin/remora run --stdin 0 " + document}),
            "typed"));
}

TEST(Numbers, APageSizeOrCursorThatIsNoNumberIsRefused) {
  Node node;
  node.wake_daemon();
  for (const char* query : {"limit=x", "limit=1x", "limit=-1", "limit=0", "cursor=x", "cursor=1x"})
    EXPECT_EQ(node.rest("GET", "/v1/enclaves?" + std::string(query)).first, 400) << query;
}

TEST(Numbers, APortThatIsNoneIsRefused) {
  Node node;
  node.good({"sh", "-c",
             "cd " + node.folder() +
                 " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                 "-days 1 -subj /CN=localhost 2>/dev/null"});
  ASSERT_TRUE(replace_file(node.folder() + "/config.json",
                           to_text({{"tokens", {{std::string(64, 'a'), "0"}}}})));
  for (const char* address :
       {"127.0.0.1:x", "127.0.0.1:", "127.0.0.1:84977", "127.0.0.1:18443x", "127.0.0.1:-1"}) {
    Outcome outcome =
        node.run({"timeout", "3", HOBBES_BUILD_DIR "/bin/hobbesd", "--foreground", "--config",
                  node.folder() + "/config.json", "--listen", address, "--tls-certificate",
                  node.folder() + "/cert.pem", "--tls-key", node.folder() + "/key.pem"});
    EXPECT_EQ(exit_code_of(outcome.wait_status), 1) << address << " is served: " << outcome.err;
  }
}

}  // namespace
}  // namespace hobbes::test
