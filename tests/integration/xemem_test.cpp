// Segments between processes and enclaves: the C API against hobbesd.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "core/file.h"
#include "integration/segment_peer.h"
#include "node_harness.h"
#include "xemem/segment.h"

namespace hobbes::test {
namespace {

std::uint64_t frame_of(const void* address) {
  std::uint64_t entry = 0;
  int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(::pread(fd, &entry, sizeof entry,
                    static_cast<off_t>(reinterpret_cast<std::uintptr_t>(address) / 4096 * 8)),
            8);
  ::close(fd);
  return entry & ((std::uint64_t{1} << 55U) - 1);
}

TEST(Xemem, AnAttachmentIsTheSamePageFrames) {
  Node node;
  node.wake_daemon();
  auto segment = Segment::make("s", 10000);
  ASSERT_TRUE(segment) << segment.error().text();
  EXPECT_EQ(segment->size(), 12288U);
  std::strcpy(static_cast<char*>(segment->data()), "shared");
  std::string out = node.good({segment_peer, "attach", "s", "rw"});
  EXPECT_EQ(out, "shared " + std::to_string(frame_of(segment->data())) + " 12288\n");
  EXPECT_STREQ(static_cast<char*>(segment->data()), "seen");
}

TEST(Xemem, AProgramInsideAnEnclaveAttachesTheHostsSegment) {
  Node node;
  node.wake_daemon();
  auto segment = Segment::make("s", 4096);
  ASSERT_TRUE(segment);
  std::strcpy(static_cast<char*>(segment->data()), "outside");
  std::string out = node.good(
      {"hobbes-run", "run", "--bundle",
       node.bundle(
           "b", "export HOBBES_RUN_DIR=" + node.run_folder() + "; " + segment_peer + " attach s rw",
           // The numbers of its frames are for administrators.
           {{"process",
             {{"capabilities",
               {{"bounding", {"CAP_SYS_ADMIN"}},
                {"effective", {"CAP_SYS_ADMIN"}},
                {"permitted", {"CAP_SYS_ADMIN"}}}}}},
            {"linux", {{"namespaces", {{{"type", "mount"}}}}}}}),
       "e"});
  EXPECT_EQ(out, "outside " + std::to_string(frame_of(segment->data())) + " 4096\n");
  EXPECT_STREQ(static_cast<char*>(segment->data()), "seen");
}

TEST(Xemem, PermissionsAreThoseOfTheModeAndReadOnlyMeansReadOnly) {
  Node node;
  ::chmod(node.folder().c_str(), 0755);
  node.wake_daemon();
  SegmentOptions readable;
  readable.mode = 0604;
  auto secret = Segment::make("secret", 4096);
  auto open = Segment::make("open", 4096, readable);
  ASSERT_TRUE(secret && open);
  auto as_nobody = [&](std::vector<std::string> argv) {
    argv.insert(argv.begin(), {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
    return node.run(argv);
  };
  EXPECT_NE(as_nobody({segment_peer, "attach", "secret", "ro"}).err.find("permissions"),
            std::string::npos);
  EXPECT_EQ(as_nobody({segment_peer, "attach", "open", "ro"}).wait_status, 0);
  EXPECT_NE(as_nobody({segment_peer, "attach", "open", "rw"}).wait_status, 0);
  auto access = SegmentAccess::get("open", false);
  ASSERT_TRUE(access);
  void* mapped = *access->map(0, 4096);
  EXPECT_NE(::mprotect(mapped, 4096, PROT_READ | PROT_WRITE), 0)
      << "a read-only attachment cannot be made writable";
  ::munmap(mapped, 4096);
}

// Where the kernel gives huge pages the segment is made of them; where it does not, that is said
// and nothing is made.
TEST(Xemem, HugePagesAreUsedWhenAskedForOrRefused) {
  Node node;
  node.wake_daemon();
  const char* knob = "/proc/sys/vm/nr_hugepages";
  std::string before = Files::system().read(knob).value_or("0");
  (void)Files::system().write(knob, "8");
  bool given = std::atoi(Files::system()
                             .read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
                             .value_or("0")
                             .c_str()) >= 2;
  auto segment = Segment::make("huge", 4 << 20, {0600, 2 << 20, false, {}});
  if (given) {
    ASSERT_TRUE(segment) << segment.error().text();
    *static_cast<volatile char*>(segment->data()) = 1;
    std::string maps = Files::system().read("/proc/self/smaps", 4 << 20).value_or("");
    EXPECT_NE(maps.find("KernelPageSize:     2048 kB"), std::string::npos);
  } else {
    ASSERT_FALSE(segment);
    EXPECT_NE(segment.error().text().find("huge pages"), std::string::npos)
        << segment.error().text();
    EXPECT_EQ(node.run({"hobbes", "segments", "--json"}).out, "[]\n");
  }
  { Result<Segment> gone = std::move(segment); }
  (void)Files::system().write(knob, before.substr(0, before.find('\n')));
}

TEST(Xemem, SegmentsEndWithTheirOwnerUnlessPersistent) {
  Node node;
  node.wake_daemon();
  node.good({"sh", "-c",
             "cd " + node.folder() + "; echo | " + segment_peer +
                 " make gone 4096 600 >/dev/null; mkfifo open; (" + segment_peer +
                 " make killed 4096 600 <>open & echo $! >pid) >/dev/null 2>&1"});
  EXPECT_TRUE(eventually([&] {
    return node.good({"hobbes", "segments"}).find("killed") != std::string::npos;
  }));
  EXPECT_EQ(node.good({"hobbes", "segments"}).find("gone"), std::string::npos);
  node.good({"sh", "-c", "kill -9 $(cat " + node.folder() + "/pid)"});
  EXPECT_TRUE(eventually([&] {
    return node.good({"hobbes", "segments"}).find("killed") == std::string::npos;
  }));
  node.good({"sh", "-c", "echo | " + segment_peer + " make stays 4096 600 persistent"});
  EXPECT_NE(node.good({segment_peer, "attach", "stays", "ro"}).find("hello"), std::string::npos);
  node.kill_daemon();
  node.wake_daemon();
  EXPECT_NE(node.good({segment_peer, "attach", "stays", "ro"}).find("hello"), std::string::npos)
      << "the keeper outlives hobbesd";
}

TEST(Xemem, ARestartedHobbesdFindsTheMemoryAtItsOwner) {
  Node node;
  node.wake_daemon();
  auto segment = Segment::make("s", 4096);
  ASSERT_TRUE(segment);
  std::strcpy(static_cast<char*>(segment->data()), "kept");
  node.kill_daemon();
  node.wake_daemon();
  EXPECT_NE(node.good({segment_peer, "attach", "s", "ro"})
                .find("kept " + std::to_string(frame_of(segment->data()))),
            std::string::npos);
}

TEST(Xemem, ExistingMemoryBecomesASegmentInPlace) {
  Node node;
  node.wake_daemon();
  EXPECT_NE(
      node.good({"sh", "-c", "echo | " + segment_peer + " convert c"}).find("in place at kept"),
      std::string::npos);
  // This process has one thread here; a second one is a refusal, as is memory of another sort.
  void* shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(Segment::make_of("x", shared, 4096).error().code, Code::unsupported);
  EXPECT_EQ(Segment::make_of("x", static_cast<char*>(shared) + 1, 4096).error().code,
            Code::invalid);
}

TEST(Xemem, ABundlesSegmentsLiveAsLongAsTheirEnclave) {
  Node node;
  Json patch = {{"hobbes", {{"segments", {{{"name", "declared"}, {"size", "1MiB"}}}}}}};
  node.good({"hobbes-run", "create", "--bundle", node.bundle("b", "exec sleep 1000", patch), "a"});
  auto access = SegmentAccess::get("declared", true);
  ASSERT_TRUE(access) << access.error().text();
  EXPECT_EQ(access->size(), 1U << 20U);
  node.kill_daemon();
  node.wake_daemon();
  EXPECT_TRUE(SegmentAccess::get("declared", true)) << "found again by a restarted hobbesd";
  node.good({"hobbes-run", "delete", "--force", "a"});
  EXPECT_EQ(SegmentAccess::get("declared", true).error().code, Code::not_found);
  node.expect_clean();
}

TEST(Xemem, NamesAreUniqueAndErrorsSayWhat) {
  Node node;
  node.wake_daemon();
  auto first = Segment::make("s", 4096);
  ASSERT_TRUE(first);
  EXPECT_EQ(Segment::make("s", 4096).error().code, Code::exists);
  EXPECT_EQ(Segment::make("a/b", 4096).error().code, Code::invalid);
  EXPECT_EQ(SegmentAccess::get("nobody", true).error().code, Code::not_found);
  EXPECT_NE(node.run({segment_peer, "attach", "nobody", "rw"}).err.find("there is no such segment"),
            std::string::npos);
}

// The grant of the bundle decides what a program inside may do; the calls are the same as outside.
std::string managed(const Node& node, const std::string& grant) {
  std::string child = node.bundle("child", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}});
  Json patch = {{"process", {{"capabilities", nullptr}}},
                {"linux", {{"namespaces", {{{"type", "mount"}}}}}},
                {"hobbes", {{"manage", grant}}}};
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle",
                              node.bundle("b",
                                          "export HOBBES_RUN_DIR=" + node.run_folder() + "; exec " +
                                              segment_peer + " manage " + child,
                                          patch),
                              "parent"});
  return outcome.out + outcome.err;
}

TEST(Manage, WithAGrantForTheNodeAProgramInsideManagesIt) {
  Node node;
  std::string out = managed(node, "node");
  EXPECT_NE(out.find("self parent, enclaves 1\nmanaged\n"), std::string::npos) << out;
  node.expect_clean();
}

TEST(Manage, WithAGrantForItselfItManagesNothingElse) {
  Node node;
  std::string out = managed(node, "self");
  EXPECT_NE(out.find("create: cannot manage the node from inside enclave 'parent': its grant "
                     "covers only itself"),
            std::string::npos)
      << out;
  node.expect_clean();
}

TEST(Manage, WithoutAGrantItManagesNothing) {
  Node node;
  std::string out = managed(node, "none");
  EXPECT_NE(out.find("launch in self: cannot manage the node from inside enclave 'parent': its "
                     "bundle grants no management"),
            std::string::npos)
      << out;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
