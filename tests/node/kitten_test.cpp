// Co-kernels on a real Linux, inside the virtual node (tests/node/vnode): cores and memory really
// leave Linux and come back.
#include "abi/kitten.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "abi/nis.h"
#include "core/file.h"
#include "core/identity.h"
#include "enclave/drivers/kitten/driver.h"
#include "node/kitten_node.h"
#include "partition/memory_pool.h"
#include "sample.h"

namespace hobbes::test {
namespace {

TEST_F(Kitten, TheShippedBundleBootsAndShutsDown) {
  std::string path = bundle("shipped", {}, HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img");
  ASSERT_EQ(node.create("k", path).wait_status, 0);
  EXPECT_EQ(text_at(*parse_json(node.good({"hobbes-run", "state", "k"}), "state"), "status"),
            "created");
  node.good({"hobbes-run", "start", "k"});
  Json state = *parse_json(node.good({"hobbes-run", "state", "k"}), "state");
  EXPECT_EQ(text_at(state, "status"), "running");
  EXPECT_GT(number_at(state, "pid"), 0);
  EXPECT_EQ(text_at(node.enclave("k"), "kind"), "kitten");
  EXPECT_NE(node.good({"hobbes", "console", "k"}).find("kitten: enclave 'k', 1 cores, 64 MiB"),
            std::string::npos);
  EXPECT_NE(node.good({"hobbes", "ping", "k"}).find("64 MiB"), std::string::npos);
  node.good({"hobbes-run", "kill", "k", "TERM"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("k"), "state") == "stopped"; }));
  EXPECT_NE(console("k").find("shutting down"), std::string::npos);
  node.good({"hobbes-run", "delete", "k"});
}

TEST_F(Kitten, RunReturnsZeroForAShutdownAndASignalForACrash) {
  std::string path = bundle("r");
  std::string run = HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " + path + " r >" +
                    node.folder() + "/out 2>&1; echo $?";
  auto in_background = [&](const std::function<void()>& meanwhile) {
    std::string answer;
    std::thread runner([&] { answer = node.run({"sh", "-c", run}).out; });
    EXPECT_TRUE(eventually([&] { return text_at(node.enclave("r"), "state") == "running"; }, 20))
        << file(node.folder() + "/out");
    meanwhile();
    runner.join();
    return answer;
  };
  EXPECT_EQ(in_background([&] { node.good({"hobbes-run", "kill", "r", "TERM"}); }), "0\n");
  EXPECT_EQ(in_background([&] { node.good({"hobbes-run", "kill", "r", "KILL"}); }), "137\n");
  EXPECT_EQ(in_background([&] { provoke("r", explicit_panic); }), "134\n");
  EXPECT_NE(file(node.folder() + "/out").find("panic on core 0: asked to"), std::string::npos)
      << file(node.folder() + "/out");
}

TEST_F(Kitten, ItsCoresAndMemoryAreGoneForLinuxAndSaidToBe) {
  boot("k", {{"hobbes", {{"cores", {{"count", 2}}}, {"memory", {{"size", "100MiB"}}}}}});
  Json topology = *parse_json(node.good({"hobbes", "topology", "--json"}), "topology");
  std::vector<std::int64_t> owned;
  for (const Json& core : topology["cores"])
    if (text_at(core, "owner") == "k") {
      EXPECT_EQ(text_at(core, "state"), "detached");
      owned.push_back(std::atoll(text_at(core, "cpus").c_str()));
    }
  ASSERT_EQ(owned.size(), 2U);
  const std::string watched = node.good({"hobbes", "interference", "k", "-s", "0.2"});
  EXPECT_NE(watched.find("interrupts.1 "), std::string::npos)
      << "what it has counted itself: " << watched;
  EXPECT_EQ(watched.find("other programs"), std::string::npos) << "Linux sees nothing there";
  for (std::int64_t cpu : owned) {
    std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online";
    EXPECT_EQ(line(path), "0");
    EXPECT_FALSE(Files::system().write(path, "1")) << "Linux took CPU " << cpu << " back";
  }
  auto report = ModuleReport::read();
  ASSERT_TRUE(report);
  ASSERT_FALSE(report->chunks.empty());
  std::uint64_t taken = 0;
  for (const auto& chunk : report->chunks) {
    taken += chunk.size - chunk.free;
    std::string path = "/sys/devices/system/memory/memory" +
                       std::to_string(chunk.address / memory_block_size(Files::system())) +
                       "/state";
    EXPECT_FALSE(Files::system().write(path, "online")) << "Linux took " << path << " back";
  }
  EXPECT_EQ(taken, 100ULL << 20U) << "100 MiB must mean 100 MiB, whatever the block size";
  EXPECT_EQ(number_at(statistics("k"), "memory"), 100 << 20);
}

TEST_F(Kitten, ItFindsItselfInTheMirrorByTheSameCodeAsLinuxPrograms) {
  boot("k");
  hobbes_record found{};
  EXPECT_TRUE(eventually([&] {
    auto reply = ask("k", HOBBES_KITTEN_FIND, "");
    if (!reply) return false;
    std::string digits = text_at(*reply, "payload");
    for (std::size_t i = 0; i < sizeof found && 2 * i + 1 < digits.size(); ++i)
      reinterpret_cast<unsigned char*>(&found)[i] =
          static_cast<unsigned char>(std::strtol(digits.substr(2 * i, 2).c_str(), nullptr, 16));
    return found.state == HOBBES_RUNNING;
  }));
  EXPECT_STREQ(found.name, "k");
  EXPECT_EQ(found.type, HOBBES_ENCLAVE);
  EXPECT_EQ(found.body.enclave.kind, 2U);
  EXPECT_EQ(found.body.enclave.pid, record("k").process.pid);
}

TEST_F(Kitten, CommandsAreAnsweredInOrderAndUnknownOnesRefused) {
  boot("k");
  for (std::uint64_t i = 0; i < 200; ++i) {
    auto reply = ask("k", HOBBES_KITTEN_PING, hex_of(i * 0x0101010101010101));
    ASSERT_TRUE(reply) << reply.error().text();
    EXPECT_EQ(text_at(*reply, "payload"), hex_of(i * 0x0101010101010101));
  }
  auto unknown = ask("k", 4095, "00");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().text().find("not implemented"), std::string::npos)
      << unknown.error().text();
  for (unsigned operation :
       {HOBBES_KITTEN_ADD_CORE, HOBBES_KITTEN_REMOVE_CORE, HOBBES_KITTEN_ADD_MEMORY,
        HOBBES_KITTEN_REMOVE_MEMORY, HOBBES_KITTEN_MAP, HOBBES_KITTEN_UNMAP})
    EXPECT_FALSE(ask("k", operation, "ff")) << operation << " took a payload of one byte";
}

