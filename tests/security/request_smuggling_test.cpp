// The class of requests that end elsewhere than their sender thinks (RFC 9112, sections 6
// and 11.2): what one side takes for a body must not be another side's next request.
#include "attacker.h"

namespace hobbes::test {
namespace {

class RequestSmuggling : public ::testing::Test {
 protected:
  RequestSmuggling() { node.wake_daemon(); }
  // Sends these bytes on one connection and returns all that is answered until it closes, or for
  // two seconds.
  [[nodiscard]] std::string answered(const std::string& bytes) const {
    Outcome outcome = node.run({"/usr/bin/python3", "-c", python(node, R"(
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(RUN + '/api.sock')
s.sendall(bytes.fromhex(sys.argv[1]))
s.settimeout(2)
sys.stdout.buffer.write(until_closed(s))
)"),
                                hexed(bytes)});
    return outcome.out;
  }
  static std::string hexed(const std::string& bytes) {
    std::string out;
    for (char c : bytes) out += hex(static_cast<unsigned char>(c), 2);
    return out;
  }
  static int count(const std::string& text) {
    int n = 0;
    for (std::size_t at = text.find("HTTP/1.1 "); at != std::string::npos;
         at = text.find("HTTP/1.1 ", at + 1))
      ++n;
    return n;
  }
  // What is hidden in a body: a request that leaves a trace.
  [[nodiscard]] std::string hidden() const {
    return "POST /v1/enclaves HTTP/1.1\r\nHost: n\r\nIdempotency-Key: hidden\r\nContent-Length: "
           "36\r\n\r\n{\"id\":\"hidden\",\"bundle\":\"/no/where\"} ";
  }
  void expect_one_answer(const std::string& answer) const {
    EXPECT_EQ(count(answer), 1) << answer;
    Outcome begun =
        node.run({"/usr/bin/python3", "-c",
                  python(node, "print(Control().ask(op='operation.get', operation='1')['ok'])\n")});
    EXPECT_EQ(begun.out, "False\n") << "the body was executed as a request";
  }
  SharedNode node;
};

class RequestSmugglingBy : public RequestSmuggling,
                           public ::testing::WithParamInterface<const char*> {};

TEST_P(RequestSmugglingBy, TheBodyOfARequestIsNotTheNextOne) {
  std::string inner = hidden();
  std::string target = std::string(GetParam()) == "DELETE" ? "/v1/enclaves/none" : "/v1/node";
  expect_one_answer(answered(std::string(GetParam()) + " " + target +
                             " HTTP/1.1\r\nHost: n\r\nContent-Length: " +
                             std::to_string(inner.size()) + "\r\n\r\n" + inner));
}

INSTANTIATE_TEST_SUITE_P(AnyMethod, RequestSmugglingBy, ::testing::Values("GET", "HEAD", "OPTIONS"),
                         [](const auto& test) { return std::string(test.param); });

TEST_F(RequestSmuggling, LengthsThatDifferAreRefused) {
  std::string inner = hidden();
  std::string answer =
      answered("POST /v1/enclaves HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\nContent-Length: " +
               std::to_string(inner.size() + 2) + "\r\n\r\n{}" + inner);
  EXPECT_EQ(answer.substr(0, 13), "HTTP/1.1 400 ") << answer;
  expect_one_answer(answer);
}

TEST_F(RequestSmuggling, LengthsThatAreNoNumbersAreRefused) {
  for (const char* length : {"+2", "0x2", "-1", "2 2", "99999999999999999999", "2;", ""}) {
    std::string answer =
        answered("POST /v1/enclaves HTTP/1.1\r\nHost: n\r\nContent-Length: " + std::string(length) +
                 "\r\n\r\n{}" + hidden());
    EXPECT_TRUE(answer.substr(0, 13) == "HTTP/1.1 400 " || answer.substr(0, 13) == "HTTP/1.1 413 ")
        << length << ": " << answer;
    EXPECT_LE(count(answer), 1) << length << ": " << answer;
  }
}

// A name with a space before its colon (RFC 9112, 5.1), or a line that ends in half a line's end,
// is read differently by different programs.
TEST_F(RequestSmuggling, HeadersThatCanBeReadInTwoWaysAreRefused) {
  std::string inner = hidden();
  for (const std::string& line :
       {"Content-Length : " + std::to_string(inner.size()),
        std::string("Transfer-Encoding : chunked"),
        "Content-Length: 0\nContent-Length: " + std::to_string(inner.size())}) {
    std::string answer =
        answered("POST /v1/enclaves HTTP/1.1\r\nHost: n\r\n" + line + "\r\n\r\n" + inner);
    EXPECT_LE(count(answer), 1) << line << ": " << answer;
    EXPECT_EQ(answer.find("HTTP/1.1 202"), std::string::npos) << line << ": " << answer;
  }
}

// Connections that are kept for a next request delay nobody who has one.
TEST_F(RequestSmuggling, IdleConnectionsOfAUserDelayNobodyElse) {
  std::string path = script(node, "idle", R"(
held = []
for i in range(48):
  s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  s.settimeout(2)
  s.connect(RUN + '/api.sock')
  s.sendall(b'GET /v1/node HTTP/1.1\r\nHost: n\r\n\r\n')
  try: s.recv(65536)
  except OSError: pass
  held.append(s)
  if i == 23: print('there', flush=True)
time.sleep(60)
)");
  Background idle(node, "idle", as_user(attacker, {"/usr/bin/python3", path}));
  ASSERT_TRUE(idle.says("there", 60));
  std::string out = node.run({"/usr/bin/python3", "-c",
                              python(node,
                                     "try: print(http('GET', '/v1/node', limit=4)[0])\nexcept "
                                     "OSError as e: print(e)\n")})
                        .out;
  EXPECT_EQ(out, "200\n") << "idle connections of one user delay others";
}

// The server for other machines reads its connections itself; it takes no more than this one.
TEST(RequestSmugglingByTls, TheBodyOfARequestIsNotTheNextOne) {
  SharedNode node;
  node.good({"sh", "-c",
             "cd " + node.folder() +
                 " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                 "-days 1 -subj /CN=localhost 2>/dev/null"});
  std::string digest =
      node.good({"sh", "-c", "printf secret | sha256sum | cut -c1-64 | tr -d '\\n'"});
  ASSERT_TRUE(replace_file(node.folder() + "/config.json", to_text({{"tokens", {{digest, "0"}}}})));
  Background daemon(node, "daemon",
                    {HOBBES_BUILD_DIR "/bin/hobbesd", "--config", node.folder() + "/config.json",
                     "--listen", "127.0.0.1:18449", "--tls-certificate",
                     node.folder() + "/cert.pem", "--tls-key", node.folder() + "/key.pem"});
  ASSERT_TRUE(eventually([&] { return answers(node, 2); }));
  std::string said = node.run({"/usr/bin/python3", "-c", python(node, R"(
import ssl
context = ssl._create_unverified_context()
s = context.wrap_socket(socket.create_connection(('127.0.0.1', 18449)))
s.settimeout(2)
token = 'Authorization: Bearer secret\r\n'
body = '{"id":"hidden","bundle":"/no/where"}'
inner = f'POST /v1/enclaves HTTP/1.1\r\nHost: n\r\n{token}Content-Length: {len(body)}\r\n\r\n{body}'
outer = f'GET /v1/node HTTP/1.1\r\nHost: n\r\n{token}Content-Length: {len(inner)}\r\n\r\n'
s.sendall(outer.encode())
time.sleep(0.5)
s.sendall(inner.encode())
said = until_closed(s)
print(said.count(b'HTTP/1.1 '), Control().ask(op='operation.get', operation='1')['ok'], said)
)")})
                         .out;
  EXPECT_EQ(said.substr(0, 8), "1 False ") << said;
}

}  // namespace
}  // namespace hobbes::test
