// Snapshots of segments (XASM) between processes and enclaves: the C API against hobbesd.
#include "xemem/snapshot.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "core/file.h"
#include "core/process.h"
#include "core/size.h"
#include "hobbes.h"
#include "integration/segment_peer.h"
#include "node_harness.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

// segment-peer as a child of this process, with a pipe to its standard input.
class Peer {
 public:
  Peer(const Node& node, const std::string& name, std::vector<std::string> args)
      : out_(node.folder() + "/" + name) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[0], 0);
      if (std::freopen(out_.c_str(), "w", stdout) == nullptr) ::_exit(1);
      std::vector<char*> argv = {const_cast<char*>(segment_peer.c_str())};
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      ::execv(segment_peer.c_str(), argv.data());
      ::_exit(1);
    }
    in_.reset(ends[1]);
    ::close(ends[0]);
  }
  ~Peer() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    (void)end();
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  [[nodiscard]] std::string said() const { return Files::system().read(out_).value_or(""); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Closes its input and waits; its wait status.
  int end() {
    int status = 0;
    in_.reset();
    if (pid_ > 0) ::waitpid(std::exchange(pid_, 0), &status, 0);
    return status;
  }

 private:
  std::string out_;
  pid_t pid_ = 0;
  Fd in_;
};

SegmentOptions open_to(mode_t mode) {
  SegmentOptions out;
  out.mode = mode;
  out.snapshots = true;
  return out;
}

class Snapshots : public ::testing::Test {
 protected:
  Snapshots() { node.wake_daemon(); }
  // A maker that writes to its segment all the time.
  std::unique_ptr<Peer> sweep(const std::string& name, const std::string& size,
                              const std::string& pages = "small") {
    auto out = std::make_unique<Peer>(node, "maker." + name,
                                      std::vector<std::string>{"sweep", name, size, pages});
    EXPECT_TRUE(eventually([&] { return out->said() == "sweeps\n"; })) << out->said();
    return out;
  }
  static std::uint64_t longest_write_ms(const Peer& maker) {
    const std::string said = maker.said();
    std::size_t at = said.find("took ");
    EXPECT_NE(at, std::string::npos) << said;
    return at == std::string::npos ? 0 : std::strtoull(said.c_str() + at + 5, nullptr, 10);
  }
  std::string segments() const { return node.good({"hobbes", "segments", "--json"}); }
  Node node;
};

TEST_F(Snapshots, ShowOneInstantWhileTheMakerGoesOnWriting) {
  auto maker = sweep("s", "8388608");
  EXPECT_EQ(node.good({segment_peer, "snapshot", "s", "20"}), "20 instants, rounds went on\n");
  EXPECT_EQ(maker->end(), 0);
  EXPECT_EQ(segments(), "[]\n");
}

TEST_F(Snapshots, OfHugePagesAreTakenAsWell) {
  const std::string pool = "/proc/sys/vm/nr_hugepages";
  const std::string before = Files::system().read(pool).value_or("0");
  ASSERT_TRUE(Files::system().write(pool, std::to_string(std::atoi(before.c_str()) + 8)));
  auto maker = sweep("huge", "4194304", "huge");
  EXPECT_EQ(node.good({segment_peer, "snapshot", "huge", "10"}), "10 instants, rounds went on\n");
  EXPECT_EQ(maker->end(), 0);
  EXPECT_TRUE(Files::system().write(pool, before));
}

TEST_F(Snapshots, AreReadOnlySegmentsThatNameWhatTheyShow) {
  auto segment = Segment::make("field", 65536, open_to(0600));
  ASSERT_TRUE(segment) << segment.error().text();
  std::strcpy(static_cast<char*>(segment->data()), "then");
  auto taken = take_snapshot(segment->handle(), {"field.then", 0666});
  ASSERT_TRUE(taken) << taken.error().text();
  std::strcpy(static_cast<char*>(segment->data()), "now");
  EXPECT_STREQ(static_cast<char*>(taken->data()), "then");
  EXPECT_EQ(taken->size(), 65536U);
  EXPECT_EQ(node.good({segment_peer, "attach", "field.then", "ro"}).substr(0, 5), "then ");
  EXPECT_NE(node.run({segment_peer, "attach", "field.then", "rw"}).err.find("snapshot"),
            std::string::npos)
      << "although this is root";
  Json records = Json::parse(segments());
  ASSERT_EQ(records.size(), 2U);
  EXPECT_FALSE(records[0].contains("snapshotOf"));
  EXPECT_EQ(records[1]["snapshotOf"], records[0]["handle"]) << records;
  EXPECT_EQ(records[1]["mode"], 0444);
  auto again = take_snapshot(segment->handle(), {"field.then"});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::exists);
}

