// hobbes.ko against its users, inside the virtual node: nothing a descriptor's holder asks may hurt
// Linux or anybody else.
#include "partition/module.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "core/file.h"
#include "node_harness.h"
#include "partition/memory_pool.h"

namespace hobbes::test {
namespace {

class Module : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* named = std::getenv("HOBBES_MODULE");
    if (::access("/dev/hobbes", F_OK) != 0)
      node.good({"/sbin/insmod", named != nullptr ? named : HOBBES_BUILD_DIR "/kmod/hobbes.ko"});
    block = memory_block_size(Files::system());
    for (const MemoryBlock& one : memory_blocks(Files::system()))
      if (!one.online) offline.push_back(one);
    ASSERT_FALSE(offline.empty());
    online = Files::system().read("/sys/devices/system/cpu/online").value_or("");
  }
  void TearDown() override {
    auto module = ModuleEnclave::open();
    ASSERT_TRUE(module);
    EXPECT_TRUE(module->settle());
    auto report = ModuleReport::read();
    ASSERT_TRUE(report);
    for (const auto& chunk : report->chunks) {
      EXPECT_EQ(chunk.free, chunk.size) << "an extent is left";
      EXPECT_TRUE(module->pool_remove(chunk.address, chunk.size, chunk.node));
    }
    EXPECT_TRUE(report->holders.empty());
    EXPECT_EQ(Files::system().read("/sys/devices/system/cpu/online").value_or(""), online);
  }
  ModuleEnclave open_with_pool() {
    auto module = ModuleEnclave::open();
    EXPECT_TRUE(module);
    EXPECT_TRUE(module->pool_add(offline[0].number * block, block, offline[0].node));
    return std::move(*module);
  }

  Node node;
  std::uint64_t block = 0;
  std::vector<MemoryBlock> offline;
  std::string online;
};

TEST_F(Module, ANameIsOneWordOfItsReport) {
  auto module = ModuleEnclave::open();
  ASSERT_TRUE(module);
  for (const char* forged : {"a\nbusy enclave b", "a b", "", "\x01", "\xe4"})
    EXPECT_FALSE(module->name(forged)) << forged;
  EXPECT_TRUE(module->name("a#0123"));
}

