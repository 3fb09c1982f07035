// What hostile programs make of names, queues and process ids: hobbesd and others' names stay as
// they are.
#include <fcntl.h>
#include <sys/stat.h>

#include "attack.h"
#include "core/file.h"
#include "ipc/client.h"
#include "nis/names.h"

namespace hobbes::test {
namespace {

using std::chrono::seconds;

Result<Message> ask_node_manager(const std::string& op, const Json& request) {
  auto client = Client::connect(false);
  if (!client) return std::move(client).error();
  return client->call(op, request, {}, seconds(5));
}

TEST(FabricAbuse, AListenerThatMakesItsQueueBlockingHoldsHobbesdUpForNobody) {
  Node node;
  node.wake_daemon();
  auto listening = ask_node_manager(
      "name.publish", {{"name", "trap"}, {"kind", "service"}, {"scope", "node"}, {"mode", 0600}});
  ASSERT_TRUE(listening) << listening.error().text();
  ASSERT_EQ(listening->fds.size(), 2U);
  for (const Fd& end : listening->fds) ASSERT_EQ(::fcntl(end.get(), F_SETFL, 0), 0);
  Code refusal = Code::os;
  for (int i = 0; i < 2000 && refusal != Code::busy; ++i) {
    auto connected = ask_node_manager("channel.connect", {{"name", "trap"}});
    if (!connected) refusal = connected.error().code;
    ASSERT_TRUE(connected || refusal == Code::busy) << connected.error().text();
  }
  EXPECT_EQ(refusal, Code::busy) << "its queue has an end";
  EXPECT_TRUE(ask_node_manager("ping", Json::object()));
}

TEST(FabricAbuse, RefusedNamesTakeNoPlaceInTheMirror) {
  Node node;
  node.wake_daemon();
  auto size = [&] {
    struct stat info {};
    return ::stat((node.run_folder() + "/nis").c_str(), &info) == 0 ? info.st_size : -1;
  };
  const auto before = size();
  auto client = Client::connect(false);
  ASSERT_TRUE(client);
  for (int i = 0; i < 20'000; ++i) {
    const Json wrong = i % 3 == 0   ? Json{{"kind", "segment"}, {"segment", 0}}
                       : i % 3 == 1 ? Json{{"kind", "service"}, {"ring", 5}}
                                    : Json{{"kind", "value"}, {"value", "zz"}};
    Json request = {{"name", "never"}};
    request.update(wrong);
    ASSERT_FALSE(client->call("name.publish", request, {}, seconds(5)));
  }
  ASSERT_TRUE(client->call("name.publish", {{"name", "once"}, {"kind", "value"}, {"value", "31"}},
                           {}, seconds(5)));
  EXPECT_EQ(size(), before);
  EXPECT_EQ(parse_json(node.good({"hobbes", "names", "--json"}), "names")->size(), 1U);
}

TEST(FabricAbuse, User0OfAnEnclaveIsNotRootForNamesAndProcesses) {
  Node node;
  node.wake_daemon();
  node.good({"hobbes", "publish", "every", "50"});
  const std::string attack = R"(
import json, os, socket
def ask_node_manager(op, **request):
  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  s.connect(os.environ["HOBBES_RUN_DIR"] + "/control.sock")
  s.send(json.dumps({"op": op, **request}).encode())
  return json.loads(s.recv(1 << 18))
me = ask_node_manager("self")
def code(answer): return "done" if answer["ok"] else answer["error"]["code"]
print(code(ask_node_manager("name.publish", name="every", kind="value", value="31", replace=True)))
print(code(ask_node_manager("process.begin", handle=me["enclave"], pid=1, program="init")))
print(code(ask_node_manager("process.kill", id=int(os.environ["VICTIM"], 16), signal=9)))
print(code(ask_node_manager("name.withdraw", handle=int(os.environ["NAME"], 16))))
)";
  ASSERT_EQ(node.create("victim", node.bundle("victim", "exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "victim"});
  Json processes = *parse_json(node.good({"hobbes", "ps", "--json"}), "ps"),
       names = *parse_json(node.good({"hobbes", "names", "--json"}), "names");
  ASSERT_EQ(processes.size(), 1U);
  ASSERT_EQ(names.size(), 1U);
  std::string bundle = node.bundle("attacker", "", {{"hobbes", {{"manage", "self"}}}});
  edit(bundle, [&](Json& config) {
    config["process"]["args"] = {"python3", "-c", attack};
    config["process"]["env"] = {"PATH=/usr/bin:/bin", "HOBBES_RUN_DIR=" + node.run_folder(),
                                "VICTIM=" + text_at(processes[0], "handle"),
                                "NAME=" + text_at(names[0], "handle")};
  });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "attacker"}),
            "done\ndenied\ndenied\ndenied\n")
      << "what it publishes is its own";
  auto nis = NisReader::open(node.run_folder() + "/nis");
  ASSERT_TRUE(nis);
  auto found = find_name(**nis, {"every", 0, -1}, {0, 0, 0, 0});
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(found->body.name.value[0], '5') << "root finds what root has published";
  EXPECT_EQ(node.enclave("victim").value("state", ""), "running");
  node.good({"hobbes-run", "delete", "--force", "victim"});
}

}  // namespace
}  // namespace hobbes::test