TEST_F(Snapshots, AreRefusedWhereTheyWouldShowNoInstant) {
  auto plain = Segment::make("plain", 4096);
  auto open = Segment::make("open", 4096, open_to(0600));
  ASSERT_TRUE(plain && open);
  auto without = take_snapshot(plain->handle());
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, Code::unsupported) << without.error().text();
  EXPECT_TRUE(take_snapshot(plain->handle(), {"", 0400, true})) << "nobody writes, says the caller";
  {
    auto writer = SegmentAccess::get("open", true);
    ASSERT_TRUE(writer);
    auto busy = take_snapshot(open->handle());
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().code, Code::busy);
    EXPECT_NE(busy.error().cause.find("for writing"), std::string::npos);
  }
  EXPECT_TRUE(take_snapshot(open->handle())) << "the writer has gone";
  {
    // A right that is given back while its memory stays mapped.
    const auto handle = static_cast<hobbes_segid>(open->handle());
    const hobbes_apid access = hobbes_segment_get(handle, HOBBES_RDWR);
    void* mapped = hobbes_segment_attach(access, 0, 0);
    ASSERT_NE(mapped, nullptr) << hobbes_error();
    EXPECT_EQ(hobbes_segment_release(access), 0);
    EXPECT_EQ(take_snapshot(open->handle()).error().code, Code::busy);
    EXPECT_EQ(hobbes_segment_detach(mapped), 0);
    EXPECT_TRUE(take_snapshot(open->handle()));
  }
  EXPECT_EQ(take_snapshot(12345).error().code, Code::not_found);
  SegmentOptions both = open_to(0600);
  both.persistent = true;
  EXPECT_EQ(Segment::make("both", 4096, both).error().code, Code::invalid);
}

TEST_F(Snapshots, AStoppedOrKilledTakerHoldsTheMakerUpForAFractionOfASecond) {
  auto maker = sweep("s", "67108864");
  for (int number : {SIGSTOP, SIGKILL, SIGSTOP, SIGKILL, SIGKILL}) {
    Peer taker(node, "taker", {"snapshot", "s", "1000"});
    EXPECT_TRUE(eventually([&] { return segments().find("snapshotOf") != std::string::npos; }));
    ::usleep(static_cast<useconds_t>(::random() % 60'000));
    ::kill(taker.pid(), number);
    ::usleep(300'000);
  }
  EXPECT_EQ(node.good({segment_peer, "snapshot", "s", "20"}), "20 instants, rounds went on\n");
  EXPECT_EQ(maker->end(), 0);
  EXPECT_LT(longest_write_ms(*maker), 2000U);
  EXPECT_TRUE(eventually([&] { return segments() == "[]\n"; })) << segments();
}

// The child has the maker's descriptors.
TEST_F(Snapshots, AMakerThatForksMeanwhileIsNotHeldUp) {
  auto segment = Segment::make("s", 64 << 20, open_to(0600));
  ASSERT_TRUE(segment);
  std::memset(segment->data(), 1, segment->size());
  for (int i = 0; i < 5; ++i) {
    Peer taker(node, "taker", {"snapshot", "s", "1"});
    std::vector<pid_t> children;
    for (int n = 0; n < 20; ++n) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::pause();
        ::_exit(0);
      }
      children.push_back(child);
      ::usleep(5000);
    }
    const auto before = std::chrono::steady_clock::now();
    std::memset(segment->data(), 2, segment->size());
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
    (void)taker.end();
    EXPECT_TRUE(take_snapshot(segment->handle())) << "nothing of the last one is left";
    for (pid_t child : children) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }
}

TEST_F(Snapshots, AKilledMakerIsToldToWhoTakes) {
  for (int i = 0; i < 4; ++i) {
    auto maker = sweep("s" + std::to_string(i), "67108864");
    Peer taker(node, "taker", {"snapshot", "s" + std::to_string(i), "1000"});
    EXPECT_TRUE(eventually([&] { return segments().find("snapshotOf") != std::string::npos; }));
    ::usleep(static_cast<useconds_t>(::random() % 60'000));
    ::kill(maker->pid(), SIGKILL);
    (void)maker->end();
    int status = -1;
    EXPECT_TRUE(eventually([&] {
      return ::waitpid(taker.pid(), &status, WNOHANG | WNOWAIT) == taker.pid() ||
             process_state(taker.pid()) == 'Z';
    })) << "it neither hangs nor crashes";
    EXPECT_EQ(exit_code_of(taker.end()), 1);
    EXPECT_TRUE(eventually([&] { return segments() == "[]\n"; })) << segments();
  }
}

TEST(SnapshotsOfOthers, AreForThoseWhoMayRead) {
  SharedNode node;
  node.wake_daemon();
  auto closed = Segment::make("closed", 4096, open_to(0600));
  auto open = Segment::make("open", 4096, open_to(0644));
  ASSERT_TRUE(closed && open);
  auto take = [&](const std::string& name) {
    return node.run(as_user(attacker, {segment_peer, "snapshot", name, "1"}));
  };
  EXPECT_NE(take("closed").err.find("permissions"), std::string::npos) << take("closed").err;
  Outcome taken = take("open");
  EXPECT_EQ(taken.wait_status, 0) << taken.err;
}

TEST_F(Snapshots, AreTakenFromInsideAnEnclaveOfWhatAProgramInAnotherMakes) {
  Json spaces = {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "pid"}}}}}}};
  const std::string in_enclave = "export HOBBES_RUN_DIR=" + node.run_folder() + "; ";
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("maker",
                         in_enclave + "sleep 1000 | " + segment_peer +
                             " sweep field 4194304 small >/dev/null",
                         spaces),
             "maker"});
  EXPECT_TRUE(eventually([&] { return segments().find("field") != std::string::npos; }));
  Outcome taken = node.run(
      {"hobbes-run", "run", "--bundle",
       node.bundle("taker", in_enclave + segment_peer + " snapshot field 5", spaces), "taker"});
  EXPECT_EQ(taken.out, "5 instants, rounds went on\n") << taken.err;
  node.good({"hobbes-run", "delete", "--force", "maker"});
}

}  // namespace
}  // namespace hobbes::test
