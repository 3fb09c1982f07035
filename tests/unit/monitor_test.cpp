// The parts of the virtual machine monitor that need no machine: its socket, and what a guest is
// shown of its node's memory.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>

#include "core/file.h"
#include "vmm/control_server.h"
#include "vmm/segment_window.h"

namespace hobbes::vmm {
namespace {

using std::chrono::milliseconds;

class Folder {
 public:
  Folder() { path_ = ::mkdtemp(name_); }
  ~Folder() { (void)remove_tree(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  char name_[32] = "/tmp/monitor.XXXXXX";
  std::string path_;
};

class ControlServerTest : public ::testing::Test {
 protected:
  // A server that answers "echo" with its word, and knows nothing else.
  ControlServer& serve(bool wait_for_start) {
    server_.emplace(loop, listening.get(), wait_for_start,
                    [](const Json& request, std::vector<Fd>&) -> Result<Json> {
                      if (text_at(request, "op") == "started") return Json::object();
                      if (text_at(request, "op") == "echo") return Json{{"word", request["word"]}};
                      return Error{Code::invalid, "answer", "it is unknown", ""};
                    });
    EXPECT_TRUE(server_->begin());
    return *server_;
  }
  MessageSocket ask(const Json& request) {
    auto client = MessageSocket::connect(path);
    EXPECT_TRUE(client && client->send(request));
    rounds();
    return std::move(*client);
  }
  void rounds() {
    for (int i = 0; i < 4; ++i) loop.run_once(10);
  }
  static Json answer(MessageSocket& client) {
    auto message = client.receive(milliseconds(500));
    return message ? message->body : Json();
  }
  Folder folder;
  std::string path = folder.path() + "/socket";
  Fd listening = *listen_at(path, 0600, SOCK_SEQPACKET);
  EventLoop loop = *EventLoop::make();

 private:
  std::optional<ControlServer> server_;
};

TEST_F(ControlServerTest, AnswersRequestsAndRefusesUnknownOnes) {
  serve(false);
  MessageSocket good = ask({{"op", "echo"}, {"word", "here"}});
  EXPECT_EQ(answer(good), (Json{{"ok", true}, {"word", "here"}}));
  MessageSocket wrong = ask({{"op", "nosuch"}});
  EXPECT_EQ(answer(wrong)["ok"], false);
}

TEST_F(ControlServerTest, TellsWhoWaitsForTheStartWhenItHasComeAndNobodyBefore) {
  ControlServer& server = serve(true);
  MessageSocket waiting = ask({{"op", "started"}}), other = ask({{"op", "echo"}, {"word", "now"}});
  EXPECT_EQ(answer(other)["word"], "now") << "others are answered meanwhile";
  EXPECT_TRUE(answer(waiting).is_null());
  server.started();
  EXPECT_EQ(answer(waiting)["ok"], true);
  MessageSocket late = ask({{"op", "started"}});
  EXPECT_EQ(answer(late)["ok"], true);
}

TEST_F(ControlServerTest, TellsTheFailureToWhoWaitsAndToWhoComesToAsk) {
  ControlServer& server = serve(true);
  MessageSocket waiting = ask({{"op", "started"}});
  server.failed({Code::os, "start", "it burns", ""});
  EXPECT_EQ(answer(waiting)["error"]["cause"], "it burns");
  auto client = MessageSocket::connect(path);
  ASSERT_TRUE(client && client->send({{"op", "started"}}));
}

TEST_F(ControlServerTest, AClientThatHangsUpWhileItWaitsIsForgotten) {
  ControlServer& server = serve(true);
  { MessageSocket gone = ask({{"op", "started"}}); }
  rounds();
  server.started();
  MessageSocket next = ask({{"op", "echo"}, {"word", "alive"}});
  EXPECT_EQ(answer(next)["word"], "alive");
}

class FakeMemory final : public GuestMemoryMap {
 public:
  Result<void> show(unsigned slot, Gpa address, std::uint64_t size, void* host,
                    bool read_only) override {
    if (refuse) return Error{Code::exhausted, "show", "no slot is left", ""};
    shown[slot] = {address, size, *static_cast<const char*>(host), read_only};
    return {};
  }
  Result<void> hide(unsigned slot) override {
    shown.erase(slot);
    ++hidden;
    return {};
  }
  struct Slot {
    Gpa address;
    std::uint64_t size;
    char first;
    bool read_only;
  };
  std::map<unsigned, Slot> shown;
  int hidden = 0;
  bool refuse = false;
};

TEST(SegmentWindow, ShowsTheMirrorReadOnlyAndAgainOnlyWhenItIsAnother) {
  Folder folder;
  const std::string mirror = folder.path() + "/nis";
  EventLoop loop = *EventLoop::make();
  FakeMemory memory;
  SegmentWindow window(memory, loop, {}, 0);
  EXPECT_FALSE(window.show_mirror(mirror)->has_value()) << "there is none yet";
  ASSERT_TRUE(replace_file(mirror, std::string(5000, 'a')));
  auto place = window.show_mirror(mirror);
  ASSERT_TRUE(place && *place);
  EXPECT_EQ((*place)->size, 8192U) << "whole pages";
  const FakeMemory::Slot& slot = memory.shown.at(GuestMemoryMap::first_free_slot);
  EXPECT_EQ(slot.address, window_at);
  EXPECT_EQ(slot.first, 'a');
  EXPECT_TRUE(slot.read_only);
  EXPECT_FALSE(window.show_mirror(mirror)->has_value()) << "nothing has changed";
  ASSERT_TRUE(replace_file(mirror, std::string(9000, 'b')));
  place = window.show_mirror(mirror);
  ASSERT_TRUE(place && *place);
  EXPECT_EQ(memory.hidden, 1);
  EXPECT_EQ(memory.shown.at(GuestMemoryMap::first_free_slot).first, 'b');
  memory.refuse = true;
  ASSERT_TRUE(replace_file(mirror, std::string(13000, 'c')));
  EXPECT_FALSE(window.show_mirror(mirror)) << "a guest that cannot see it is an error";
}

TEST(SegmentWindow, RefusesSegmentsThatTheBundleDoesNotListAndAccessItDoesNotGive) {
  EventLoop loop = *EventLoop::make();
  FakeMemory memory;
  SegmentWindow window(memory, loop, {{"read", false, false}, {"melt.*", false, true}}, 0);
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  FrameStream program((Fd(pair[0])));
  window.serve(Fd(pair[1]));
  auto ask = [&](const Json& request) {
    EXPECT_TRUE(program.send(request));
    for (int i = 0; i < 4; ++i) loop.run_once(10);
    auto answers = program.receive();
    return answers && !answers->empty() ? answers->front() : Json();
  };
  Json unlisted = ask({{"op", "attach"}, {"name", "other"}, {"access", "ro"}});
  EXPECT_EQ(unlisted["error"]["code"], "denied") << unlisted;
  Json writable = ask({{"op", "attach"}, {"name", "read"}, {"access", "rw"}});
  EXPECT_NE(text_at(writable["error"], "cause").find("\"ro\""), std::string::npos) << writable;
  Json by_pattern = ask({{"op", "attach"}, {"name", "melt.a"}, {"handle", 7}, {"access", "rw"}});
  EXPECT_NE(by_pattern["error"]["code"], "denied") << "listed; here is no hobbesd: " << by_pattern;
  EXPECT_EQ(ask({{"op", "attach"}, {"name", "melt"}, {"access", "ro"}})["error"]["code"], "denied");
  EXPECT_EQ(ask({{"op", "shown"}})["places"], Json::array());
  EXPECT_EQ(ask({{"op", "hide"}, {"place", {{"name", "read"}}}})["error"]["code"], "busy");
  EXPECT_EQ(ask({{"op", "nosuch"}})["error"]["code"], "invalid");
  EXPECT_TRUE(memory.shown.empty());
}

TEST(SegmentWindow, MemoryThatAProgramAsksForIsShownWithinItsRoomUntilTheStreamEnds) {
  EventLoop loop = *EventLoop::make();
  FakeMemory memory;
  SegmentWindow window(memory, loop, {}, 8192);
  auto ask = [&](FrameStream& program, const Json& request) {
    EXPECT_TRUE(program.send(request));
    for (int i = 0; i < 4; ++i) loop.run_once(10);
    auto answers = program.receive();
    return answers && !answers->empty() ? answers->front() : Json();
  };
  auto program = [&] {
    int pair[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    window.serve(Fd(pair[1]));
    return FrameStream((Fd(pair[0])));
  };
  for (const Json& wrong : {Json{{"size", 0}}, Json{{"size", -1}}, Json{{"size", 8193}},
                            Json{{"size", 4096}, {"pageSize", 2097152}}}) {
    FrameStream one = program();
    Json request = {{"op", "segment.make"}};
    request.update(wrong);
    EXPECT_TRUE(ask(one, request).contains("error")) << wrong;
  }
  EXPECT_TRUE(memory.shown.empty());
  {
    FrameStream maker = program(), other = program();
    Json place = ask(maker, {{"op", "segment.make"}, {"size", 5000}});
    EXPECT_EQ(place["size"], 8192) << place;
    ASSERT_EQ(memory.shown.size(), 1U);
    EXPECT_EQ(memory.shown.begin()->second.address, place["address"]);
    EXPECT_FALSE(memory.shown.begin()->second.read_only);
    EXPECT_EQ(ask(other, {{"op", "segment.make"}, {"size", 1}})["error"]["code"], "exhausted");
    EXPECT_EQ(ask(maker, {{"op", "attach"}, {"name", "x"}})["error"]["code"], "invalid")
        << "the stream is the segment's";
    EXPECT_FALSE(other.send(Json::object())) << "its stream has ended";
  }
  for (int i = 0; i < 4; ++i) loop.run_once(10);
  EXPECT_TRUE(memory.shown.empty());
  FrameStream next = program();
  EXPECT_EQ(ask(next, {{"op", "segment.make"}, {"size", 8192}})["size"], 8192);
}

}  // namespace
}  // namespace hobbes::vmm
