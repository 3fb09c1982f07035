// The REST API over its Unix socket, with curl as the client.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "api/routes.h"
#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

std::string body(const Node&, const std::string& id, const std::string& bundle) {
  return to_text({{"id", id}, {"bundle", bundle}, {"labels", {{"job", "7"}}}});
}

TEST(Rest, AnEnclaveLivesThroughTheApi) {
  Node node;
  node.wake_daemon();
  std::string bundle = node.bundle("b", "echo from inside; exec sleep 1000");
  auto [planned, placement] =
      node.rest("POST", "/v1/enclaves?dryRun=true", body(node, "a", bundle));
  EXPECT_EQ(planned, 200);
  EXPECT_EQ(text_at(placement, "cpus"), "0");
  auto [created, operation] = node.rest("POST", "/v1/enclaves", body(node, "a", bundle));
  EXPECT_EQ(created, 202);
  EXPECT_EQ(text_at(node.finished(operation), "state"), "succeeded");
  EXPECT_EQ(text_at(node.rest("GET", "/v1/enclaves/a").second, "state"), "created");
  EXPECT_EQ(text_at(node.finished(node.rest("POST", "/v1/enclaves/a/start").second), "state"),
            "succeeded");
  EXPECT_TRUE(eventually(
      [&] { return node.rest("GET", "/v1/enclaves/a/logs").second == Json("from inside\n"); }));
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=job%3D7").second["items"].size(), 1U);
  EXPECT_EQ(node.rest("GET", "/v1/enclaves?label=job%3D8").second["items"].size(), 0U);
  EXPECT_EQ(
      text_at(
          node.finished(
              node.rest("POST", "/v1/enclaves/a/exec", R"({"args":["sh","-c","exit 4"]})").second),
          "state"),
      "failed");
  EXPECT_EQ(text_at(node.finished(
                        node.rest("PATCH", "/v1/enclaves/a", R"({"cores":{"count":2}})").second),
                    "state"),
            "succeeded");
  EXPECT_EQ(text_at(node.rest("GET", "/v1/enclaves/a").second, "cpus"), "0-1");
  node.finished(node.rest("POST", "/v1/enclaves/a/pause").second);
  EXPECT_EQ(text_at(node.rest("GET", "/v1/enclaves/a").second, "state"), "paused");
  node.finished(node.rest("POST", "/v1/enclaves/a/resume").second);
  node.finished(node.rest("POST", "/v1/enclaves/a/kill", R"({"signal":"KILL"})").second);
  EXPECT_TRUE(eventually(
      [&] { return text_at(node.rest("GET", "/v1/enclaves/a").second, "state") == "stopped"; }));
  EXPECT_EQ(node.rest("GET", "/v1/enclaves/a").second["exitStatus"], 137);
  EXPECT_EQ(text_at(node.finished(node.rest("DELETE", "/v1/enclaves/a").second), "state"),
            "succeeded");
  EXPECT_EQ(node.rest("GET", "/v1/enclaves/a").first, 404);
  node.expect_clean();
}

TEST(Rest, FailuresOfOperationsSayWhatHobbesRunSaid) {
  Node node;
  node.wake_daemon();
  Json ended =
      node.finished(node.rest("POST", "/v1/enclaves", body(node, "a", "/no/such/bundle")).second);
  EXPECT_EQ(text_at(ended, "state"), "failed");
  EXPECT_NE(text_at(ended["error"], "cause").find("no such file or directory"), std::string::npos)
      << to_text(ended);
  node.expect_clean();
}

TEST(Rest, TheSameIdempotencyKeyIsTheSameOperation) {
  Node node;
  node.wake_daemon();
  std::string bundle = node.bundle("b", "exec sleep 1000");
  auto first =
      node.rest("POST", "/v1/enclaves", body(node, "a", bundle), {"Idempotency-Key: k1"}).second;
  auto second =
      node.rest("POST", "/v1/enclaves", body(node, "a", bundle), {"Idempotency-Key: k1"}).second;
  EXPECT_EQ(text_at(first, "operation"), text_at(second, "operation"));
  EXPECT_EQ(
      node.rest("POST", "/v1/enclaves", body(node, "b", bundle), {"Idempotency-Key: k1"}).first,
      400)
      << "another request under the same key";
  EXPECT_EQ(text_at(node.finished(first), "state"), "succeeded");
}

