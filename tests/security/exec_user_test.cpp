// Whom `exec --user` names: by number or by a name of the enclave's own passwd and group. What
// cannot be resolved is refused, and never taken for root.
#include "attack.h"

namespace hobbes::test {
namespace {

class ExecUser : public ::testing::Test {
 protected:
  ExecUser() {
    std::string bundle = node.busybox_bundle("b", "exec sleep 1000", no_lease());
    edit(bundle, [](Json& config) {
      config["process"]["user"] = {{"uid", 0}, {"gid", 7}, {"additionalGids", {8, 9}}};
    });
    std::string etc = bundle + "/rootfs/etc/";
    EXPECT_TRUE(replace_file(etc + "passwd",
                             "root:x:0:0:root:/root:/bin/sh\n"
                             "# app:x:0:0:a comment:/:/bin/sh\n"
                             "broken:x\n"
                             "app:x:77:78:an app:/home/app:/bin/sh\n"
                             "12abc:x:79:79::/:/bin/sh\n"
                             "huge:x:4294967296:4294967296::/:/bin/sh\n",
                             0644));
    EXPECT_TRUE(
        replace_file(etc + "group", "root:x:0:\nstaff:x:50:\nextra:x:51:app,other\n", 0644));
    EXPECT_EQ(node.create("a", bundle).wait_status, 0);
    node.good({"hobbes-run", "start", "a"});
  }
  ~ExecUser() override { node.run({"hobbes-run", "delete", "--force", "a"}); }
  Outcome exec_as(const std::string& user) const {
    return node.run({"hobbes-run", "exec", "--user", user, "a", "sh", "-c", "id -u; id -g; id -G"});
  }
  Node node;
};

TEST_F(ExecUser, ANumberKeepsTheBundlesGroups) {
  EXPECT_EQ(exec_as("1000").out, "1000\n7\n7 8 9\n");
  EXPECT_EQ(exec_as("1000:50").out, "1000\n50\n50 8 9\n");
  EXPECT_EQ(exec_as("0").out, "0\n7\n7 8 9\n");
}

TEST_F(ExecUser, ANameIsLookedUpInTheEnclave) {
  Outcome outcome = exec_as("app");
  EXPECT_TRUE(holds(outcome.out, "77\n78\n")) << outcome.out << outcome.err;
  EXPECT_EQ(exec_as("app:staff").out.substr(0, 6), "77\n50\n");
  EXPECT_EQ(exec_as("1000:staff").out.substr(0, 8), "1000\n50\n");
  EXPECT_EQ(exec_as("12abc").out.substr(0, 6), "79\n79\n") << "a name may begin with digits";
}

TEST_F(ExecUser, WhatCannotBeResolvedIsRefusedAndRunsNothing) {
  for (const char* user : {"u",
                           "daemon",
                           ":5",
                           ":",
                           "::",
                           "app:",
                           "app:nobody",
                           "1000:x",
                           "1000:",
                           "1000:50:1",
                           "4294967295",
                           "4294967296",
                           "18446744073709551616",
                           "-1",
                           "-0",
                           "+5",
                           " 5",
                           "5 ",
                           "0x10",
                           "1e3",
                           "1000:4294967296",
                           "1000:-1",
                           "broken",
                           "huge",
                           "# app",
                           "app\n",
                           "root/",
                           "../root"}) {
    Outcome outcome = exec_as(user);
    EXPECT_NE(outcome.wait_status, 0) << "\"" << user << "\"";
    EXPECT_EQ(outcome.out, "") << "\"" << user << "\" ran as " << outcome.out;
  }
}

// The enclave's passwd is the enclave's to write: reading it neither waits for it nor leaves the
// root.
TEST_F(ExecUser, AHostilePasswdIsReadAsAFileOfTheEnclave) {
  std::string passwd = node.folder() + "/b/rootfs/etc/passwd",
              host = node.folder() + "/host-passwd";
  ASSERT_TRUE(replace_file(host, "fromhost:x:0:0::/:/bin/sh\n", 0644));
  ::unlink(passwd.c_str());
  ASSERT_EQ(::symlink(host.c_str(), passwd.c_str()), 0);
  EXPECT_EQ(exec_as("fromhost").out, "") << "the host's file was read";
  ::unlink(passwd.c_str());
  ASSERT_EQ(::mkfifo(passwd.c_str(), 0666), 0);
  Outcome outcome =
      node.run({"hobbes-run", "exec", "--user", "app", "a", "sh", "-c", "echo ran"}, 15);
  EXPECT_NE(outcome.wait_status, 0) << outcome.out;
}

}  // namespace
}  // namespace hobbes::test