TEST_F(Kitten, CoresComeAndGoWhileItRuns) {
  boot("k", {{"hobbes", {{"cores", {{"count", 1}, {"policy", "compact"}}}}}});
  EXPECT_EQ(number_at(statistics("k"), "cores"), 1);
  node.good({"hobbes-run", "update", "--cores", "3", "k"});
  EXPECT_EQ(number_at(statistics("k"), "cores"), 3);
  EXPECT_EQ(line("/sys/devices/system/cpu/online"), "0");
  EXPECT_TRUE(ask("k", HOBBES_KITTEN_OWN + 3, hex_of(std::uint32_t{50})))
      << "translation shootdowns over three cores";
  // A core at work is not taken away, and the refusal says so.
  struct {
    std::uint32_t core, seconds;
  } work{2, 6};
  ASSERT_TRUE(ask("k", HOBBES_KITTEN_OWN + 1, hex_of(work)));
  Outcome refused = node.run({"hobbes-run", "update", "--cores", "1", "k"});
  EXPECT_NE(refused.wait_status, 0);
  EXPECT_NE(refused.err.find("at work"), std::string::npos) << refused.err;
  EXPECT_TRUE(eventually(
      [&] {
        return node.run({"hobbes-run", "update", "--cores", "1", "k"}).good();
      },
      20));
  EXPECT_EQ(number_at(statistics("k"), "cores"), 1);
  EXPECT_EQ(text_at(node.enclave("k"), "cpus").find(','), std::string::npos);
  node.good({"hobbes-run", "update", "--cores", "2", "k"});
  EXPECT_EQ(number_at(statistics("k"), "cores"), 2) << "a removed core can come back";
}