TEST(Rest, AChangeUnderAnOldETagIsRefused) {
  Node node;
  node.wake_daemon();
  node.finished(
      node.rest("POST", "/v1/enclaves", body(node, "a", node.bundle("b", "exec sleep 1000")))
          .second);
  std::string headers = node.run({"sh", "-c",
                                  "curl -s -D - -o /dev/null --unix-socket " + node.run_folder() +
                                      "/api.sock http://n/v1/enclaves/a"})
                            .out;
  std::size_t at = headers.find("ETag: ");
  ASSERT_NE(at, std::string::npos) << headers;
  std::string etag = headers.substr(at + 6, headers.find('\r', at) - at - 6);
  EXPECT_EQ(node.rest("GET", "/v1/enclaves/a", "", {"If-None-Match: " + etag}).first, 304);
  node.finished(node.rest("POST", "/v1/enclaves/a/start").second);
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("a"), "state") == "running"; }));
  EXPECT_EQ(node.rest("DELETE", "/v1/enclaves/a?force=true", "", {"If-Match: " + etag}).first, 412);
  EXPECT_EQ(node.rest("DELETE", "/v1/enclaves/a?force=true", "", {"If-Match: *"}).first, 202);
  node.expect_clean();
}

TEST(Rest, BadRequestsAreAnsweredAsProblems) {
  Node node;
  node.wake_daemon();
  for (const auto& [method, path, text, status] :
       std::vector<std::tuple<std::string, std::string, std::string, int>>{
           {"POST", "/v1/enclaves", "nonsense", 400},
           {"POST", "/v1/enclaves", "[1]", 400},
           {"POST", "/v1/enclaves", R"({"id":"a/b","bundle":"/x"})", 400},
           {"POST", "/v1/enclaves", R"({"id":"a","bundle":"relative"})", 400},
           {"POST", "/v1/enclaves", R"({"id":"a","bundle":"/x","labels":[1]})", 400},
           {"GET", "/v1/nothing", "", 404},
           {"GET", "/v1/enclaves/nobody", "", 404},
           {"PATCH", "/v1/enclaves/nobody", "{}", 404},
           {"GET", "/v1/enclaves?limit=no", "", 400},
           {"GET", "/v1/operations/99999", "", 404}}) {
    auto [answered, problem] = node.rest(method, path, text);
    EXPECT_EQ(answered, status) << method << path << text;
    EXPECT_EQ(problem["status"], status) << to_text(problem);
    EXPECT_FALSE(text_at(problem, "title").empty());
  }
  ASSERT_TRUE(replace_file(node.folder() + "/huge", std::string(6 << 20, 'x')));
  EXPECT_EQ(node.rest("POST", "/v1/enclaves", "@" + node.folder() + "/huge").first, 413);
  EXPECT_NE(node.daemon(), 0);
}

TEST(Rest, SlowAndSilentClientsDelayNobody) {
  Node node;
  node.wake_daemon();
  std::vector<int> slow;
  for (int i = 0; i < 60; ++i) {
    int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, (node.run_folder() + "/api.sock").c_str(),
                 sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_GT(::send(fd, "POST /v1/enc", 12, MSG_NOSIGNAL), 0);
    slow.push_back(fd);
  }
  // Launches do not pass through REST at all; REST itself is free again when the half-sent requests
  // have timed out.
  node.good({"hobbes-run", "run", "--bundle", node.bundle("b", "true"), "a"}, 5);
  EXPECT_TRUE(eventually([&] { return node.rest("GET", "/v1/node").first == 200; }, 40));
  for (int fd : slow) ::close(fd);
}

