// The class of a service that reads what its callers name with its own rights: it tells them what
// they may not read, and waits where they want it to wait.
#include <fcntl.h>

#include "attacker.h"

namespace hobbes::test {
namespace {

class RestAsRoot : public ::testing::Test {
 protected:
  RestAsRoot() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  // What a user without rights is answered when he asks what a bundle would get.
  [[nodiscard]] std::string planned(const std::string& bundle) const {
    return node
        .run(as_user(
            attacker,
            {"/usr/bin/python3", "-c",
             python(node,
                    "print(*http('POST', '/v1/enclaves?dryRun=true', {'id': 'x', 'bundle': '" +
                        bundle + "'}))\n")}))
        .out;
  }
  // A folder of the user's own with one entry, config.json.
  [[nodiscard]] std::string folder_with(const std::string& name, const std::string& command) const {
    std::string path = node.folder() + "/" + name;
    node.good(
        {"sh", "-c",
         "mkdir " + path + " && chown 1235:1235 " + path + " && cd " + path + " && " + command});
    return path;
  }
  Node node;
};

TEST_F(RestAsRoot, ABundleBelowAClosedFolderIsNotRead) {
  std::string hidden =
      node.bundle("closed/bundle", "true", {{"hobbes", {{"cores", {{"count", 1}}}}}});
  ASSERT_EQ(::chmod((node.folder() + "/closed").c_str(), 0700), 0);
  std::string answer = planned(hidden), none = planned(node.folder() + "/closed/nothing");
  EXPECT_NE(answer.substr(0, 4), "200 ") << answer;
  EXPECT_NE(answer.find("ermission denied"), std::string::npos) << answer;
  // Nor is he told what there is and what not.
  EXPECT_NE(none.find("ermission denied"), std::string::npos) << none;
}

TEST_F(RestAsRoot, AFileOfOthersIsNotQuoted) {
  std::string secret = node.folder() + "/secret";
  ASSERT_TRUE(replace_file(secret, "Qx7 is what nobody else may read", 0600));
  std::string answer = planned(folder_with("linked", "ln -s " + secret + " config.json"));
  EXPECT_EQ(answer.find("'Q"), std::string::npos) << answer;
  EXPECT_NE(answer.find("ermission denied"), std::string::npos) << answer;
}

// The folder may be the user's and what it names another's: a kernel that may be read or not is
// told apart as well.
TEST_F(RestAsRoot, FilesThatABundleNamesAreLookedForWithItsUsersRights) {
  ASSERT_TRUE(make_directories(node.folder() + "/closed", 0700));
  ASSERT_EQ(::chmod((node.folder() + "/closed").c_str(), 0700), 0);
  ASSERT_TRUE(replace_file(node.folder() + "/closed/kernel", "x"));
  std::string answers[2];
  for (int i = 0; i < 2; ++i) {
    Json config = {
        {"ociVersion", "1.3.0"},
        {"hobbes",
         {{"kind", "palacios"},
          {"cores", {{"count", 1}}},
          {"memory", {{"size", "64MiB"}}},
          {"image", {{"kernel", node.folder() + "/closed/" + (i == 0 ? "kernel" : "missing")}}}}}};
    std::string path = folder_with("vm" + std::to_string(i), "true");
    ASSERT_TRUE(replace_file(path + "/config.json", to_text(config)));
    answers[i] = planned(path).substr(0, 4);
  }
  EXPECT_EQ(answers[0], answers[1]) << "the answer tells whether a file that he may not see exists";
}

TEST_F(RestAsRoot, PipesInPlaceOfFilesStopNobodyElse) {
  std::string path = folder_with("pipe", "mkfifo -m 666 config.json");
  std::string many =
      script(node, "many",
             "bodies = []\nfor i in range(40):\n  if os.fork() == 0:\n"
             "    try: print(http('POST', '/v1/enclaves?dryRun=true', {'id': 'x', 'bundle': '" +
                 path +
                 "'}, 60))\n"
                 "    except OSError as e: print(e)\n    os._exit(0)\nprint('sent', "
                 "flush=True)\ntime.sleep(60)\n");
  Background asking(node, "many", as_user(attacker, {"/usr/bin/python3", many}));
  ASSERT_TRUE(asking.says("sent"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(node.rest("GET", "/v1/node").first, 200) << "the pipes of one user stop the API";
    if (HasFailure()) break;
  }
  asking.end();
  // A process that waits in a pipe is let go by a writer; else hobbesd could not even be asked to
  // stop.
  for (int i = 0; i < 60; ++i) {
    Fd writer(::open((path + "/config.json").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (!writer) break;
    ::usleep(20'000);
  }
}

// What is no regular file may have no end, or change by being read: the kernel's log is taken from
// whom it is for.
TEST_F(RestAsRoot, WhatIsNoRegularFileIsRefused) {
  int number = 0;
  for (const char* target : {"/dev/zero", "/proc/kmsg"}) {
    std::string answer = planned(folder_with("other" + std::to_string(number++),
                                             std::string("ln -s ") + target + " config.json"));
    EXPECT_EQ(answer.substr(0, 1), "4") << target << ": " << answer;
  }
}

}  // namespace
}  // namespace hobbes::test
