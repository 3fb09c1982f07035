// The page that shows the node, on a loopback port: who is admitted, what a browser shows and does.
#include <fstream>

#include "core/file.h"
#include "integration/segment_peer.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

class Dashboard : public ::testing::Test {
 protected:
  Dashboard() { node.wake_daemon(); }
  ~Dashboard() override { stop(); }
  // Starts `hobbes dashboard`, as another user when `as` is given; `url` is what it has printed.
  void start(const std::string& as = "") {
    const std::string out = node.folder() + "/dashboard";
    node.good({"sh", "-c",
               "cd / && " + (as.empty() ? "" : "setpriv --clear-groups --reuid " + as + " ") +
                   std::string(HOBBES_BUILD_DIR "/bin/hobbes dashboard --json >") + out +
                   " 2>&1 & echo $! >" + node.folder() + "/pid"});
    ASSERT_TRUE(eventually([&] {
      auto printed = parse_json(Files::system().read(out, 4096).value_or(""), "output");
      if (printed) url = text_at(*printed, "url");
      return !url.empty();
    })) << Files::system().read(out, 4096).value_or("");
    base = url.substr(0, url.find("/#"));
  }
  void stop() { node.run({"sh", "-c", "kill $(cat " + node.folder() + "/pid) 2>/dev/null"}); }
  // The status of a request, with the session when the browser was admitted.
  std::string status(const std::string& options, const std::string& path) {
    return node
        .run({"sh", "-c",
              "curl -s -m 10 -o " + node.folder() + "/body -w '%{http_code}' -H 'Authorization: " +
                  "Bearer " + session + "' " + options + " '" + base + path + "'"})
        .out;
  }
  // What the page does first: the token is exchanged for a session.
  std::string exchange(const std::string& token, const std::string& options = "") {
    const std::string answered =
        status("-d '{\"token\":\"" + token + "\"}' " + options, "/session");
    if (answered == "200") session = text_at(*parse_json(body(), "session"), "session");
    return answered;
  }
  void enter() { ASSERT_EQ(exchange(token()), "200") << body(); }
  [[nodiscard]] std::string token() const { return url.substr(url.find("token=") + 6); }
  std::string body() { return Files::system().read(node.folder() + "/body", 1 << 20).value_or(""); }

  Node node;
  std::string url, base, session;
};

TEST_F(Dashboard, ItsAddressAdmitsOneBrowserOnce) {
  start();
  EXPECT_EQ(status("", "/v1/node"), "401") << "nobody is admitted yet";
  EXPECT_EQ(status("", "/"), "200") << "the page itself says nothing of the node";
  EXPECT_NE(body().find("dashboard.js"), std::string::npos);
  EXPECT_EQ(status("", "/dashboard.js"), "200");
  EXPECT_EQ(exchange("00"), "403");
  EXPECT_EQ(exchange(token(), "-H 'Origin: http://127.0.0.1:1'"), "403") << "and is not used up";
  enter();
  EXPECT_EQ(status("", "/v1/node"), "200");
  EXPECT_EQ(exchange(token()), "403") << "the token is used up";
  session += "0";
  EXPECT_EQ(status("", "/v1/node"), "401");
  const std::string headers = node.good({"curl", "-s", "-D", "-", "-o", "/dev/null", base});
  EXPECT_EQ(headers.find("Set-Cookie"), std::string::npos)
      << "browsers show cookies of a host to all its ports: " << headers;
}

TEST_F(Dashboard, APortIsOneServers) {
  start();
  const std::string port = base.substr(base.rfind(':') + 1);
  Outcome second = node.run({"hobbes", "dashboard", "--port", port});
  EXPECT_NE(second.err.find("the port cannot be taken"), std::string::npos) << second.err;
  EXPECT_EQ(status("-H 'Range: bytes=0-,0-,0-'", "/dashboard.js"), "416");
}

TEST_F(Dashboard, HobbesdMayBeRestartedMeanwhile) {
  start();
  enter();
  EXPECT_EQ(status("", "/v1/node"), "200");
  node.kill_daemon();
  EXPECT_EQ(status("", "/v1/node"), "503") << "a page does not start it: " << body();
  node.wake_daemon();
  EXPECT_EQ(status("", "/v1/node"), "200") << body();
}

TEST_F(Dashboard, RequestsOfOtherPagesAreRefused) {
  start();
  enter();
  const std::string host = base.substr(7);
  for (const char* foreign :
       {"-H 'Host: hobbes.example'", "-H 'Host: 127.0.0.1.example'", "-H 'Host: localhost:x'",
        "-H 'Origin: http://127.0.0.1:1'", "-H 'Origin: null'", "-H 'Sec-Fetch-Site: cross-site'",
        "-H 'Sec-Fetch-Site: same-site'"}) {
    EXPECT_EQ(status(foreign, "/v1/node"), "401") << foreign;
    EXPECT_EQ(status(std::string("-X POST -d '{}' ") + foreign, "/v1/enclaves/none/pause"), "401")
        << foreign;
  }
  EXPECT_EQ(status("-X POST -d '{}' -H 'Sec-Fetch-Site: same-origin' -H 'Origin: " + base + "'",
                   "/v1/enclaves/none/pause"),
            "404");
  EXPECT_EQ(status("-H 'Host: localhost:9000'", "/v1/node"), "200") << "a forwarded port";
  auto headers = node.good({"curl", "-s", "-D", "-", "-o", "/dev/null", base + "/dashboard.css"});
  EXPECT_NE(headers.find("frame-ancestors 'none'"), std::string::npos) << headers;
}