TEST_F(Kitten, MemoryComesAndGoesWhileItRuns) {
  boot("k");
  node.good({"hobbes-run", "update", "--memory-size", "192MiB", "k"});
  EXPECT_EQ(number_at(statistics("k"), "memory"), 192 << 20);
  EXPECT_EQ(number_at(node.enclave("k"), "memory"), 192 << 20);
  // Part of the new memory is in use: it stays, and the refusal names the user.
  ASSERT_TRUE(ask("k", HOBBES_KITTEN_OWN + 2, hex_of(std::uint64_t{40})));
  Outcome refused = node.run({"hobbes-run", "update", "--memory-size", "64MiB", "k"});
  EXPECT_NE(refused.wait_status, 0);
  EXPECT_NE(refused.err.find("frames hold kernel"), std::string::npos) << refused.err;
  EXPECT_EQ(number_at(statistics("k"), "memory"), 192 << 20);
}

TEST_F(Kitten, UnusedMemoryGoesBackToLinux) {
  boot("k");
  node.good({"hobbes-run", "update", "--memory-size", "192MiB", "k"});
  node.good({"hobbes-run", "update", "--memory-size", "64MiB", "k"});
  EXPECT_EQ(number_at(statistics("k"), "memory"), 64 << 20);
  auto report = ModuleReport::read();
  ASSERT_TRUE(report);
  std::uint64_t taken = 0;
  for (const auto& chunk : report->chunks) taken += chunk.size - chunk.free;
  EXPECT_EQ(taken, 64ULL << 20U);
  Outcome refused = node.run({"hobbes-run", "update", "--memory-size", "32MiB", "k"});
  EXPECT_NE(refused.err.find("holds its kernel"), std::string::npos) << refused.err;
}

