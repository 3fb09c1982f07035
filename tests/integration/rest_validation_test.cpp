// The class of words that are taken and ignored: a request is answered for what it says, all of it,
// or refused by the name of what cannot be understood.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class RestValidation : public ::testing::Test {
 protected:
  RestValidation() { node.wake_daemon(); }
  ~RestValidation() override {
    for (const char* id : {"a", "b", "labelled"})
      (void)node.run({"hobbes-run", "delete", "--force", id});
  }
  void start(const std::string& id, const Json& labels = Json::object()) const {
    std::string bundle =
        node.bundle(id, "exec sleep 1000", {{"hobbes", {{"cores", {{"count", 1}}}}}});
    Json ended = node.finished(
        node.rest("POST", "/v1/enclaves",
                  to_text({{"id", id}, {"bundle", bundle}, {"labels", labels}, {"start", true}}))
            .second);
    ASSERT_EQ(text_at(ended, "state"), "succeeded") << to_text(ended);
  }
  // The request is refused, and the answer names what was wrong with it.
  void expect_refused(const std::string& method, const std::string& path, const std::string& body,
                      const std::string& named) const {
    auto [status, problem] = node.rest(method, path, body);
    EXPECT_EQ(status, 400) << method << " " << path << " " << body << ": " << to_text(problem);
    EXPECT_NE(to_text(problem).find(named), std::string::npos)
        << method << " " << path << " " << body << ": " << to_text(problem);
  }
  Node node;
};

TEST_F(RestValidation, UnknownKeysAreRefusedByName) {
  std::string bundle = node.bundle("b", "true", {{"hobbes", {{"cores", nullptr}}}});
  start("a");
  expect_refused("POST", "/v1/enclaves",
                 to_text({{"id", "b"}, {"bundle", bundle}, {"strat", true}}), "strat");
  expect_refused("PATCH", "/v1/enclaves/a", R"({"cores":{"count":1,"policyy":"spread"}})",
                 "policyy");
  expect_refused("PATCH", "/v1/enclaves/a", R"({"cores":{"count":1},"memroy":{"size":"1GiB"}})",
                 "memroy");
  expect_refused("POST", "/v1/enclaves/a/kill", R"({"signl":"HUP"})", "signl");
  expect_refused("POST", "/v1/enclaves/a/exec", R"({"args":["true"],"user":"nobody"})", "user");
  expect_refused("POST", "/v1/enclaves/a/pause", R"({"force":true})", "force");
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "running");
  EXPECT_TRUE(node.enclave("b").empty());
}

TEST_F(RestValidation, ValuesOfAnotherTypeAreRefusedByName) {
  std::string bundle = node.bundle("b", "true", {{"hobbes", {{"cores", nullptr}}}});
  start("a");
  expect_refused("POST", "/v1/enclaves",
                 to_text({{"id", "b"}, {"bundle", bundle}, {"labels", {{"job", 7}}}}), "job");
  expect_refused("POST", "/v1/enclaves",
                 to_text({{"id", "b"}, {"bundle", bundle}, {"labels", {{"job", {{"deep", "7"}}}}}}),
                 "job");
  expect_refused("POST", "/v1/enclaves",
                 to_text({{"id", "b"}, {"bundle", bundle}, {"start", "yes"}}), "start");
  expect_refused("POST", "/v1/enclaves", to_text({{"id", 7}, {"bundle", bundle}}), "id");
  expect_refused("PATCH", "/v1/enclaves/a", R"({"cores":"2"})", "cores");
  expect_refused("PATCH", "/v1/enclaves/a", R"({"cores":{"count":1.5}})", "count");
  expect_refused("PATCH", "/v1/enclaves/a", R"({"memory":{"size":[1]}})", "size");
  expect_refused("POST", "/v1/enclaves/a/kill", R"({"signal":9.5})", "signal");
  expect_refused("POST", "/v1/enclaves/a/exec", R"({"args":["true",7]})", "args");
  expect_refused("POST", "/v1/enclaves/a/exec", R"({"args":["true"],"env":["A=B",7]})", "env");
  expect_refused("POST", "/v1/enclaves/a/exec", R"({"args":["true"],"env":"A=B"})", "env");
  expect_refused("POST", "/v1/enclaves/a/exec", R"({"args":["true"],"cwd":7})", "cwd");
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "running");
}

TEST_F(RestValidation, WordsOfASignalAreNoOptions) {
  start("a");
  expect_refused("POST", "/v1/enclaves/a/kill", R"({"signal":"--all"})", "--all");
  expect_refused("POST", "/v1/enclaves/a/kill", R"({"signal":"NOSUCH"})", "NOSUCH");
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "running");
}