TEST(Rest, EventsStreamAndResumeAfterTheLastSeen) {
  Node node;
  node.wake_daemon();
  std::string curl = "timeout 4 curl -sN --unix-socket " + node.run_folder() + "/api.sock ";
  node.good({"hobbes-run", "run", "--bundle", node.bundle("b", "true"), "a"});
  Json now = *parse_json(node.good({"hobbes", "node", "--json"}), "node");
  std::string from = std::to_string(number_at(now, "sequence") - 3);
  std::string out =
      node.run({"sh", "-c", curl + "-H 'Last-Event-ID: " + from + "' http://n/v1/events"}).out;
  EXPECT_NE(out.find("id: " + std::to_string(number_at(now, "sequence") - 2)), std::string::npos)
      << out;
  EXPECT_NE(out.find("\"type\":\"enclave\""), std::string::npos) << out;
  EXPECT_EQ(node.rest("GET", "/v1/events", "", {"Last-Event-ID: 999999999"}).first, 410);
}

TEST(Rest, MetricsAndPagesAndTopology) {
  Node node;
  node.wake_daemon();
  EXPECT_NE(
      node.rest("GET", "/metrics").second.get<std::string>().find("hobbes_cores{state=\"free\"} 2"),
      std::string::npos);
  EXPECT_EQ(node.rest("GET", "/v1/topology").second["cores"].size(), 2U);
  EXPECT_TRUE(node.rest("GET", "/v1/node").second.contains("inventory"));
  for (const char* id : {"a", "b", "c"})
    node.good({"hobbes-run", "create", "--bundle",
               node.bundle(id, "true", {{"hobbes", {{"cores", nullptr}}}}), id});
  std::set<std::string> seen;
  std::string cursor;
  for (int page = 0; page < 4; ++page) {
    Json got =
        node.rest("GET", "/v1/enclaves?limit=1" + (cursor.empty() ? "" : "&cursor=" + cursor))
            .second;
    for (const Json& item : got["items"]) seen.insert(text_at(item, "id"));
    cursor = text_at(got, "next");
    if (cursor.empty()) break;
  }
  EXPECT_EQ(seen, (std::set<std::string>{"a", "b", "c"}));
}

TEST(Rest, TheOpenApiDocumentListsExactlyTheRoutes) {
  std::set<std::string> documented, served;
  std::string path;
  std::istringstream lines(openapi_text());
  bool paths = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != ' ') paths = line == "paths:";
    if (paths && line.rfind("  /", 0) == 0) path = line.substr(2, line.size() - 3);
    if (paths && line.rfind("    ", 0) == 0 && line[4] != ' ' && line.back() == ':') {
      std::string method = line.substr(4, line.size() - 5);
      for (char& c : method) c = static_cast<char>(std::toupper(c));
      documented.insert(method + " " + path);
    }
  }
  for (const RouteName& route : route_names()) served.insert(route.method + " " + route.path);
  EXPECT_EQ(documented, served);
}

TEST(Rest, TcpNeedsTlsAndAKnownToken) {
  Node node;
  std::string daemon = HOBBES_BUILD_DIR "/bin/hobbesd";
  Outcome refused = node.run({daemon, "--foreground", "--listen", "127.0.0.1:18443"});
  EXPECT_NE(refused.err.find("TCP needs TLS and tokens"), std::string::npos) << refused.err;
  node.good({"sh", "-c",
             "cd " + node.folder() +
                 " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                 "-days 1 -subj /CN=localhost 2>/dev/null"});
  std::string digest =
      node.good({"sh", "-c", "printf secret | sha256sum | cut -c1-64 | tr -d '\\n'"});
  ASSERT_TRUE(replace_file(node.folder() + "/config.json", to_text({{"tokens", {{digest, "0"}}}})));
  node.good({"sh", "-c",
             daemon + " --config " + node.folder() +
                 "/config.json --listen 127.0.0.1:18443 --tls-certificate " + node.folder() +
                 "/cert.pem --tls-key " + node.folder() + "/key.pem >/dev/null 2>&1 &"});
  auto status = [&](const std::string& header) {
    return node
        .run({"sh", "-c",
              "curl -sk -o /dev/null -w '%{http_code}' " + header +
                  " https://127.0.0.1:18443/v1/node"})
        .out;
  };
  EXPECT_TRUE(eventually([&] { return status("-H 'Authorization: Bearer secret'") == "200"; }));
  EXPECT_EQ(status("-H 'Authorization: Bearer wrong'"), "401");
  EXPECT_EQ(status(""), "401");
}

}  // namespace
}  // namespace hobbes::test