TEST_F(Kitten, AnApplicationCoreTakesNoInterruptInTenSeconds) {
  boot("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  struct {
    std::uint32_t core, seconds;
  } work{1, 12};
  ASSERT_TRUE(ask("k", HOBBES_KITTEN_OWN + 1, hex_of(work)));
  ::usleep(500'000);  // the interrupt that brought the work
  Json before = statistics("k");
  // Linux is busy meanwhile, and sends interrupts of its own between its CPUs.
  node.run({"sh", "-c",
            "end=$(($(date +%s) + 10)); for i in 1 2; do while [ $(date +%s) -lt $end ]; do dd "
            "if=/dev/zero of=/dev/shm/x$i bs=1M count=8 "
            "2>/dev/null; rm "
            "/dev/shm/x$i; done & done; wait"},
           40);
  Json after = statistics("k");
  EXPECT_EQ(after["interrupts"][1], before["interrupts"][1])
      << "interrupts on the application's core";
  EXPECT_GT(after["interrupts"][0].get<int>(), before["interrupts"][0].get<int>())
      << "core 0 takes the doorbells";
}

struct Crash {
  Fault fault;
  const char* why;
};

class KittenCrash : public Kitten, public ::testing::WithParamInterface<Crash> {};

TEST_P(KittenCrash, EndsItAloneWithAReadableCauseAndItCanBeMadeAgain) {
  static Sample sample;
  if (!sample.draws(5)) GTEST_SKIP() << "not of this sample";
  boot("sibling",
       {{"hobbes", {{"memory", {{"size", "32MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
  boot("k", {{"hobbes", {{"memory", {{"size", "32MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
  // Under emulation an interrupt takes a thousand times longer than on a machine: what counts as a
  // storm is scaled.
  const std::string storm = "/sys/module/hobbes/parameters/storm_limit";
  std::string limit = line(storm);
  ASSERT_TRUE(Files::system().write(storm, "50"));
  provoke("k", GetParam().fault);
  ASSERT_TRUE(Files::system().write(storm, limit));
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("k"), "state") == "crashed"; }, 15))
      << to_text(node.enclave("k"));
  EXPECT_NE(console("k").find(GetParam().why), std::string::npos) << console("k");
  EXPECT_TRUE(ask("sibling", HOBBES_KITTEN_PING, "aa")) << "the sibling was hurt";
  node.good({"hobbes-run", "delete", "k"});
  boot("k", {{"hobbes", {{"memory", {{"size", "32MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
  EXPECT_TRUE(ask("k", HOBBES_KITTEN_PING, "bb"));
}

INSTANTIATE_TEST_SUITE_P(
    By, KittenCrash,
    ::testing::Values(Crash{explicit_panic, "panic on core 0: asked to"},
                      Crash{wild_jump, "executing 0x123456789000, where nothing is"},
                      Crash{null_read, "page fault on core 0: reading from 0x8"},
                      Crash{stack_overflow, "double fault on core 0"},
                      Crash{spin_without_interrupts, "interrupts are off"},
                      Crash{write_page_table, "which is protected"},
                      Crash{write_interrupt_table, "which is protected"},
                      Crash{write_fault_stack, "which is protected"},
                      Crash{write_own_code, "which is protected"},
                      Crash{execute_data, "page fault on core 0: executing"},
                      Crash{doorbell_storm, "doorbell in a storm"},
                      Crash{invalid_instruction, "invalid instruction on core 0"},
                      Crash{divide_by_zero, "division by zero on core 0"},
                      Crash{machine_stop, "no heartbeat for"}));

// Kitten's image with another instruction at the beginning of a function.
std::string image_with(const std::string& function, const std::string& instruction) {
  std::string image = file(HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img");
  auto at = [&]<class T>(T, std::size_t offset) {
    T out{};
    if (offset + sizeof out <= image.size()) std::memcpy(&out, image.data() + offset, sizeof out);
    return out;
  };
  auto header = at(Elf64_Ehdr{}, 0);
  auto section = [&](unsigned number) {
    return at(Elf64_Shdr{}, header.e_shoff + number * sizeof(Elf64_Shdr));
  };
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr symbols = section(i);
    if (symbols.sh_type != SHT_SYMTAB) continue;
    for (std::size_t offset = 0; offset < symbols.sh_size; offset += sizeof(Elf64_Sym)) {
      auto symbol = at(Elf64_Sym{}, symbols.sh_offset + offset);
      if (image.c_str() + section(symbols.sh_link).sh_offset + symbol.st_name != function) continue;
      Elf64_Shdr home = section(symbol.st_shndx);
      image.replace(home.sh_offset + (symbol.st_value - home.sh_addr), instruction.size(),
                    instruction);
      return image;
    }
  }
  ADD_FAILURE() << "the image has no " << function;
  return image;
}

// In the order of a boot: in the early tables on the loader's stack, while the final ones are made,
// on core 0's own stack, on the second core.
TEST_F(Kitten, AFaultAtAnyPhaseOfItsBootIsReportedAndGivesEverythingBack) {
  boot("sibling",
       {{"hobbes",
         {{"memory", {{"size", "32MiB"}}}, {"cores", {{"list", "1"}, {"count", nullptr}}}}}});
  std::string path = node.folder() + "/broken.img";
  constexpr const char* early = "exception 6 early in its boot, at 0xffffffff8000";
  constexpr const char* later = "invalid instruction on core 0";
  for (const auto& [function, report] :
       {std::pair{"kernel_main", early}, std::pair{"_ZN6kitten9set_clockEmmmm", early},
        std::pair{"_ZN6kitten12enter_memoryEmmj", early}, std::pair{"_ZN6kitten8make_idtEv", early},
        std::pair{"_ZN6kitten12prepare_coreEjjj", early},
        std::pair{"_ZN6kitten10enter_coreEj", early}, std::pair{"_ZN6kitten8run_coreEv", later}}) {
    SCOPED_TRACE(function);
    ASSERT_TRUE(replace_file(path, image_with(function, "\x0f\x0b")));  // ud2
    Json wishes = {
        {"hobbes",
         {{"memory", {{"size", "32MiB"}}}, {"cores", {{"list", "2-3"}, {"count", nullptr}}}}}};
    ASSERT_EQ(node.create("k", bundle("k", wishes, path)).wait_status, 0);
    Outcome started = node.run({"hobbes-run", "start", "k"}, 60);
    EXPECT_TRUE(eventually([&] { return text_at(node.enclave("k"), "state") == "crashed"; }))
        << to_text(node.enclave("k"));
    EXPECT_NE((started.err + console("k")).find(report), std::string::npos)
        << started.err << console("k");
    EXPECT_TRUE(ask("sibling", HOBBES_KITTEN_PING, "aa")) << "the sibling was hurt";
    node.good({"hobbes-run", "delete", "--force", "k"});
  }
}

TEST_F(Kitten, GarbageInEverySharedPlaceHurtsNobodyElse) {
  boot("sibling",
       {{"hobbes", {{"memory", {{"size", "32MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
  for (Fault fault : {garbage_in_rings, garbage_in_status}) {
    boot("k", {{"hobbes", {{"memory", {{"size", "32MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
    provoke("k", fault);
    (void)ask("k", HOBBES_KITTEN_PING, "00");
    auto answer = ask("sibling", HOBBES_KITTEN_PING, "aa");
    EXPECT_TRUE(answer) << answer.error().text() << console("sibling");
    node.good({"hobbes-run", "delete", "--force", "k"}, 90);
  }
}

TEST_F(Kitten, AnEnclaveTooSmallForItsKernelIsRefused) {
  Outcome made =
      node.create("tiny", bundle("tiny", {{"hobbes", {{"memory", {{"size", "4MiB"}}}}}}));
  EXPECT_NE(made.wait_status, 0);
  EXPECT_NE(made.err.find("8 MiB"), std::string::npos) << made.err;
}

TEST_F(Kitten, WrongImagesAreRefusedWithTheirFault) {
  std::string image = file(HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img");
  std::string path = node.folder() + "/image";
  auto refusal = [&](const std::string& content) {
    EXPECT_TRUE(replace_file(path, content));
    Outcome made = node.create("bad", bundle("bad", {}, path));
    EXPECT_NE(made.wait_status, 0);
    return made.err;
  };
  EXPECT_NE(refusal("").find("no file with something in it"), std::string::npos);
  EXPECT_NE(
      refusal(
          "MZ not an ELF file at all, but long enough to hold the header of one: sixty-four bytes")
          .find("no ELF file"),
      std::string::npos);
  EXPECT_NE(refusal(image.substr(0, 40)).find("shorter than"), std::string::npos);
  EXPECT_NE(refusal(image.substr(0, 9000)).find("truncated"), std::string::npos);
  std::string other = image;
  other[18] = 3;
  EXPECT_NE(refusal(other).find("not for x86-64"), std::string::npos);
}

TEST_F(Kitten, MoreThanLinuxCanGiveIsRefusedAndNothingIsKept) {
  Outcome cores = node.create("k", bundle("k", {{"hobbes", {{"cores", {{"count", 4}}}}}}));
  EXPECT_NE(cores.wait_status, 0);
  EXPECT_NE(cores.err.find("the host keeps 0"), std::string::npos) << cores.err;
  Outcome memory = node.create("k", bundle("k", {{"hobbes", {{"memory", {{"size", "64GiB"}}}}}}));
  EXPECT_NE(memory.wait_status, 0);
  EXPECT_NE(memory.err.find("Linux can give up"), std::string::npos) << memory.err;
}

TEST_F(Kitten, ServiceCoresAreWhereItsControlProcessRuns) {
  boot("k", {{"hobbes", {{"serviceCores", "1"}, {"cores", {{"list", "3"}, {"count", nullptr}}}}}});
  auto status = file("/proc/" + std::to_string(record("k").process.pid) + "/status");
  EXPECT_NE(status.find("Cpus_allowed_list:\t1\n"), std::string::npos) << status;
  Outcome both = node.create(
      "b",
      bundle("b", {{"hobbes",
                    {{"serviceCores", "2"}, {"cores", {{"list", "2"}, {"count", nullptr}}}}}}));
  EXPECT_NE(both.err.find("both a service core"), std::string::npos) << both.err;
}

TEST_F(Kitten, AnotherHobbesdFindsItsCoresAgain) {
  boot("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  Json before = *parse_json(node.good({"hobbes", "topology", "--json"}), "topology");
  node.kill_daemon();
  EXPECT_TRUE(ask("k", HOBBES_KITTEN_PING, "01")) << "it does not need hobbesd";
  node.wake_daemon();
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("k"), "state") == "running"; }));
  Json after = *parse_json(node.good({"hobbes", "topology", "--json"}), "topology");
  ASSERT_EQ(after["cores"].size(), before["cores"].size());
  for (std::size_t i = 0; i < after["cores"].size(); ++i)
    EXPECT_EQ(after["cores"][i]["owner"], before["cores"][i]["owner"]);
}

TEST_F(Kitten, AKilledControlProcessLeavesNothingTaken) {
  for (int round = 0; round < 3; ++round) {
    boot("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
    ::kill(record("k").process.pid, SIGKILL);
    EXPECT_TRUE(eventually([&] { return line("/sys/devices/system/cpu/online") == "0-3"; }, 20));
    node.good({"hobbes-run", "delete", "--force", "k"});
  }
}

// Blocks that were online before must come back online, also when a second co-kernel was made on
// the same node meanwhile.
TEST_F(Kitten, BlocksGoBackToTheStateTheyHadBeforeTheFirstOfTwo) {
  auto blocks = memory_blocks(Files::system());
  auto set_all = [&](const std::string& state) {
    for (const MemoryBlock& block : blocks) {
      if (block.online) continue;
      auto written = Files::system().write(
          "/sys/devices/system/memory/memory" + std::to_string(block.number) + "/state", state);
      EXPECT_TRUE(written) << written.error().text();
    }
  };
  set_all("online_movable");  // all of the DIMM is Linux's
  node.kill_daemon();         // another one finds the memory as it is now
  boot("a");
  boot("b", {{"hobbes", {{"memory", {{"size", "200MiB"}}}, {"cores", {{"policy", "compact"}}}}}});
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.good({"hobbes-run", "delete", "--force", "b"});
  for (const MemoryBlock& block : memory_blocks(Files::system()))
    EXPECT_TRUE(block.online) << block.number << " did not come back";
  set_all("offline");
}

// A control process that is stopped, not dead: only hobbesd can tell.
TEST_F(Kitten, ASilentControlProcessCountsAsCrashed) {
  boot("k", {{"hobbes", {{"heartbeat", 10}}}});
  ::kill(record("k").process.pid, SIGSTOP);
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("k"), "state") == "crashed"; }, 30))
      << to_text(node.enclave("k"));
}

// hobbes-run dies at a random instant of create or start, many times; everything is found in its
// place again.
TEST_F(Kitten, HobbesRunKilledAnywhereLeavesNothingTaken) {
  std::string path = bundle("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  for (int round = 0; round < 25; ++round) {
    std::string delay = std::to_string(0.01 + 0.03 * round);
    node.run({"sh", "-c",
              "timeout -s KILL " + delay + " " HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " +
                  path + " k >/dev/null 2>&1 && timeout -s KILL " + delay +
                  " " HOBBES_BUILD_DIR "/bin/hobbes-run start k >/dev/null 2>&1"});
    node.good({"hobbes-run", "delete", "--force", "k"});
    ASSERT_TRUE(eventually(
        [&] { return line("/sys/devices/system/cpu/online") == "0-3" && module_is_empty(); }, 20))
        << "after " << delay << " s: " << line("/sys/devices/system/cpu/online") << "\n"
        << file("/dev/hobbes");
  }
}

// strace's injections into calls of the module: what it is told, and how its log shows that it was
// done.
constexpr std::pair<const char*, const char*> death_and_refusal[] = {
    {"signal=SIGKILL", "+++ killed by SIGKILL"}, {"error=EIO", "(INJECTED)"}};
std::string injected(const std::string& log, const std::string& what, int call) {
  return "strace -o " + log + " -P " HOBBES_KMOD_DEVICE " -e trace=ioctl -e inject=ioctl:" + what +
         ":when=" + std::to_string(call) + " ";
}

TEST_F(Kitten, HobbesRunMayDieOrBeRefusedAtEachOfItsCallsOfTheModule) {
  std::string log = node.folder() + "/strace",
              path = bundle("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  node.wake_daemon();
  Sample sample;
  for (const std::string& verb : {"create --bundle " + path, std::string("delete --force")})
    for (auto [what, trace] : death_and_refusal) {
      int call = 1;
      for (bool met = true; met; ++call) {  // until there is no such call any more
        if (!sample.draws(6)) continue;
        SCOPED_TRACE(verb + ": " + what + " at call " + std::to_string(call));
        if (verb == "delete --force") {
          ASSERT_TRUE(node.create("k", path).good());
          node.good({"hobbes-run", "start", "k"});
        }
        (void)node.run({"sh", "-c",
                        injected(log, what, call) + HOBBES_BUILD_DIR "/bin/hobbes-run " + verb +
                            " k </dev/null >/dev/null 2>&1"});
        met = file(log).find(trace) != std::string::npos;
        node.good({"hobbes-run", "delete", "--force", "k"});
        ASSERT_TRUE(eventually([&] { return all_is_back(); }, 20)) << linux_has() << file(log);
      }
      EXPECT_GT(call, verb == "delete --force" ? 3 : 8) << file(log);
    }
}

// Of its calls the first two, which attach the doorbell and boot the first core, are always the
// same; how often it then asks for the state depends on the time a boot takes.
TEST_F(Kitten, ItsControlProcessMayDieOrBeRefusedAtItsCallsOfTheModule) {
  std::string log = node.folder() + "/strace",
              path = bundle("k", {{"hobbes", {{"cores", {{"count", 2}}}}}});
  node.wake_daemon();
  Sample sample;
  for (auto [what, trace] : death_and_refusal)
    for (int call = 1; call <= 12; ++call) {
      if (call > 2 && !sample.draws(6)) continue;
      SCOPED_TRACE(what + std::string(" at call ") + std::to_string(call));
      ASSERT_TRUE(node.create("k", path).good());
      std::string pid = std::to_string(record("k").process.pid);
      Outcome outcome =
          node.run({"sh", "-c",
                    "cd " HOBBES_BUILD_DIR "/bin; " + injected(log, what, call) + "-p " + pid +
                        " 2>" + log + ".err & until grep -q attached " + log +
                        ".err; do sleep 0.02; done; ./hobbes-run start k && sleep 1 && "
                        "./hobbes-run kill k TERM; wait $!"});
      std::string calls = file(log);
      if (call <= 2) {
        EXPECT_FALSE(outcome.good() && outcome.err.empty())
            << "a start without its doorbell or its core: " << calls;
        EXPECT_NE(calls.find(call == 1 ? "0xb5, 0xd," : "0xb5, 0xa,"), std::string::npos) << calls;
        EXPECT_NE(calls.find(trace), std::string::npos) << calls;
      }
      node.good({"hobbes-run", "delete", "--force", "k"});
      ASSERT_TRUE(eventually([&] { return all_is_back(); }, 20)) << linux_has() << calls;
    }
}

TEST_F(Kitten, CyclesLeakNothingAndDoNotSlowDown) {
  auto kernel_memory = [&] {
    std::string text = file("/proc/meminfo");
    std::size_t at = text.find("SUnreclaim:");
    return std::atoll(text.c_str() + at + 11);
  };
  std::string path = bundle("k", {{"hobbes", {{"memory", {{"size", "8MiB"}}}}}});
  auto cycles = [&](int count) {
    return node.run({"sh", "-c",
                     "cd " HOBBES_BUILD_DIR "/bin; for i in $(seq " + std::to_string(count) +
                         "); do ./hobbes-run create --bundle " + path +
                         " k >/dev/null && ./hobbes-run start k && ./hobbes-run delete --force k "
                         "|| exit 1; done"},
                    400);
  };
  auto seconds = [&](int count) {
    auto begun = std::chrono::steady_clock::now();
    EXPECT_TRUE(cycles(count).good());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  };
  ASSERT_TRUE(cycles(Sample::of(20, 8)).good());
  std::int64_t before = kernel_memory();
  double early = seconds(Sample::of(30));
  ASSERT_TRUE(cycles(Sample::of(120, 10)).good());
  double late = seconds(Sample::of(30));
  EXPECT_LT(kernel_memory() - before, 4096) << "KiB of kernel memory more after many cycles";
  EXPECT_LT(late, 2 * early) << "the last cycles against as many early ones";
}

TEST_F(Kitten, FeaturesSayWhetherItCanBeHosted) {
  Json features = *parse_json(node.good({"hobbes-run", "features"}), "features");
  EXPECT_TRUE(features["hobbes"]["kinds"]["kitten"]["available"]);
  node.good({"/sbin/rmmod", "hobbes"});
  features = *parse_json(node.good({"hobbes-run", "features"}), "features");
  EXPECT_FALSE(features["hobbes"]["kinds"]["kitten"]["available"]);
  EXPECT_NE(text_at(features["hobbes"]["kinds"]["kitten"], "why").find("not loaded"),
            std::string::npos);
  Outcome refused = node.create("k", bundle("k"));
  EXPECT_NE(refused.err.find("modprobe hobbes"), std::string::npos) << refused.err;
  const char* named = std::getenv("HOBBES_MODULE");
  node.good({"/sbin/insmod", named != nullptr ? named : HOBBES_BUILD_DIR "/kmod/hobbes.ko"});
}

}  // namespace
}  // namespace hobbes::test
