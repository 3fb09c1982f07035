// Doorbells of segments, between processes and enclaves.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <list>
#include <optional>

#include "core/file.h"
#include "integration/segment_peer.h"
#include "ipc/client.h"
#include "node_harness.h"
#include "vmm/doorbell_relay.h"
#include "waits.h"
#include "xemem/segment.h"

namespace hobbes::test {
namespace {

class DoorbellTest : public ::testing::Test {
 protected:
  void SetUp() override {
    node.wake_daemon();
    auto made = Segment::make("s", 4096);
    ASSERT_TRUE(made) << made.error().text();
    segment.emplace(std::move(*made));
  }
  static SegmentAccess access() {
    auto got = SegmentAccess::get("s", true);
    EXPECT_TRUE(got) << got.error().text();
    return std::move(*got);
  }
  // A process that listens; what it says goes to a file.
  pid_t listener(const std::string& name, int times) {
    std::string said = file_of(name);
    pid_t child = ::fork();
    if (child == 0) {
      Fd out(::open(said.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600));
      ::dup2(out.get(), STDOUT_FILENO);
      ::execl(segment_peer.c_str(), segment_peer.c_str(), "hear", "s",
              std::to_string(times).c_str(), nullptr);
      ::_exit(127);
    }
    EXPECT_TRUE(eventually([&] { return said_by(name) == "listens\n"; }));
    return child;
  }
  std::string file_of(const std::string& name) const { return node.folder() + "/" + name; }
  std::string said_by(const std::string& name) const {
    return Files::system().read(file_of(name)).value_or("");
  }
  std::int64_t listeners() const {
    auto all = parse_json(node.good({"hobbes", "segments", "--json"}), "segments");
    return all && all->size() == 1 ? number_at((*all)[0], "listeners") : -1;
  }
  static void end(pid_t child, int signal = SIGKILL) {
    ::kill(child, signal);
    ::waitpid(child, nullptr, 0);
  }

  Node node;
  std::optional<Segment> segment;
};

TEST_F(DoorbellTest, ARingIsHeardByAllWhoListenInOtherProcesses) {
  pid_t one = listener("one", 2), two = listener("two", 1);
  SegmentAccess mine = access();
  int hears = *mine.doorbell().listen();
  EXPECT_EQ(listeners(), 3);
  ASSERT_TRUE(mine.doorbell().ring());
  EXPECT_TRUE(eventually(
      [&] { return said_by("one") == "listens\nrang\n" && said_by("two") == "listens\nrang\n"; }));
  EXPECT_EQ(Doorbell::wait(hears, no_wait).error().code, Code::timeout)
      << "one's own ring is not heard";
  node.good({segment_peer, "ring", "s", "5"});
  EXPECT_TRUE(eventually([&] { return said_by("one") == "listens\nrang\nrang\n"; }));
  EXPECT_TRUE(Doorbell::wait(hears, soon));
  EXPECT_EQ(Doorbell::wait(hears, no_wait).error().code, Code::timeout)
      << "five rings were taken as one";
  ::waitpid(one, nullptr, 0);
  ::waitpid(two, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return listeners() == 1; }))
      << "a process that has ended listens no more";
  { SegmentAccess given_back = std::move(mine); }
  EXPECT_EQ(listeners(), 0);
}

TEST_F(DoorbellTest, TwoEnclavesAnswerEachOther) {
  const Json patch = {{"process", {{"capabilities", nullptr}}},
                      {"linux", {{"namespaces", {{{"type", "mount"}}}}}}};
  auto bounce = [&](const std::string& id, const char* first) {
    return node.bundle(id,
                       "export HOBBES_RUN_DIR=" + node.run_folder() + "; " + segment_peer +
                           " bounce s 2000 " + first,
                       patch);
  };
  node.good({"hobbes-run", "run", "--detach", "--bundle", bounce("a", "0"), "a"});
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bounce("b", "1"), "b"}), "2000\n");
  EXPECT_EQ(*static_cast<std::uint64_t*>(segment->data()), 2000U);
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.expect_clean();
}