TEST_F(Dashboard, AUserWithoutRightsSeesTheNodeAndChangesNothing) {
  EXPECT_EQ(node.create("mine", node.bundle("b", "echo secret; exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "mine"});
  node.good({"chmod", "755", node.folder()});
  start("65534");
  enter();
  EXPECT_EQ(status("", "/v1/enclaves"), "200");
  EXPECT_NE(body().find("\"mine\""), std::string::npos) << body();
  const std::string root = "?root=" + node.run_folder() + "/enclaves";
  for (const char* verb : {"pause", "kill"}) {
    const std::string answered =
        status("-X POST -d '{}'", "/v1/enclaves/mine/" + std::string(verb) + root);
    EXPECT_TRUE(answered == "403" || answered == "404") << verb << ": " << answered << body();
  }
  const std::string removed = status("-X DELETE", "/v1/enclaves/mine" + root + "&force=true");
  EXPECT_TRUE(removed == "403" || removed == "404") << removed << body();
  EXPECT_NE(status("", "/v1/enclaves/mine/logs" + root), "200");
  // Without the root, which is not told to him, the page would act on an enclave of his own.
  EXPECT_EQ(status("", "/v1/enclaves"), "200");
  EXPECT_EQ(body().find("\"root\""), std::string::npos) << body();
  EXPECT_EQ(text_at(node.enclave("mine"), "state"), "running");
}

TEST_F(Dashboard, AThousandEventStreamsLeaveItUsable) {
  start();
  enter();
  const std::string script = R"python(
import socket, sys
port = int(sys.argv[1])
head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {sys.argv[2]}\r\n\r\n"
streams = []
for _ in range(1000):
    one = socket.create_connection(("127.0.0.1", port), 10)
    one.sendall(f"GET /v1/events {head}".encode())
    streams.append(one)
first = [one.recv(12).decode() for one in streams]
assert first.count("HTTP/1.1 200") == 16 and first.count("HTTP/1.1 507") == 984, set(first)
one = socket.create_connection(("127.0.0.1", port), 10)
one.sendall(f"GET /v1/node {head}".encode())
assert one.recv(12) == b"HTTP/1.1 200"
)python";
  node.good({"/usr/bin/python3", "-c", script, base.substr(base.rfind(':') + 1), session}, 50);
  EXPECT_TRUE(eventually([&] { return status("-m 1 -N", "/v1/events") == "200"; }, 20))
      << "those that have gone make room";
}

TEST_F(Dashboard, ABrowserShowsTheNodeAndActsOnIt) {
  const std::string here = "export HOBBES_RUN_DIR=" + node.run_folder() + "; ";
  // What runs through REST keeps its output.
  node.finished(
      node.rest(
              "POST", "/v1/enclaves",
              to_text({{"id", "sim"},
                       {"bundle", node.bundle("sim", here + "tail -f /dev/null | " + segment_peer +
                                                         " make melt.frames 1048576 "
                                                         "666")},
                       {"start", true}}))
          .second);
  ASSERT_TRUE(eventually([&] {
    return node.good({"hobbes", "segments", "--json"}).find("melt.frames") != std::string::npos;
  }));
  node.finished(
      node.rest("POST", "/v1/enclaves",
                to_text(
                    {{"id", "viz"},
                     {"bundle",
                      node.bundle(
                          "viz", here + "while :; do " + segment_peer + " hear melt.frames 9; done",
                          {{"hobbes", {{"cores", nullptr}, {"heartbeat", 100}}}})},
                     {"start", true}}))
          .second);
  node.good({"hobbes", "publish", "greeting", "hello"});
  start();
  const char* picture = ::getenv("HOBBES_PICTURE");
  Outcome shown =
      node.run({"/usr/bin/python3", HOBBES_SOURCE_DIR "/tests/integration/dashboard_browser.py",
                url, node.folder(), picture != nullptr ? picture : "/dev/null"},
               110);
  EXPECT_EQ(shown.wait_status, 0) << shown.out << shown.err;
  EXPECT_EQ(node.enclave("sim"), Json::object()) << "it was deleted by the browser";
}

TEST_F(Dashboard, TheDrawingIsAlsoADocumentOfItsOwn) {
  EXPECT_EQ(node.create("owner", node.bundle("b", "exec sleep 1000")).wait_status, 0);
  const std::string drawing = node.good({"hobbes", "topology", "--svg"});
  auto [code, served] = node.rest("GET", "/v1/topology.svg");
  EXPECT_EQ(code, 200);
  EXPECT_EQ(served, Json(drawing));
  const std::string check = R"python(
import sys, xml.etree.ElementTree as tree
svg = "{http://www.w3.org/2000/svg}"
root = tree.fromstring(sys.stdin.read())
titles = [one.text for one in root.iter(svg + "title")]
cores = [one for one in titles if one.startswith("core ")]
assert len(cores) == int(sys.argv[1]), titles
assert sum(one.endswith(": owner") for one in cores) == 1, cores
)python";
  const std::string file = node.folder() + "/drawing.svg";
  ASSERT_TRUE(replace_file(file, drawing));
  const auto cores = node.rest("GET", "/v1/node").second["inventory"]["cores"].size();
  node.good(
      {"sh", "-c", "/usr/bin/python3 -c '" + check + "' " + std::to_string(cores) + " <" + file});
}

}  // namespace
}  // namespace hobbes::test