TEST_F(Module, TakingNeedsTheRightEvenWithTheDescriptor) {
  ModuleEnclave module = open_with_pool();
  pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(0, nullptr) != 0 || ::setuid(1234) != 0) ::_exit(2);
    bool refused = !module.take_core(1) &&
                   !module.take_extent(offline[0].node, HOBBES_FRAME_SIZE) &&
                   !module.pool_add(offline[1].number * block, block, offline[1].node) &&
                   ::open("/dev/hobbes", O_RDWR) < 0;
    ::_exit(refused && module.state() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(Module, WhatAnotherDescriptorHasTakenCannotBeReached) {
  ModuleEnclave mine = open_with_pool();
  auto other = ModuleEnclave::open();
  ASSERT_TRUE(other);
  auto extent = mine.take_extent(offline[0].node, 4 * HOBBES_FRAME_SIZE);
  ASSERT_TRUE(extent);
  ASSERT_TRUE(mine.take_core(3));
  EXPECT_FALSE(other->take_core(3));
  EXPECT_FALSE(other->return_core(3));
  EXPECT_FALSE(other->return_extent(extent->slot));
  EXPECT_FALSE(other->boot(3, *extent, extent->address, 0, 0));
  EXPECT_FALSE(other->signal(3, 0xf0));
  // Reading through its mapping of a foreign extent is a bus error, not a look.
  auto mapped = other->map(extent->address, 4096);
  ASSERT_TRUE(mapped);
  pid_t child = ::fork();
  if (child == 0) {
    auto again = other->map(extent->address, 4096);
    ::_exit(*static_cast<volatile char*>(again->base()));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
}

TEST_F(Module, AReturnedExtentIsGoneFromEveryMapping) {
  ModuleEnclave module = open_with_pool();
  auto extent = module.take_extent(offline[0].node, HOBBES_FRAME_SIZE);
  ASSERT_TRUE(extent);
  pid_t child = ::fork();
  if (child == 0) {
    auto mapping = module.map(extent->address, HOBBES_FRAME_SIZE);
    auto* word = static_cast<volatile char*>(mapping->base());
    word[0] = 1;
    word[4096] = 2;
    if (!module.return_extent(extent->slot)) ::_exit(1);
    ::_exit(word[0]);  // mapped a moment ago
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
}

TEST_F(Module, AnExtentIsClearedBeforeSomebodyElseGetsIt) {
  ModuleEnclave module = open_with_pool();
  for (int round = 0; round < 2; ++round) {
    auto extent = module.take_extent(offline[0].node, block);
    ASSERT_TRUE(extent);
    EXPECT_EQ(extent->size, block);
    auto mapping = module.map(extent->address, HOBBES_FRAME_SIZE);
    ASSERT_TRUE(mapping);
    auto* words = static_cast<volatile std::uint64_t*>(mapping->base());
    for (std::size_t i = 0; i < HOBBES_FRAME_SIZE / 8; i += 512) {
      ASSERT_EQ(words[i], 0U);
      words[i] = 0x5ec4e7;
    }
    ASSERT_TRUE(module.return_extent(extent->slot));
  }
}

TEST_F(Module, PinsAreCountedAndShowTheFramesOfTheMemory) {
  auto module = ModuleEnclave::open();
  ASSERT_TRUE(module);
  ASSERT_TRUE(Files::system().write("/proc/sys/vm/nr_hugepages", "4"));
  auto locked = [] {
    std::string text = Files::system().read("/proc/self/status").value_or("");
    return std::atoll(text.c_str() + text.find("VmLck:") + 6);
  };
  Fd pagemap(::open("/proc/self/pagemap", O_RDONLY));
  for (const auto& [kind, flags] : {std::pair{"anonymous", 0U}, std::pair{"memfd", 0U},
                                    std::pair{"hugetlb", unsigned{MFD_HUGETLB}}}) {
    SCOPED_TRACE(kind);
    bool anonymous = kind == std::string("anonymous");
    std::size_t size = flags != 0 ? 4 << 20 : 64 * 4096;
    Fd file(anonymous ? -1 : static_cast<int>(::memfd_create("pinned", flags)));
    ASSERT_TRUE(anonymous || ::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          (anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_POPULATE,
                          file.get(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    std::int64_t before = locked();
    unsigned slot = 0;
    auto runs = module->pin(memory, size, true, &slot);
    ASSERT_TRUE(runs) << runs.error().text();
    std::uint64_t total = 0;
    for (const auto& run : *runs) {
      total += run.size;
      EXPECT_TRUE(flags == 0 || (run.address | run.size) % (2 << 20) == 0) << "whole huge pages";
    }
    EXPECT_EQ(total, size);
    EXPECT_EQ(locked() - before, static_cast<std::int64_t>(size / 1024));
    std::uint64_t entry = 0;
    ASSERT_EQ(::pread(pagemap.get(), &entry, 8,
                      static_cast<off_t>(reinterpret_cast<std::uint64_t>(memory) / 4096 * 8)),
              8);
    EXPECT_EQ((entry & ((1ULL << 55U) - 1)) * 4096, runs->front().address);
    EXPECT_TRUE(module->unpin(slot));
    EXPECT_EQ(locked(), before);
    EXPECT_FALSE(module->unpin(slot));
    ::munmap(memory, size);
  }
  ASSERT_TRUE(Files::system().write("/proc/sys/vm/nr_hugepages", "0"));
}

// Random requests with random and almost right contents, from several processes at once, some of
// which are killed. A boot is only ever asked for where it must be refused: a core that executes
// noise owns the node, as any hostile co-kernel does.
TEST_F(Module, RandomRequestsHurtNobody) {
  ModuleEnclave keeper = open_with_pool();
  std::vector<pid_t> children;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    pid_t child = ::fork();
    if (child != 0) {
      children.push_back(child);
      continue;
    }
    std::mt19937_64 random(seed);
    Fd fds[4];
    for (int round = 0; round < 6000; ++round) {
      Fd& fd = fds[random() % 4];
      if (!fd || random() % 50 == 0) fd.reset(::open("/dev/hobbes", O_RDWR | O_CLOEXEC));
      union {
        hobbes_kmod_chunk chunk;
        hobbes_kmod_extent extent;
        hobbes_kmod_core core;
        hobbes_kmod_boot boot;
        hobbes_kmod_signal signal;
        hobbes_kmod_doorbell doorbell;
        hobbes_kmod_pin pin;
        std::uint64_t words[16];
      } body;
      for (std::uint64_t& word : body.words) word = random() % 3 == 0 ? random() : random() % 16;
      auto number = static_cast<unsigned long>(random() % 18);
      if (random() % 2 == 0) {  // almost right
        if (number == 1 || number == 2)
          body.chunk = {offline[random() % offline.size()].number * block,
                        random() % 4 == 0 ? block : block / 2, offline[0].node, 0};
        if (number == 6) body.extent = {(random() % 8) * HOBBES_FRAME_SIZE, 0, offline[0].node, 0};
        if (number == 7) body.extent.slot = static_cast<std::uint32_t>(random() % 4);
        if (number == 8 || number == 9) body.core.cpu = static_cast<std::uint32_t>(random() % 5);
        if (number == 13)
          body.doorbell = {::eventfd(0, EFD_CLOEXEC), static_cast<std::uint32_t>(random() % 5)};
        static char page[8192] __attribute__((aligned(4096)));
        static hobbes_kmod_run runs[8];
        if (number == 14)
          body.pin = {reinterpret_cast<std::uint64_t>(page),
                      8192,
                      reinterpret_cast<std::uint64_t>(runs),
                      static_cast<std::uint32_t>(random() % 9),
                      0,
                      1,
                      0};
      }
      if (number == 10) body.boot.entry = random() % 0x100000;
      unsigned long size = random() % 8 == 0              ? random() % 200
                           : number == 14 || number == 15 ? sizeof body.pin
                           : number == 10                 ? sizeof body.boot
                                                          : 24;
      static const unsigned long known[] = {
          HOBBES_IOC_VERSION,     HOBBES_IOC_POOL_ADD,      HOBBES_IOC_POOL_REMOVE,
          HOBBES_IOC_SETTLE,      HOBBES_IOC_NAME,          HOBBES_IOC_STATE,
          HOBBES_IOC_EXTENT_TAKE, HOBBES_IOC_EXTENT_RETURN, HOBBES_IOC_CORE_TAKE,
          HOBBES_IOC_CORE_RETURN, HOBBES_IOC_BOOT,          HOBBES_IOC_STOP,
          HOBBES_IOC_SIGNAL,      HOBBES_IOC_DOORBELL,      HOBBES_IOC_PIN,
          HOBBES_IOC_UNPIN};
      unsigned long request = number < 16 && random() % 8 != 0
                                  ? known[number]
                                  : _IOC(_IOC_READ | _IOC_WRITE, HOBBES_KMOD_MAGIC, number, size);
      void* argument = random() % 20 == 0 ? reinterpret_cast<void*>(random()) : &body;
      (void)::ioctl(fd.get(), request, argument);
      if (number == 13 && body.doorbell.eventfd > 2 && body.doorbell.eventfd < 1000)
        ::close(body.doorbell.eventfd);
      if (random() % 40 == 0) {
        void* at = ::mmap(nullptr, 4096 * (1 + random() % 600), PROT_READ, MAP_SHARED, fd.get(),
                          static_cast<off_t>((random() % (1U << 22U)) * 4096));
        if (at != MAP_FAILED) ::munmap(at, 4096);
      }
    }
    ::_exit(0);
  }
  ::usleep(3'000'000);
  ::kill(children.back(), SIGKILL);
  for (pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) << status;
  }
  EXPECT_TRUE(keeper.state());
}

}  // namespace
}  // namespace hobbes::test
