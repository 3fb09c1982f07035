// Names, channels and services between processes and enclaves, over a real hobbesd.
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "core/file.h"
#include "hobbes.h"
#include "ipc/client.h"
#include "ipc/service.h"
#include "nis/names.h"
#include "node_harness.h"
#include "sample.h"
#include "waits.h"

namespace hobbes::test {
namespace {

using std::chrono::milliseconds;

// A process of its own, which ends with what `work` returns.
class Process {
 public:
  template <class Work>
  explicit Process(Work work) : pid_(::fork()) {
    if (pid_ == 0) ::_exit(work());
  }
  ~Process() { end(SIGKILL); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Its exit status, or 128 and the signal.
  int wait() {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(pid_, &status, 0) != pid_) return -1;
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void end(int signal) {
    if (pid_ <= 0) return;
    ::kill(pid_, signal);
    (void)wait();
  }

 private:
  pid_t pid_;
};

std::string received(Channel& channel, milliseconds patience = soon) {
  std::vector<char> bytes(channel.largest());
  std::size_t size = 0;
  Channel::Status status = channel.receive(bytes.data(), bytes.size(), &size, patience);
  return status == Channel::Status::good ? std::string(bytes.data(), size)
                                         : Channel::error_of(status, "receive").cause;
}
const std::string over = "the peer has closed the channel or has ended";

bool send(Channel& channel, const std::string& text) {
  return channel.send(text.data(), text.size(), soon) == Channel::Status::good;
}

class Fabric : public ::testing::Test {
 protected:
  void SetUp() override {
    ::chmod(node.folder().c_str(), 0755);
    node.wake_daemon();
  }
  Json names() const { return *parse_json(node.good({"hobbes", "names", "--json"}), "names"); }
  bool no_names() const {
    return eventually([&] { return names().empty(); });
  }
  static std::size_t descriptors(pid_t pid) {
    return Files::system().list("/proc/" + std::to_string(pid) + "/fd").value_or({}).size();
  }
  Node node;
};

TEST_F(Fabric, ANameIsFoundInTheMirrorAndGoesWithItsProcess) {
  const struct hobbes_where anywhere = {0, -1};
  hobbes_record record;
  EXPECT_EQ(hobbes_name_find("answer", &anywhere, &record), -ENOENT);
  Process publisher([] {
    if (hobbes_name_publish("answer", 0, "42", 2, 0600, 0) != 0) return 1;
    if (hobbes_name_publish("answer", 0, "43", 2, 0600, 0) != 0) return 2;  // replaced
    for (;;) ::pause();
  });
  ASSERT_EQ(hobbes_name_wait("answer", nullptr, &record, 10'000), 0) << hobbes_error();
  EXPECT_TRUE(eventually([&] {
    return hobbes_name_find("answer", &anywhere, &record) == 0 && record.body.name.value[1] == '3';
  }));
  EXPECT_EQ(record.body.name.owner_pid, publisher.pid());
  EXPECT_EQ(record.uid, ::geteuid());
  node.kill_daemon();
  EXPECT_EQ(hobbes_name_find("answer", nullptr, &record), 0) << "nobody is asked";
  node.wake_daemon();
  EXPECT_EQ(hobbes_name_find("answer", nullptr, &record), 0);
  publisher.end(SIGKILL);
  EXPECT_TRUE(no_names());
  EXPECT_EQ(hobbes_name_wait("answer", nullptr, &record, 50), -ETIMEDOUT);
}

TEST_F(Fabric, AShellPublishesAndWithdrawsValues) {
  node.good({"hobbes", "publish", "melt.every", "50"});
  node.good({"hobbes", "publish", "melt.every", "100\x1b[2J"});
  Json all = names();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(text_at(all[0], "value"), "100\\x1b[2J") << "no terminal is told to do anything";
  EXPECT_EQ(node.run({"hobbes", "publish", "melt.every", std::string(257, 'x')}).wait_status, 256);
  EXPECT_EQ(node.run({"hobbes", "publish", "../x", "y"}).wait_status, 256);
  EXPECT_EQ(node.run({"hobbes", "publish", "--scope", "enclave", "x", "y"}).wait_status, 256);
  node.good({"hobbes", "withdraw", "melt.every"});
  EXPECT_TRUE(names().empty());
  EXPECT_EQ(node.run({"hobbes", "withdraw", "melt.every"}).wait_status, 256);
}

TEST_F(Fabric, MessagesGoBothWaysAndLiveOnWithoutHobbesd) {
  auto listener = Listener::open("echo", {});
  ASSERT_TRUE(listener) << listener.error().text();
  EXPECT_FALSE(Listener::open("echo", {})) << "the name is taken";
  Process client([] {
    auto channel = Channel::connect("echo", {}, soon);
    if (!channel || channel->peer().pid != ::getppid()) return 1;
    for (int i = 0; i < 1000; ++i) {
      if (!send(*channel, "message " + std::to_string(i))) return 2;
      if (received(*channel) != "MESSAGE " + std::to_string(i)) return 3;
    }
    return received(*channel) == over ? 0 : 4;
  });
  {
    auto channel = listener->accept(soon);
    ASSERT_TRUE(channel) << channel.error().text();
    EXPECT_EQ(channel->peer().pid, client.pid());
    EXPECT_EQ(channel->peer().uid, ::geteuid());
    for (int i = 0; i < 1000; ++i) {
      if (i == 300) node.kill_daemon();
      std::string text = received(*channel);
      ASSERT_EQ(text, "message " + std::to_string(i));
      ASSERT_TRUE(send(*channel, "MESSAGE " + text.substr(8)));
    }
    node.wake_daemon();
  }
  EXPECT_EQ(client.wait(), 0);
  Process late([] {
    auto channel = Channel::connect("echo", {}, soon);
    return channel && send(*channel, "again") ? 0 : 1;
  });
  auto channel = listener->accept(soon);
  ASSERT_TRUE(channel) << "a new hobbesd finds those who listen: " << channel.error().text();
  EXPECT_EQ(received(*channel), "again");
  EXPECT_EQ(late.wait(), 0);
}

TEST_F(Fabric, APeerThatIsKilledIsToldWithinATenthOfASecond) {
  for (Waiting waiting : {Waiting::sleep, Waiting::spin_then_sleep, Waiting::spin}) {
    auto listener = Listener::open("mortal", {});
    ASSERT_TRUE(listener) << listener.error().text();
    Process client([] {
      auto channel = Channel::connect("mortal", {}, soon);
      if (channel && send(*channel, "last words"))
        for (;;) ::pause();
      return 1;
    });
    auto channel = listener->accept(soon);
    ASSERT_TRUE(channel);
    channel->set_waiting(waiting);
    EXPECT_EQ(received(*channel), "last words");
    std::chrono::steady_clock::time_point killed;
    std::thread kills([&] {
      ::usleep(50'000);
      killed = std::chrono::steady_clock::now();
      client.end(SIGKILL);
    });
    EXPECT_EQ(received(*channel), over);
    const auto told = std::chrono::steady_clock::now();
    kills.join();
    EXPECT_LT(told - killed, milliseconds(500)) << "100 ms, and room for a busy machine";
    EXPECT_EQ(channel->send("x", 1, no_wait), Channel::Status::closed);
  }
}

TEST_F(Fabric, WhoIsKilledAtAnyMomentOfAConversationLeavesNothing) {
  Sample sample;
  std::size_t before = descriptors(node.daemon());
  for (int round = 0; round < Sample::of(60); ++round) {
    const auto delay = static_cast<useconds_t>(sample.number() % 20'000);
    const bool server_dies = round % 3 == 0;
    Process server([] {
      auto listener = Listener::open("pair", {});
      while (listener) {
        auto channel = listener->accept(soon);
        while (channel && send(*channel, received(*channel))) {
        }
      }
      return 1;
    });
    Process client([] {
      for (;;) {
        auto channel = Channel::connect("pair", {}, soon);
        if (!channel) continue;
        for (int i = 0; i < 5 && send(*channel, "hello") && received(*channel) == "hello"; ++i) {
        }
      }
      return 0;
    });
    ::usleep(10'000 + delay);
    (server_dies ? server : client).end(SIGKILL);
    if (round % 7 == 0) node.kill_daemon();
    ::usleep(2000);
    (server_dies ? client : server).end(SIGKILL);
    node.wake_daemon();
    ASSERT_TRUE(no_names()) << to_text(names());
    if (round % 7 == 0) before = descriptors(node.daemon());
  }
  EXPECT_TRUE(eventually([&] { return descriptors(node.daemon()) <= before + 2; }))
      << before << " descriptors of hobbesd became " << descriptors(node.daemon());
}

TEST_F(Fabric, AListenerThatAcceptsNobodyCostsItsCallersAnError) {
  auto listener = Listener::open("deaf", {});
  ASSERT_TRUE(listener);
  std::vector<Channel> waiting;
  std::string refusal;
  for (int i = 0; i < 2000 && refusal.empty(); ++i) {
    auto channel = Channel::connect("deaf", {}, no_wait);
    if (channel)
      waiting.push_back(std::move(*channel));
    else
      refusal = channel.error().text();
    if (waiting.size() > 250) break;  // this process's own limit of descriptors is near
  }
  if (refusal.empty()) return;
  EXPECT_NE(refusal.find("does not accept"), std::string::npos) << refusal;
}

struct Steering {
  int every = 0;
  std::vector<double> at;
  static Json schema() {
    return {{"type", "object"},
            {"properties", {{"every", {{"type", "integer"}}}, {"at", {{"type", "array"}}}}}};
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Steering, every, at)

// What the tests call; ends when told to.
int serve(const std::string& name, Waiting waiting = Waiting::spin_then_sleep, mode_t mode = 0600) {
  Listener::Options options;
  options.mode = mode;
  auto service = Service::open(name, options);
  if (!service) return 1;
  std::vector<ServerCall> kept;
  service->commands().set_waiting(waiting);
  service->add("double", "twice a number", [](double x) { return 2 * x; });
  service->add("steer", "changes what it does", [](const Steering& s) -> Result<Json> {
    if (s.every <= 0)
      return Error{Code::invalid, "steer", "\"every\" is not positive", "give a larger one"};
    return Json{{"every", s.every}, {"points", s.at.size()}};
  });
  service->add("throw", "always fails",
               [](Json) -> int { throw std::runtime_error("as it must"); });
  service->add_procedure("count", {"counts up to its argument", {}, {}},
                         [](ServerCall call, Json to) {
                           for (int i = 0; i < to.get<int>(); ++i)
                             while (!call.part(to_cbor(i)) && !call.cancelled()) {
                             }
                           call.reply(to_cbor(to));
                         });
  service->add_procedure("flood", {"answers in parts until nobody reads them", {}, {}},
                         [](ServerCall call, Json) {
                           while (call.part(Bytes(3000, 'x'))) {
                           }
                           call.reply(to_cbor(true));
                         });
  service->add_procedure("never", {"keeps the call", {}, {}},
                         [&](ServerCall call, Json) { kept.push_back(std::move(call)); });
  service->add_procedure("late", {"answers the kept calls", {}, {}}, [&](ServerCall call, Json) {
    for (ServerCall& one : kept) one.reply(to_cbor("late"));
    kept.clear();
    call.reply(to_cbor(nullptr));
  });
  service->add("kept", "how many calls wait, and how many of them in vain", [&](Json) {
    int cancelled = 0;
    for (const ServerCall& one : kept) cancelled += one.cancelled() ? 1 : 0;
    return std::vector<int>{static_cast<int>(kept.size()), cancelled};
  });
  service->add("keptUser", "who has made the first call that waits", [&](Json) {
    return kept.empty() ? std::int64_t{-2} : std::int64_t{kept.front().peer().uid};
  });
  service->add("stop", "ends the service", [&](Json) {
    service->stop();
    return true;
  });
  auto served = service->serve(Channel::forever);
  kept.clear();
  return served ? 0 : 2;
}

TEST_F(Fabric, AServiceIsCalledWithTypedArgumentsAndTellsItsErrors) {
  Process server([] { return serve("calc"); });
  auto client = ServiceClient::connect("calc", {}, soon);
  ASSERT_TRUE(client) << client.error().text();
  EXPECT_EQ(client->call<double>("double", 2.5).value_or(0), 5.0);
  auto steered = client->call<Json>("steer", Steering{50, {1, 2}});
  ASSERT_TRUE(steered) << steered.error().text();
  EXPECT_EQ(*steered, (Json{{"every", 50}, {"points", 2}}));
  auto refused = client->call<Json>("steer", Steering{});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid);
  EXPECT_EQ(refused.error().remedy, "give a larger one");
  EXPECT_EQ(client->call("double", "no number").error().code, Code::invalid);
  EXPECT_EQ(client->call("throw", nullptr).error().cause, "as it must");
  EXPECT_EQ(client->call("nothing", nullptr).error().code, Code::not_found);
  // More parts than the ring holds; each time the last answer may find no room.
  for (int time = 0; time < 30; ++time) {
    std::vector<Json> parts;
    auto end = client->stream(
        "count", 2000, [&](const Json& part) { parts.push_back(part); }, soon);
    ASSERT_TRUE(end) << end.error().text();
    ASSERT_EQ(parts.size(), 2000U);
    EXPECT_EQ(parts.back(), 1999);
  }
  auto described = client->call("describe", nullptr);
  ASSERT_TRUE(described);
  EXPECT_EQ((*described)["procedures"]["double"]["arguments"]["type"], "number");
  EXPECT_TRUE(client->call<bool>("stop", nullptr).value_or(false));
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(client->call("double", 1).error().code, Code::unavailable);
}

TEST_F(Fabric, DeadlinesCancelCallsAndTheirNumberIsBounded) {
  Process server([] { return serve("slow"); });
  auto client = CommandClient::connect("slow", {}, soon);
  ASSERT_TRUE(client) << client.error().text();
  int told = 0;
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(client->issue("never", to_cbor(i), milliseconds(100), [&](auto answer, bool) {
      told += !answer && answer.error().code == Code::timeout ? 1 : 0;
    }));
  EXPECT_EQ(client->call("never", to_cbor(0), milliseconds(100)).error().code, Code::timeout);
  EXPECT_TRUE(eventually([&] { return client->poll(milliseconds(10)).value_or(9) == 0; }));
  EXPECT_EQ(told, 10);
  EXPECT_EQ(from_cbor(*client->call("kept", to_cbor(nullptr), soon), "kept").value_or({}),
            (Json{11, 11}));
  auto other = ServiceClient::connect("slow", {}, soon);
  ASSERT_TRUE(other);
  EXPECT_TRUE(other->call("late", nullptr)) << "what is cancelled counts until it is answered";
  std::vector<CommandClient::Id> ids;
  Result<CommandClient::Id> refused = CommandClient::Id{0};
  for (int i = 0; i < HOBBES_COMMAND_DEPTH + 1 && refused; ++i) {
    refused = client->issue("never", to_cbor(i), soon);
    if (refused) ids.push_back(*refused);
  }
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::busy);
  EXPECT_EQ(ids.size(), std::size_t{HOBBES_COMMAND_DEPTH});
  EXPECT_TRUE(eventually([&] {
    return other->call<std::vector<int>>("kept", nullptr).value_or({}) ==
           std::vector<int>{HOBBES_COMMAND_DEPTH, 0};
  }));
  // Cancelled calls are under way until they are answered; what cancels others is read all the
  // same.
  for (std::size_t i = 0; i < 10; ++i) client->cancel(ids[i]);
  for (int i = 0; i < 5; ++i) {
    auto further = client->issue("never", to_cbor(i), soon);
    ASSERT_TRUE(further) << further.error().text();
    ids.push_back(*further);
  }
  for (std::size_t i = 10; i < 20; ++i) client->cancel(ids[i]);
  EXPECT_TRUE(eventually([&] {
    return other->call<std::vector<int>>("kept", nullptr).value_or({}) ==
           std::vector<int>{HOBBES_COMMAND_DEPTH, 20};
  }));
  EXPECT_TRUE(other->call("late", nullptr)) << "one client's calls do not keep another one's";
  EXPECT_TRUE(eventually([&] {
    return other->call<std::vector<int>>("kept", nullptr).value_or({}) == std::vector<int>{5, 0};
  })) << "those that waited are begun";
  EXPECT_TRUE(other->call("late", nullptr));
  for (std::size_t i = 20; i < ids.size(); ++i) EXPECT_TRUE(client->wait(ids[i])) << i;
}

TEST_F(Fabric, ACallersIdentityOutlivesItsConnection) {
  Process server([] { return serve("late"); });
  {
    auto client = CommandClient::connect("late", {}, soon);
    ASSERT_TRUE(client) << client.error().text();
    ASSERT_TRUE(client->issue("never", to_cbor(nullptr), soon));
  }
  auto other = ServiceClient::connect("late", {}, soon);
  ASSERT_TRUE(other);
  EXPECT_TRUE(eventually([&] {
    return other->call<std::vector<int>>("kept", nullptr).value_or({}) == std::vector<int>{1, 1};
  }));
  EXPECT_EQ(other->call<std::int64_t>("keptUser", nullptr).value_or(-3), std::int64_t{::geteuid()});
}

TEST_F(Fabric, CallsMadeWhileOneIsServedEndWithIt) {
  Process slow([] { return serve("slow"); });
  Process middle([] {
    auto service = Service::open("middle");
    auto next = ServiceClient::connect("slow", {}, soon);
    if (!service || !next) return 1;
    service->add("ask", "asks on", [&](Json) { return next->call("never", nullptr, soon); });
    return service->serve(Channel::forever) ? 0 : 1;
  });
  auto client = ServiceClient::connect("middle", {}, soon);
  ASSERT_TRUE(client) << client.error().text();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(client->call("ask", nullptr, milliseconds(200)).error().code, Code::timeout);
  auto again = client->call("describe", nullptr, milliseconds(5000));
  EXPECT_TRUE(again) << "the one in the middle has given up, too: " << again.error().text();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(4000));
}

TEST_F(Fabric, ManyClientsAreServedAndOneThatDoesNotReadHarmsNobody) {
  Process server([] {
    rlimit files{8192, 8192};
    (void)::setrlimit(RLIMIT_NOFILE, &files);
    return serve("busy");
  });
  rlimit before{}, files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  files = before;
  files.rlim_cur = std::min<rlim_t>(8192, before.rlim_max);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &files), 0);
  auto deaf = CommandClient::connect("busy", {}, soon);
  ASSERT_TRUE(deaf) << deaf.error().text();
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(deaf->issue("flood", to_cbor(nullptr), milliseconds(-1)));
  {
    std::vector<ServiceClient> clients;
    for (int i = 0; i < 1000; ++i) {
      auto client = ServiceClient::connect("busy", {}, soon);
      ASSERT_TRUE(client) << i << " " << client.error().text();
      clients.push_back(std::move(*client));
    }
    for (int i = 0; i < 1000; ++i) {
      auto answer = clients[static_cast<std::size_t>(i)].call<double>("double", i, soon);
      ASSERT_TRUE(answer) << i << " " << answer.error().text();
      EXPECT_EQ(*answer, 2 * i);
    }
  }
  auto last = ServiceClient::connect("busy", {}, soon);
  ASSERT_TRUE(last);
  EXPECT_TRUE(last->call("stop", nullptr));
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(Fabric, AClientThatSpeaksNonsenseLosesItsConnectionOnly) {
  Process server([] { return serve("firm"); });
  auto good = ServiceClient::connect("firm", {}, soon);
  ASSERT_TRUE(good) << good.error().text();
  Sample sample;
  for (int i = 0; i < 200; ++i) {
    auto channel = Channel::connect("firm", {}, soon);
    ASSERT_TRUE(channel);
    std::string noise(sample.number() % 100, '\0');
    for (char& byte : noise) byte = static_cast<char>(sample.number());
    if (i % 2 == 0 && noise.size() > 4) noise[0] = 1, noise[1] = 0, noise[2] = 1, noise[3] = 0;
    EXPECT_TRUE(send(*channel, noise));
  }
  // A value that nests without end.
  auto commands = CommandClient::connect("firm", {}, soon);
  ASSERT_TRUE(commands);
  auto answer = commands->call("double", Bytes(60'000, 0x81), soon);
  EXPECT_EQ(answer.error().code, Code::invalid) << answer.error().text();
  EXPECT_EQ(good->call<double>("double", 1).value_or(0), 2.0);
}

TEST_F(Fabric, ShellsAndRestCallServices) {
  Process server([] { return serve("calc"); });
  ASSERT_TRUE(eventually([&] { return !names().empty(); }));
  EXPECT_NE(node.good({"hobbes", "services"}).find("calc"), std::string::npos);
  EXPECT_EQ(node.good({"hobbes", "call", "calc", "double", "21", "--json"}), "42.0\n");
  EXPECT_EQ(node.good({"hobbes", "call", "calc", "count", "3", "--json"}), "0\n1\n2\n3\n");
  Outcome refused = node.run({"hobbes", "call", "calc", "steer", R"({"every": 0})"});
  EXPECT_EQ(refused.wait_status, 256);
  EXPECT_NE(refused.err.find("\"every\" is not positive; give a larger one"), std::string::npos)
      << refused.err;
  EXPECT_EQ(node.run({"hobbes", "call", "calc", "double", "{"}).wait_status, 256);
  EXPECT_EQ(node.run({"hobbes", "call", "nobody", "double"}).wait_status, 256);
  Outcome timeout = node.run({"hobbes", "call", "calc", "never", "--timeout", "0.1"});
  EXPECT_NE(timeout.err.find("in time"), std::string::npos) << timeout.err;

  auto [listed, services] = node.rest("GET", "/v1/services");
  EXPECT_EQ(listed, 200);
  ASSERT_EQ(services["items"].size(), 1U) << to_text(services);
  EXPECT_EQ(text_at(services["items"][0], "name"), "calc");
  auto [called, answer] = node.rest("POST", "/v1/services/calc/double", R"({"arguments": 4})");
  EXPECT_EQ(called, 200) << to_text(answer);
  EXPECT_EQ(answer["result"], 8.0);
  auto [wrong, problem] =
      node.rest("POST", "/v1/services/calc/steer", R"({"arguments": {"every": 0}})");
  EXPECT_EQ(wrong, 400) << to_text(problem);
  EXPECT_EQ(text_at(problem, "code"), "invalid");
  EXPECT_EQ(node.rest("POST", "/v1/services/nobody/double", "{}").first, 404);
  EXPECT_EQ(
      node.rest("POST", "/v1/services/calc/never", R"({"arguments": 1, "timeout": 0.1})").first,
      504);
  EXPECT_EQ(node.rest("POST", "/v1/services/calc/double", R"({"argument": 4})").first, 400);
}

TEST_F(Fabric, ANotifierTellsOfTheChangesThatAreWanted) {
  struct hobbes_filter filter = {0, "melt.*", HOBBES_NAME};
  hobbes_notifier* notifier = hobbes_notifier_open(&filter);
  ASSERT_NE(notifier, nullptr) << hobbes_error();
  hobbes_change change;
  EXPECT_EQ(hobbes_notifier_next(notifier, &change), -EAGAIN);
  auto tells = [&](int patience) {
    pollfd ready{hobbes_notifier_descriptor(notifier), POLLIN, 0};
    return ::poll(&ready, 1, patience) > 0;
  };
  EXPECT_FALSE(tells(0));
  ASSERT_EQ(hobbes_name_publish("other", 0, "1", 1, 0600, 0), 0) << hobbes_error();
  ASSERT_EQ(hobbes_name_publish("melt.every", 0, "1", 1, 0600, 0), 0);
  ASSERT_TRUE(tells(5000));
  ASSERT_EQ(hobbes_notifier_next(notifier, &change), 0);
  EXPECT_EQ(std::string(change.name), "melt.every");
  EXPECT_EQ(change.kind, HOBBES_APPEARED);
  ASSERT_EQ(hobbes_name_withdraw("melt.every", nullptr), 0);
  ASSERT_TRUE(eventually([&] { return hobbes_notifier_next(notifier, &change) == 0; }));
  EXPECT_EQ(change.kind, HOBBES_GONE);
  EXPECT_EQ(hobbes_notifier_next(notifier, &change), -EAGAIN);
  EXPECT_FALSE(tells(0)) << "the name that does not match is not told of";
  EXPECT_EQ(hobbes_name_withdraw("other", nullptr), 0);
  hobbes_notifier_close(notifier);
}

TEST_F(Fabric, AnotherUsersNameNeitherStandsForOnesOwnNorLetsHimIn) {
  constexpr uid_t stranger = 65534;
  auto as_stranger = [](auto work) {
    return [work] {
      if (::setgroups(0, nullptr) != 0 || ::setresgid(stranger, stranger, stranger) != 0 ||
          ::setresuid(stranger, stranger, stranger) != 0)
        return 100;
      return work();
    };
  };
  Process squatter(as_stranger([] { return serve("bank"); }));
  ASSERT_TRUE(eventually([&] { return !names().empty(); }));
  Process server([] { return serve("bank"); });
  ASSERT_TRUE(eventually([&] { return names().size() == 2; })) << to_text(names());
  auto channel = Channel::connect("bank", {}, soon);
  ASSERT_TRUE(channel) << channel.error().text();
  EXPECT_EQ(channel->peer().uid, ::geteuid()) << "one's own comes first";
  auto his = Channel::connect("bank", {"", stranger}, soon);
  ASSERT_TRUE(his);
  EXPECT_EQ(his->peer().uid, stranger) << "and whose it is can be asked for";
  Process denied(as_stranger([] {
    auto mine = Channel::connect("bank", {"", 0}, no_wait);
    return !mine && mine.error().code == Code::denied ? 0 : 1;
  }));
  EXPECT_EQ(denied.wait(), 0);
  Process thief(as_stranger([] {
    struct hobbes_where roots = {0, 0};
    return hobbes_name_withdraw("bank", &roots) == -EACCES ? 0 : 1;
  }));
  EXPECT_EQ(thief.wait(), 0);
}

TEST_F(Fabric, FilesOfEnclavesAreCopiedAndNoLinkLeadsOut) {
  const std::string script =
      "mkdir -p /tmp/in/deep; echo inside >/tmp/in/deep/file; busybox chmod 750 /tmp/in/deep/file; "
      "busybox ln -s file /tmp/in/deep/link; busybox ln -s /etc/hostname /tmp/out; "
      "busybox ln -s ../../../../.. /tmp/up; "
      "touch /tmp/ready; exec sleep 1000";
  for (const char* id : {"a", "b"}) {
    ASSERT_EQ(node.create(id, node.busybox_bundle(id, script, {{"root", {{"readonly", false}}}}))
                  .wait_status,
              0);
    node.good({"hobbes-run", "start", id});
    ASSERT_TRUE(eventually([&] {
      return node.run({"hobbes-run", "exec", id, "ls", "/tmp/ready"}).wait_status == 0;
    }));
  }
  EXPECT_EQ(node.good({"hobbes", "cat", "a:/tmp/in/deep/link"}), "inside\n");
  const std::string here = node.folder() + "/copied";
  EXPECT_EQ(node.good({"hobbes", "cp", "--json", "a:/tmp/in", here}),
            "{\"bytes\":7,\"files\":2}\n");
  EXPECT_EQ(Files::system().read(here + "/deep/file").value_or(""), "inside\n");
  EXPECT_EQ(read_link(here + "/deep/link").value_or(""), "file");
  struct stat info {};
  ASSERT_EQ(::stat((here + "/deep/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0750U);
  ASSERT_TRUE(replace_file(here + "/more", std::string(3'000'000, 'm')));
  node.good({"hobbes", "cp", here, "b:/tmp"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "b", "sh", "-c",
                       "ls -l /tmp/copied/more; cat /tmp/copied/deep/file"})
                    .find("3000000") != std::string::npos,
            true);
  node.good({"hobbes", "cp", "b:/tmp/copied/deep/file", "a:/tmp/renamed"});
  EXPECT_EQ(node.good({"hobbes", "cat", "a:tmp/renamed"}), "inside\n");
  // What a link names is looked for in the enclave, whose root it does not leave.
  EXPECT_EQ(node.run({"hobbes", "cat", "a:/tmp/out"}).wait_status, 256) << "it has no such file";
  EXPECT_EQ(node.run({"hobbes", "cat", "a:/tmp/up" + here + "/more"}).wait_status, 256);
  EXPECT_EQ(node.run({"hobbes", "cat", "a:/../../../.." + here + "/more"}).wait_status, 256);
  node.good({"hobbes-run", "exec", "a", "busybox", "ln", "-s", here, "/tmp/trap"});
  EXPECT_EQ(node.run({"hobbes", "cp", "b:/tmp/copied/more", "a:/tmp/trap/x"}).wait_status, 256);
  EXPECT_FALSE(Files::system().exists(here + "/x"));
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"hobbes", "cp", "a:/tmp/in", "a:/tmp/in/deep"},
        {"hobbes", "cp", "a:/tmp/nothing", here},
        {"hobbes", "cp", "a:/dev/null", here},
        {"hobbes", "cp", "nobody:/x", here},
        {"hobbes", "cat", "a:/tmp"}}) {
    Outcome refused = node.run(wrong);
    EXPECT_EQ(refused.wait_status, 256) << wrong[2];
    EXPECT_NE(refused.err.find("cannot"), std::string::npos) << refused.err;
  }
  for (const char* id : {"a", "b"}) node.good({"hobbes-run", "delete", "--force", id});
}

TEST_F(Fabric, EveryProcessOfAnEnclaveHasAGlobalIdThatIsNeverAnotherOnes) {
  ASSERT_EQ(node.create("e", node.bundle("e", "exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "e"});
  auto processes = [&] { return *parse_json(node.good({"hobbes", "ps", "--json"}), "ps"); };
  ASSERT_EQ(processes().size(), 1U);
  EXPECT_EQ(text_at(processes()[0], "role"), "init");
  EXPECT_EQ(number_at(processes()[0], "pid"), number_at(node.enclave("e"), "pid"));
  std::uint64_t sequence = 0;
  hobbes_nis* nis = hobbes_nis_open(nullptr);
  ASSERT_NE(nis, nullptr);
  sequence = hobbes_nis_sequence(nis);
  Outcome executed;
  std::thread exec([&] { executed = node.run({"hobbes-run", "exec", "e", "sleep", "500"}); });
  ASSERT_TRUE(eventually([&] { return processes().size() == 2; }));
  Json all = processes(), one = text_at(all[0], "role") == "exec" ? all[0] : all[1];
  EXPECT_EQ(text_at(one, "program"), "sleep");
  EXPECT_EQ(text_at(one, "enclave"), "e");
  EXPECT_NE(node.good({"hobbes", "ps"}).find(text_at(one, "handle")), std::string::npos);
  EXPECT_EQ(node.rest("GET", "/v1/processes").second["items"].size(), 2U);
  EXPECT_EQ(node.run({"hobbes", "kill", text_at(one, "handle"), "NOSUCH"}).wait_status, 256);
  node.good({"hobbes", "kill", text_at(one, "handle"), "USR1"});
  exec.join();
  EXPECT_EQ(WEXITSTATUS(executed.wait_status), 128 + SIGUSR1);
  EXPECT_TRUE(eventually([&] { return processes().size() == 1; }));
  hobbes_change change;
  bool told = false;
  while (hobbes_nis_wait(nis, &sequence, &change, 0) == 0)
    told |= change.type == HOBBES_PROCESS && change.exit_status == 128 + SIGUSR1;
  EXPECT_TRUE(told) << "its status is told to those who watch";
  hobbes_nis_close(nis);
  const std::string gone = text_at(one, "handle");
  EXPECT_EQ(node.run({"hobbes", "kill", gone}).wait_status, 256);
  EXPECT_EQ(node.rest("POST", "/v1/processes/" + gone + "/kill", "{}").first, 404);
  // hobbesd dies meanwhile; what has ended then is gone, the rest is found again.
  std::thread second([&] { (void)node.run({"hobbes-run", "exec", "e", "sleep", "0.5"}); });
  ASSERT_TRUE(eventually([&] { return processes().size() == 2; }));
  node.kill_daemon();
  second.join();
  node.wake_daemon();
  EXPECT_TRUE(eventually([&] { return processes().size() == 1; })) << to_text(processes());
  auto [status, answer] =
      node.rest("POST", "/v1/processes/" + text_at(processes()[0], "handle") + "/kill",
                R"({"signal": "KILL"})");
  EXPECT_EQ(status, 200) << to_text(answer);
  EXPECT_TRUE(eventually([&] { return processes().empty(); }));
  node.good({"hobbes-run", "delete", "--force", "e"});
}

TEST_F(Fabric, ACProgramServesAndCallsFromInsideAnEnclave) {
  const std::string peer = HOBBES_BUILD_DIR "/tests/programs/fabric-peer";
  for (const char* id : {"serves", "calls"}) {
    const std::string script =
        std::string(id) == "serves" ? peer + " serve inside" : peer + " call inside 500";
    Outcome made = node.create(
        id, node.bundle(id, "export HOBBES_RUN_DIR=" + node.run_folder() + "; exec " + script));
    ASSERT_EQ(made.wait_status, 0) << made.err;
  }
  node.good({"hobbes-run", "start", "serves"});
  node.good({"hobbes-run", "start", "calls"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("calls"), "state") == "stopped"; }, 30));
  EXPECT_EQ(number_at(node.enclave("calls"), "exitStatus", -1), 0)
      << Files::system().read(node.folder() + "/calls/err").value_or("")
      << Files::system().read(node.folder() + "/serves/err").value_or("");
  Json service = names();
  ASSERT_EQ(service.size(), 1U);
  EXPECT_EQ(text_at(service[0], "name"), "inside");
  EXPECT_NE(node.good({"hobbes", "services"}).find("serves"), std::string::npos)
      << "the enclave it is in";
  node.good({"hobbes-run", "delete", "--force", "serves"});
  EXPECT_TRUE(no_names());
  node.good({"hobbes-run", "delete", "--force", "calls"});
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
