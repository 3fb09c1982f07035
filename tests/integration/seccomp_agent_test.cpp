// System calls that a profile hands to an agent (SCMP_ACT_NOTIFY): the agent here is as small as
// one can be, and answers every call with the error of an empty drive.
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "ipc/descriptor.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class SeccompAgent : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    path_ = node.folder() + "/agent";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    socket_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(socket_.get(), 5), 0);
    thread_ = std::thread([this] { serve(); });
  }
  void TearDown() override {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }

  [[nodiscard]] std::string bundle(const std::string& script, const Json& rule,
                                   const std::string& listener) const {
    Json seccomp = {{"defaultAction", "SCMP_ACT_ALLOW"},
                    {"syscalls", Json::array({rule})},
                    {"listenerMetadata", "an empty drive"}};
    if (!listener.empty()) seccomp["listenerPath"] = listener;
    return node.bundle("b", script,
                       {{"hobbes", {{"cores", nullptr}}},
                        {"process", {{"noNewPrivileges", GetParam()}}},
                        {"linux", {{"seccomp", seccomp}}}});
  }
  [[nodiscard]] static Json mkdir_rule() {
    return {{"names", {"mkdir", "mkdirat"}}, {"action", "SCMP_ACT_NOTIFY"}};
  }

  Node node;
  std::string path_;
  std::atomic<int> asked_ = 0;
  std::vector<Json> told_;  // complete when the thread has ended

 private:
  void serve() {
    std::vector<Fd> listeners;
    while (!ended_) {
      std::vector<pollfd> polled = {{socket_.get(), POLLIN, 0}};
      for (const Fd& fd : listeners) polled.push_back({fd.get(), POLLIN, 0});
      if (::poll(polled.data(), polled.size(), 50) <= 0) continue;
      if ((polled[0].revents & POLLIN) != 0) take(listeners);
      for (std::size_t i = 1; i < polled.size(); ++i)
        if ((polled[i].revents & POLLIN) != 0) answer(polled[i].fd);
    }
  }
  void take(std::vector<Fd>& listeners) {
    auto received =
        receive_descriptor(socket_, std::chrono::seconds(5), "the listener of a filter");
    if (!received) return;
    listeners.push_back(std::move(received->fd));
    told_.push_back(parse_json(received->text, "state").value_or(Json()));
  }
  void answer(int listener) {
    seccomp_notif request{};
    if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0) return;
    seccomp_notif_resp response{};
    response.id = request.id;
    response.error = -ENOMEDIUM;
    ++asked_;
    (void)::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
  }

  Fd socket_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

TEST_P(SeccompAgent, AnswersTheCallsOfTheProgramAndOfThoseThatJoinIt) {
  Outcome outcome = node.create("a", bundle("mkdir /tmp/x; sleep 60", mkdir_rule(), path_));
  ASSERT_EQ(outcome.wait_status, 0) << outcome.err;
  node.good({"hobbes-run", "start", "a"});
  EXPECT_TRUE(eventually([&] { return asked_ >= 1; }));
  Outcome joined = node.run({"hobbes-run", "exec", "a", "mkdir", "/tmp/y"});
  EXPECT_NE(joined.err.find("No medium found"), std::string::npos) << joined.err;
  auto state = parse_json(node.good({"hobbes-run", "state", "a"}), "state");
  ASSERT_TRUE(state);
  node.good({"hobbes-run", "delete", "--force", "a"});
  TearDown();
  ASSERT_EQ(told_.size(), 2U);
  for (const Json& told : told_) {
    EXPECT_EQ(told["fds"], Json({"seccompFd"}));
    EXPECT_EQ(told["metadata"], "an empty drive");
    EXPECT_EQ(text_at(told["state"], "id"), "a");
    EXPECT_GT(number_at(told, "pid"), 1);
  }
  EXPECT_EQ(told_[0]["pid"], (*state)["pid"]);
  EXPECT_EQ(told_[0]["state"]["status"], "created");
  EXPECT_NE(told_[1]["pid"], (*state)["pid"]);
  node.expect_clean();
}

TEST_P(SeccompAgent, ThatCannotBeAskedIsAnErrorBeforeAnythingRuns) {
  struct Case {
    Json rule;
    std::string listener, words;
  };
  const std::vector<Case> cases = {{mkdir_rule(), "", "listenerPath"},
                                   {mkdir_rule(), "@abstract", "absolute path"},
                                   {mkdir_rule(), node.folder() + "/nobody", "seccomp agent"},
                                   {{{"names", {"write"}}, {"action", "SCMP_ACT_NOTIFY"}},
                                    path_,
                                    "SCMP_ACT_NOTIFY cannot be used for the write syscall"},
                                   {{{"names", {"sendmsg"}}, {"action", "SCMP_ACT_NOTIFY"}},
                                    path_,
                                    "SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall"}};
  for (const Case& c : cases) {
    Outcome outcome =
        node.run({"hobbes-run", "run", "--bundle", bundle("echo ran", c.rule, c.listener), "a"});
    EXPECT_NE(outcome.wait_status, 0) << c.words;
    EXPECT_EQ(outcome.out, "") << c.words;
    EXPECT_NE(outcome.err.find(c.words), std::string::npos) << outcome.err;
    node.expect_clean();
  }
}

INSTANTIATE_TEST_SUITE_P(NoNewPrivileges, SeccompAgent, ::testing::Bool(), [](const auto& test) {
  return test.param ? std::string("Set") : std::string("Unset");
});

}  // namespace
}  // namespace hobbes::test
