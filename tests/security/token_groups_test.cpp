// The class of groups that are made up: the bearer of a token is a user of the machine, with the
// groups that the machine gives him.
#include <grp.h>
#include <pwd.h>

#include "attacker.h"

namespace hobbes::test {
namespace {

// A user of every Debian and Fedora whose group has another number than he has.
const passwd* user_with_another_group() {
  for (const char* name : {"games", "man", "mail", "sync", "operator"})
    if (const passwd* entry = ::getpwnam(name);
        entry != nullptr && entry->pw_gid != entry->pw_uid && entry->pw_uid != 0)
      return entry;
  return nullptr;
}

class TokenGroups : public ::testing::Test {
 protected:
  // hobbesd with a token "secret" of that user.
  TokenGroups() {
    ::chmod(node.folder().c_str(), 0755);
    const passwd* found = user_with_another_group();
    if (found == nullptr) return;
    uid = found->pw_uid;
    gid = found->pw_gid;
    node.good({"sh", "-c",
               "cd " + node.folder() +
                   " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                   "-days 1 -subj /CN=localhost 2>/dev/null"});
    std::string digest =
        node.good({"sh", "-c", "printf secret | sha256sum | cut -c1-64 | tr -d '\\n'"});
    EXPECT_TRUE(replace_file(node.folder() + "/config.json",
                             to_text({{"tokens", {{digest, std::to_string(uid)}}}})));
    node.good({"sh", "-c",
               HOBBES_BUILD_DIR "/bin/hobbesd --config " + node.folder() +
                   "/config.json --listen 127.0.0.1:18447 --tls-certificate " + node.folder() +
                   "/cert.pem --tls-key " + node.folder() + "/key.pem >/dev/null 2>&1 &"});
    EXPECT_TRUE(eventually(
        [&] { return asks("GET", "/v1/node", "").find("inventory") != std::string::npos; }));
  }
  [[nodiscard]] std::string asks(const std::string& method, const std::string& path,
                                 const std::string& body) const {
    std::vector<std::string> argv = {"curl", "-sk",  "--max-time", "20",
                                     "-X",   method, "-H",         "Authorization: Bearer secret"};
    if (!body.empty()) argv.insert(argv.end(), {"-d", body});
    argv.push_back("https://127.0.0.1:18447" + path);
    return node.run(argv).out;
  }
  [[nodiscard]] std::string ends(const std::string& text) const {
    std::string now = text,
                number = text_at(parse_json(text, "answer").value_or(Json::object()), "operation");
    eventually([&] {
      now = asks("GET", "/v1/operations/" + number, "");
      return now.find("\"running\"") == std::string::npos;
    });
    return now;
  }
  Node node;
  uid_t uid = 0;
  gid_t gid = 0;
};

TEST_F(TokenGroups, AreThoseOfTheUserDatabase) {
  if (uid == 0) GTEST_SKIP() << "every user's group has his own number here";
  std::string seen = node.folder() + "/seen";
  ASSERT_TRUE(replace_file(seen, ""));
  ASSERT_EQ(::chown(seen.c_str(), uid, gid), 0);
  Json hook = {{"path", "/bin/sh"},
               {"args", {"sh", "-c", "grep -E '^(Uid|Gid|Groups)' /proc/self/status > " + seen}}};
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"]["createRuntime"] = Json::array({hook});
  std::string bundle = node.bundle("b", "true", patch);
  std::string said = ends(asks("POST", "/v1/enclaves", to_text({{"id", "a"}, {"bundle", bundle}})));
  std::string status = Files::system().read(seen).value_or("");
  std::string number = std::to_string(gid);
  EXPECT_NE(status.find("Gid:\t" + number + "\t" + number + "\t" + number + "\t"),
            std::string::npos)
      << said << status;
  EXPECT_NE(status.find("Uid:\t" + std::to_string(uid) + "\t"), std::string::npos)
      << said << status;
  EXPECT_EQ(("\n" + status).find("\nGroups:\t" + std::to_string(uid) + " "), std::string::npos)
      << "a group he is no member of: " << status;
  (void)ends(asks("DELETE", "/v1/enclaves/a?force=true", ""));
}

// A file that a group may not read stays closed to somebody whose user has that group's number
// only.
TEST_F(TokenGroups, OpenNoFileOfAGroupThatOnlyHasTheUsersNumber) {
  if (uid == 0) GTEST_SKIP() << "every user's group has his own number here";
  std::string bundle = node.bundle("b", "true", {{"hobbes", {{"cores", nullptr}}}});
  ASSERT_EQ(::chown((bundle + "/config.json").c_str(), 0, uid), 0);
  ASSERT_EQ(::chmod((bundle + "/config.json").c_str(), 0640), 0);
  std::string said = ends(asks("POST", "/v1/enclaves", to_text({{"id", "a"}, {"bundle", bundle}})));
  EXPECT_EQ(said.find("succeeded"), std::string::npos) << said;
  (void)ends(asks("DELETE", "/v1/enclaves/a?force=true", ""));
}

}  // namespace
}  // namespace hobbes::test
