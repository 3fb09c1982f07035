// The class of what one user takes from all: everything that hobbesd keeps for somebody is counted
// by user, refused by name beyond a limit, and leaves room for root.
#include "attacker.h"
#include "nis/nis.h"

namespace hobbes::test {
namespace {

class Quota : public ::testing::Test {
 protected:
  Quota() {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  [[nodiscard]] std::string as(uid_t uid, const std::string& text, int seconds = 100) const {
    Outcome outcome =
        node.run(as_user(uid, {"/usr/bin/python3", script(node, "quota", text)}), seconds);
    return outcome.out + outcome.err;
  }
  [[nodiscard]] std::string as_root(const std::string& text) const {
    Outcome outcome = node.run({"/usr/bin/python3", "-c", python(node, text)}, 60);
    return outcome.out + outcome.err;
  }
  // He was refused, and told why in words that name a limit.
  static void expect_refused(const std::string& out) {
    EXPECT_NE(out.find("refused"), std::string::npos) << "nothing stopped him: " << out;
    EXPECT_NE(out.find("exhausted"), std::string::npos) << out;
  }
  Node node;
};

const char* const make_segments = R"(
import fcntl
c = Control()
def make(name, **more):
  m = os.memfd_create('m', os.MFD_ALLOW_SEALING)
  os.ftruncate(m, 4096)
  fcntl.fcntl(m, 1033, 7)
  said = c.ask(op='segment.make', name=name, mode=0o600, fd=m, **more)
  os.close(m)
  return said
)";

TEST_F(Quota, PersistentSegmentsOfAUserHaveALimit) {
  std::string out = as(attacker, std::string(make_segments) + R"(
for i in range(3000):
  said = make(f's{i}', persistent=True)
  if not said['ok']: print('refused', i, said); break
)");
  expect_refused(out);
  EXPECT_NE(as_root(std::string(make_segments) + "print(make('roots', persistent=True)['ok'])\n")
                .find("True"),
            std::string::npos);
}

TEST_F(Quota, SegmentsOfAUserHaveALimit) {
  std::string out = as(attacker, std::string(make_segments) + R"(
for i in range(3000):
  said = make(f's{i}')
  if not said['ok']: print('refused', i, said); break
)");
  expect_refused(out);
}

// One segment is enough for many attachments, each of them a record, and with a doorbell a pipe of
// hobbesd's.
TEST_F(Quota, AttachmentsAndListenersOfAUserHaveALimit) {
  std::string out = as(attacker, std::string(make_segments) + R"(
made = 0
for i in range(300):
  said = make(f's{i}')
  if not said['ok']: print('refused', said); break
  for _ in range(20):
    c.send(op='segment.attach', name=f's{i}')
    text, fds, _, _ = socket.recv_fds(c.s, 1 << 18, 8)
    for fd in fds: os.close(fd)
    said = json.loads(text)
    if not said['ok']: print('refused', made, said); os._exit(0)
    made += 1
    c.send(op='segment.listen', attachment=said['attachment'])
    text, fds, _, _ = socket.recv_fds(c.s, 1 << 18, 8)
    for fd in fds: os.close(fd)
    said = json.loads(text)
    if not said['ok']: print('refused', made, said); os._exit(0)
)");
  expect_refused(out);
}

TEST_F(Quota, CompositionsOfAUserHaveALimit) {
  std::string out = as(attacker, R"(
c = Control()
for i in range(300):
  said = c.ask(op='composition.begin', name=f'c{i}', apps=[{'name': 'a', 'ranks': 1}])
  if not said['ok']: print('refused', i, said); break
)");
  expect_refused(out);
  EXPECT_NE(as_root("print(Control().ask(op='composition.begin', name='roots', apps=[])['ok'])\n")
                .find("True"),
            std::string::npos);
}

// Many small ones or few large ones: it is the ranks that fill the mirror.
TEST_F(Quota, RanksOfAUserHaveALimit) {
  std::string out = as(attacker, R"(
c = Control()
for i in range(20):
  said = c.ask(op='composition.begin', name=f'c{i}', apps=[{'name': 'a', 'ranks': 4000}])
  if not said['ok']: print('refused', i, said); break
)");
  expect_refused(out);
}

TEST_F(Quota, KeysOfACompositionHaveALimit) {
  std::string out = as(attacker, R"(
c = Control()
h = c.ask(op='composition.begin', name='c', apps=[])['handle']
for batch in range(80):
  said = c.ask(op='composition.keys', handle=h, keys={f'k{batch}.{i}': 'v' for i in range(1000)})
  if not said['ok']: print('refused', batch, said); break
)");
  expect_refused(out);
}

// Each operation is a process, which takes as long as its bundle's hooks.
TEST_F(Quota, OperationsOfAUserHaveALimitAndAreCountedAsHis) {
  Json hook = {{"path", "/bin/sleep"}, {"args", {"sleep", "20"}}};
  Json patch = {{"hobbes", {{"cores", nullptr}}}};
  patch["hooks"]["createRuntime"] = Json::array({hook});
  std::string bundle = node.bundle("slow", "true", patch);
  std::string out = as(attacker, R"(
held = []
for i in range(200):
  status, text = http('POST', '/v1/enclaves', {'id': f'e{i}', 'bundle': ')" +
                                     bundle + R"('})
  if status != 202: print('refused', i, status, text); break
)");
  expect_refused(out);
  std::string bundle_of_root = node.bundle("b", "true");
  auto [status, operation] =
      node.rest("POST", "/v1/enclaves", to_text(Json{{"id", "roots"}, {"bundle", bundle_of_root}}));
  EXPECT_EQ(status, 202);
  // An operation that outlives the test would start another hobbesd.
  EXPECT_EQ(text_at(node.finished(operation), "state"), "succeeded");
  node.good({"hobbes-run", "delete", "--force", "roots"});
  EXPECT_TRUE(eventually([&] {
    (void)node.run({"pkill", "-KILL", "-u", "1235", "sleep"});
    return node.run({"pgrep", "-u", "1235", "hobbes-run"}).out.empty();
  })) << "the user's operations end with their hooks";
}

TEST_F(Quota, EventStreamsOfAUserLeaveOneForRoot) {
  std::string path = script(node, "streams", R"(
held = []
for i in range(40):
  s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  s.connect(RUN + '/api.sock')
  s.sendall(b'GET /v1/events HTTP/1.1\r\nHost: n\r\n\r\n')
  held.append(s)
time.sleep(1)
print('there', flush=True)
time.sleep(60)
)");
  Background streams(node, "streams", as_user(attacker, {"/usr/bin/python3", path}));
  ASSERT_TRUE(streams.says("there"));
  std::string head = node.run({"sh", "-c",
                               "timeout 3 curl -sN -D - -o /dev/null --unix-socket " +
                                   node.run_folder() + "/api.sock http://n/v1/events"})
                         .out;
  EXPECT_EQ(head.substr(0, 12), "HTTP/1.1 200") << head;
  EXPECT_EQ(node.rest("GET", "/v1/node").first, 200);
}

TEST_F(Quota, HalfSentRequestsOfAUserDelayNobodyElse) {
  std::string path = script(node, "half", R"(
held = []
for i in range(400):
  try:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(0.05)
    s.connect(RUN + '/api.sock')
    s.send(b'POST /v1/enc')
    held.append(s)
  except OSError: pass
print('there', flush=True)
time.sleep(60)
)");
  Background half(node, "half", as_user(attacker, {"/usr/bin/python3", path}));
  ASSERT_TRUE(half.says("there", 40));
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(node.rest("GET", "/v1/node").first, 200)
        << "one user's half-sent requests stop the API";
}

// What remembers an idempotency key goes with the operation that it remembers.
TEST_F(Quota, IdempotencyKeysAreForgotten) {
  std::string out = as(attacker, R"(
for i in range(1300):
  s = Control()
  said = s.ask(op='operation.begin', verb='delete', root=RUN + f'/users/{os.getuid()}',
               id='none', key=f'k{i}')
  if not said['ok']: print('refused', i, said); break
  number = said['operation']
  while s.ask(op='operation.get', operation=number).get('state') == 'running':
    time.sleep(0.002)
print('asked')
)",
                       300);
  ASSERT_NE(out.find("asked"), std::string::npos) << out;
  node.kill_daemon();
  auto nis = Nis::open(node.folder() + "/state", node.run_folder());
  ASSERT_TRUE(nis) << nis.error().text();
  EXPECT_LE((*nis)->document_names("volatile/key/").size(), 1001U)
      << "keys of operations that nobody remembers";
  EXPECT_LE((*nis)->document_names("volatile/operation/").size(), 1001U);
}

}  // namespace
}  // namespace hobbes::test