TEST_F(DoorbellTest, AListenerThatDiesOrDoesNotListenAfterAllHoldsNobodyUp) {
  pid_t dies = listener("dies", 1000), stops = listener("stops", 1000);
  SegmentAccess mine = access();
  ASSERT_TRUE(mine.doorbell().ring());
  ::kill(stops, SIGSTOP);
  ::kill(node.daemon(), SIGSTOP);  // nobody has noticed yet
  end(dies);
  int rung = 0;
  for (int i = 0; i < 100'000; ++i)
    rung += mine.doorbell().ring()
                ? 1
                : 0;  // more than fits, and to nobody: SIGPIPE would end this test
  ::kill(node.daemon(), SIGCONT);
  end(stops);
  EXPECT_EQ(rung, 100'000);
  sigset_t pending;
  ::sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
}

TEST_F(DoorbellTest, ItRingsWithoutHobbesdAndIsFoundAgainByANewOne) {
  pid_t hears = listener("hears", 3);
  SegmentAccess mine = access();
  ASSERT_TRUE(mine.doorbell().ring());
  EXPECT_TRUE(eventually([&] { return said_by("hears") == "listens\nrang\n"; }));
  node.kill_daemon();
  ASSERT_TRUE(mine.doorbell().ring());
  EXPECT_TRUE(eventually([&] { return said_by("hears") == "listens\nrang\nrang\n"; }));
  node.wake_daemon();
  EXPECT_EQ(listeners(), 1);
  node.good({segment_peer, "ring", "s", "1"});
  ::waitpid(hears, nullptr, 0);
  EXPECT_EQ(said_by("hears"), "listens\nrang\nrang\nrang\n");
  // One that dies while nobody looks is not listening any more.
  pid_t dies = listener("dies", 1);
  node.kill_daemon();
  end(dies);
  node.wake_daemon();
  EXPECT_TRUE(eventually([&] { return listeners() == 0; }));
  EXPECT_TRUE(mine.doorbell().ring());
}

TEST_F(DoorbellTest, OnlyAsManyListenAsOneAnswerCanName) {
  std::list<SegmentAccess> all;
  for (int i = 0; i < 32; ++i) {
    all.push_back(access());
    ASSERT_TRUE(all.back().doorbell().listen());
  }
  SegmentAccess one_more = access();
  auto refused = one_more.doorbell().listen();
  EXPECT_EQ(refused.error().code, Code::exhausted) << refused.error().text();
  node.good({segment_peer, "ring", "s", "1"});
  for (SegmentAccess& each : all) EXPECT_TRUE(Doorbell::wait(each.doorbell().descriptor(), soon));
  all.pop_back();
  EXPECT_TRUE(one_more.doorbell().listen()) << "there is room again";
  { Segment removed = std::move(*segment); }
  EXPECT_EQ(one_more.doorbell().ring().error().code, Code::not_found);
}

TEST_F(DoorbellTest, AnothersAttachmentIsNotOnesOwn) {
  SegmentAccess mine = access();
  ASSERT_TRUE(mine.doorbell().listen());
  ::chmod(node.folder().c_str(), 0755);
  std::string attachment;
  auto mirror = NisReader::open(node.run_folder() + "/nis");
  ASSERT_TRUE(mirror);
  for (const hobbes_record& record : (*mirror)->all(HOBBES_ATTACHMENT))
    attachment = std::to_string(record.id);
  for (const char* op : {"segment.listen", "segment.listeners"}) {
    std::string request = std::string("{\"op\":\"") + op + "\",\"attachment\":" + attachment + "}";
    std::string script =
        "import socket,array;s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);s.connect('" +
        node.run_folder() + "/control.sock');s.send(b'" + request +
        "');a=s.recvmsg(65536,1024);print(a[0].decode(),len(a[1]))";
    std::string said = node.good({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                  "/usr/bin/python3", "-c", script});
    EXPECT_NE(said.find("another user's"), std::string::npos) << said;
    EXPECT_NE(said.find("} 0\n"), std::string::npos) << "and no descriptor: " << said;
  }
  EXPECT_EQ(mine.doorbell().listen().value_or(-1), mine.doorbell().descriptor())
      << "asking again is not an error";
}

// What a monitor does for the programs of its guest, without a guest: their streams are socket
// pairs.
class DoorbellRelayTest : public DoorbellTest {
 protected:
  void SetUp() override {
    DoorbellTest::SetUp();
    auto made = EventLoop::make();
    ASSERT_TRUE(made);
    loop.emplace(std::move(*made));
    bells.emplace(*loop);
  }
  Result<Fd> program(std::int64_t number, bool listens) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    Fd inside(ends[0]);
    HOBBES_TRY(access, SegmentAccess::get("s", true));
    HOBBES_CHECK(bells->connect(std::move(access), Fd(ends[1]), number, listens));
    return inside;
  }
  void say(const Fd& stream, const std::string& what = "!") const {
    EXPECT_GT(::write(stream.get(), what.data(), what.size()), 0);
  }
  bool heard(const Fd& stream) {
    return eventually(
        [&] { return loop->run_once(0), static_cast<bool>(Doorbell::wait(stream.get(), no_wait)); },
        2);
  }
  bool silent(const Fd& stream) {
    for (int i = 0; i < 20; ++i) loop->run_once(5);
    auto rang = Doorbell::wait(stream.get(), no_wait);
    return !rang && rang.error().code == Code::timeout;
  }
  bool ended(const Fd& stream) {
    return eventually(
        [&] {
          loop->run_once(0);
          auto rang = Doorbell::wait(stream.get(), no_wait);
          return !rang && rang.error().code == Code::unavailable;
        },
        2);
  }
  std::optional<EventLoop> loop;
  std::optional<vmm::DoorbellRelay> bells;
};

TEST_F(DoorbellRelayTest, AGuestsProgramsHearTheNodeAndEachOtherAndNotThemselves) {
  auto one = program(1, true), same = program(1, true), two = program(2, true),
       ringer = program(3, false);
  ASSERT_TRUE(one && same && two && ringer);
  EXPECT_EQ(listeners(), 1) << "for the node the whole guest is one";
  node.good({segment_peer, "ring", "s", "1"});
  for (const Fd* each : {&*one, &*same, &*two}) EXPECT_TRUE(heard(*each));
  pid_t outside = listener("outside", 1);
  say(*one);
  EXPECT_TRUE(heard(*two));
  EXPECT_TRUE(silent(*one) && silent(*same)) << "both are process 1";
  EXPECT_TRUE(silent(*ringer)) << "it does not listen";
  ::waitpid(outside, nullptr, 0);
  EXPECT_EQ(said_by("outside"), "listens\nrang\n");
}

TEST_F(DoorbellRelayTest, WhatAGuestMaySayIsLimitedAndItsStreamsEndWithTheSegment) {
  auto hears = program(1, true);
  ASSERT_TRUE(hears);
  std::list<Fd> others;
  for (int i = 0; i < 63; ++i) {
    auto other = program(2, false);
    ASSERT_TRUE(other) << i;
    others.push_back(std::move(*other));
  }
  EXPECT_EQ(program(2, false).error().code, Code::exhausted);
  others.pop_back();  // a program that ends
  EXPECT_TRUE(silent(*hears));
  EXPECT_TRUE(program(2, false)) << "there is room again";
  say(others.front(),
      std::string(100'000, 'x'));  // more than one look takes, and nothing but a ring
  EXPECT_TRUE(heard(*hears));
  { Segment removed = std::move(*segment); }
  say(others.front());
  EXPECT_TRUE(ended(*hears));
  EXPECT_EQ(program(1, true).error().code, Code::not_found);
}

}  // namespace
}  // namespace hobbes::test