TEST_F(RestValidation, UnknownAndSenselessParametersAreRefusedByName) {
  start("a");
  expect_refused("GET", "/v1/enclaves?labell=job", "", "labell");
  expect_refused("GET", "/v1/enclaves?state=runing", "", "runing");
  expect_refused("GET", "/v1/enclaves?limit=5x", "", "limit");
  expect_refused("GET", "/v1/enclaves?limit=-1", "", "limit");
  expect_refused("GET", "/v1/enclaves?cursor=nonsense", "", "cursor");
  expect_refused("DELETE", "/v1/enclaves/a?force=yes", "", "force");
  expect_refused("PATCH", "/v1/enclaves/a?dryRun=1", R"({"cores":{"count":1}})", "dryRun");
  EXPECT_EQ(text_at(node.enclave("a"), "state"), "running");
}

// A label's value may hold "=", and its name a sign that a URL has another meaning for.
TEST_F(RestValidation, FiltersByLabelsFindValuesWithAnEqualsSign) {
  start("labelled", {{"command", "a=b"}, {"plus", "1+1"}});
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=command=a=b").second["items"].size(), 1U);
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=command%3Da%3Db").second["items"].size(), 1U);
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=command=a").second["items"].size(), 0U);
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=plus%3D1%2B1").second["items"].size(), 1U);
  std::string bundle = node.bundle("b", "true", {{"hobbes", {{"cores", nullptr}}}});
  expect_refused("POST", "/v1/enclaves",
                 to_text({{"id", "b"}, {"bundle", bundle}, {"labels", {{"a=b", "c"}}}}), "a=b");
}

TEST_F(RestValidation, TheRootOfAListIsThatOfItsEnclaves) {
  start("a");
  std::string root = node.folder() + "/other";
  std::string bundle = node.bundle("c", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}});
  node.good({"hobbes-run", "--root", root, "run", "--detach", "--bundle", bundle, "elsewhere"});
  Json items = node.rest("GET", "/v1/enclaves?root=" + root).second["items"];
  ASSERT_EQ(items.size(), 1U) << to_text(items);
  EXPECT_EQ(text_at(items[0], "id"), "elsewhere");
  items = node.rest("GET", "/v1/enclaves?root=" + node.run_folder() + "/enclaves").second["items"];
  ASSERT_EQ(items.size(), 1U) << to_text(items);
  EXPECT_EQ(text_at(items[0], "id"), "a");
  node.good({"hobbes-run", "--root", root, "delete", "--force", "elsewhere"});
}

// What is not there is said at once, not by an operation that fails later or even succeeds.
TEST_F(RestValidation, ActingOnNothingIsNotFound) {
  EXPECT_EQ(node.rest("DELETE", "/v1/enclaves/none").first, 404);
  for (const char* verb : {"start", "kill", "pause", "resume"})
    EXPECT_EQ(node.rest("POST", std::string("/v1/enclaves/none/") + verb).first, 404) << verb;
  EXPECT_EQ(node.rest("POST", "/v1/enclaves/none/exec", R"({"args":["true"]})").first, 404);
  EXPECT_EQ(node.rest("PATCH", "/v1/enclaves/none", R"({"cores":{"count":1}})").first, 404);
}

TEST_F(RestValidation, AMethodThatAResourceDoesNotHaveIsNotAllowed) {
  for (const auto& [method, path] : {std::pair{"PUT", "/v1/enclaves"},
                                     {"DELETE", "/v1/node"},
                                     {"POST", "/v1/topology"},
                                     {"GET", "/v1/enclaves/a/start"}})
    EXPECT_EQ(node.rest(method, path).first, 405) << method << " " << path;
}

TEST_F(RestValidation, TheOutputOfAProgramIsThere) {
  start("a");
  Json begun = node.rest("POST", "/v1/enclaves/a/exec",
                         R"({"args":["sh","-c","echo to one; echo to two >&2; exit 4"]})")
                   .second;
  Json ended = node.finished(begun);
  EXPECT_EQ(ended["exitCode"], 4);
  auto [status, text] = node.rest("GET", "/v1/operations/" + text_at(begun, "operation") + "/logs");
  EXPECT_EQ(status, 200);
  EXPECT_NE(to_text(text).find("to one"), std::string::npos) << to_text(text);
  EXPECT_NE(to_text(text).find("to two"), std::string::npos) << to_text(text);
  EXPECT_TRUE(!ended.contains("log") || Files::system().exists(text_at(ended, "log")))
      << "it names a file that is not there";
}

}  // namespace
}  // namespace hobbes::test
