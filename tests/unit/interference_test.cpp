#include "partition/interference.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "unit/made_up_files.h"

namespace hobbes {
namespace {

// A procfs whose files a test writes.
class Proc : public MadeUpFiles {
 public:
  std::map<std::string, std::string> files;

  // A thread on `cpu` that has run and waited so long.
  void thread(const std::string& process, const std::string& id, const std::string& name,
              unsigned cpu, std::uint64_t ran, std::uint64_t waited,
              const std::string& started = "77") {
    const std::string folder = "/proc/" + process + "/task/" + id + "/";
    std::string stat = id + " (" + name + ") S";
    for (int field = 4; field <= 52; ++field)
      stat += " " + (field == 22 ? started : field == 39 ? std::to_string(cpu) : std::string("0"));
    files[folder + "stat"] = stat + "\n";
    files[folder + "schedstat"] = std::to_string(ran) + " " + std::to_string(waited) + " 3\n";
  }

  Result<std::string> read(const std::string& path, std::size_t) const override {
    auto at = files.find(path);
    if (at == files.end()) return os_error("read " + path, ENOENT);
    return at->second;
  }
  Result<std::vector<std::string>> list(const std::string& path) const override {
    std::set<std::string> names;
    for (const auto& [file, text] : files)
      if (file.rfind(path + "/", 0) == 0)
        names.insert(
            file.substr(path.size() + 1, file.find('/', path.size() + 1) - path.size() - 1));
    return std::vector<std::string>(names.begin(), names.end());
  }
  bool exists(const std::string& path) const override { return files.count(path) != 0; }
};

class InterferenceTest : public ::testing::Test {
 protected:
  InterferenceTest() {
    proc.files["/proc/interrupts"] =
        "            CPU0       CPU1       CPU3\n"
        "  1:          5          6          7   IO-APIC   1-edge      i8042\n"
        " 24:         10         20         30  PCI-MSIX-0000:00:01.0   0-edge      nvme0q1, "
        "nvme1\n"
        "LOC:        100        200        300   Local timer interrupts\n"
        "ERR:          0\n";
    proc.files["/proc/stat"] =
        "cpu  1 1 1 1 1 9 9 9 0 0\ncpu0 1 0 1 1 0 100 100 100 0 0\ncpu1 1 0 1 1 0 1 2 3 0 0\n"
        "cpu3 1 0 1 1 0 10 20 30 0 0\nintr 99\n";
    proc.thread("10", "10", "own", 1, 1000, 100);
    proc.thread("10", "11", "own) (too", 3, 2000, 200);
    proc.thread("20", "20", "other", 1, 5000, 0);
    proc.thread("30", "30", "elsewhere", 0, 5000, 0);
  }
  void look(std::uint64_t now) {
    auto looked = watch.look(own, now);
    ASSERT_TRUE(looked) << looked.error().text();
  }
  const OwnProcesses own = []() -> Result<std::set<pid_t>> { return std::set<pid_t>{10}; };
  Proc proc;
  InterferenceWatch watch{CpuSet{1, 3}, proc};
};

TEST_F(InterferenceTest, NothingThatWasBeforeTheFirstLookCounts) {
  look(5);
  look(5'000'005);
  const Interference found = watch.result();
  EXPECT_EQ(found.elapsed_ns, 5'000'000U);
  EXPECT_EQ(found.ran_ns + found.waited_ns + found.handled_ns + found.stolen_ns, 0U);
  EXPECT_TRUE(found.interrupts.empty() && found.programs.empty());
}

TEST_F(InterferenceTest, EachCauseHasItsAmountAndItsName) {
  look(0);
  proc.files["/proc/interrupts"] =
      "            CPU0       CPU1       CPU3\n"
      "  1:         50         60          7   IO-APIC   1-edge      i8042\n"
      " 24:        900         20         31  PCI-MSIX-0000:00:01.0   0-edge      nvme0q1, nvme1\n"
      "LOC:       9100        260        340   Local timer interrupts\n"
      "ERR:          7\n";
  proc.files["/proc/stat"] =
      "cpu0 1 0 1 1 0 900 900 900 0 0\ncpu1 1 0 1 1 0 2 4 6 0 0\ncpu3 1 0 1 1 0 10 20 31 0 0\n";
  proc.thread("10", "10", "own", 1, 1500, 107);
  proc.thread("10", "11", "own) (too", 3, 2600, 200);
  proc.thread("20", "20", "other", 1, 5300, 9);
  proc.thread("30", "30", "elsewhere", 0, 9000, 0);
  proc.thread("40", "40", "new (one)", 3, 50, 0);
  look(1'000'000);
  const Interference found = watch.result();
  EXPECT_EQ(found.ran_ns, 1100U);
  EXPECT_EQ(found.waited_ns, 7U);
  const auto tick = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  EXPECT_EQ(found.handled_ns, 3 * tick);
  EXPECT_EQ(found.stolen_ns, 4 * tick);
  ASSERT_EQ(found.interrupts.size(), 3U);
  EXPECT_EQ(found.interrupts[0].name, "Local timer interrupts");
  EXPECT_EQ(found.interrupts[0].amount, 100U);
  EXPECT_EQ(found.interrupts[0].cpus.text(), "1,3");
  EXPECT_EQ(found.interrupts[1].name, "i8042");
  EXPECT_EQ(found.interrupts[1].amount, 54U);
  EXPECT_EQ(found.interrupts[2].name, "nvme0q1, nvme1");
  EXPECT_EQ(found.interrupts[2].cpus.text(), "3");
  ASSERT_EQ(found.programs.size(), 2U);
  EXPECT_EQ(found.programs[0].name, "other");
  EXPECT_EQ(found.programs[0].amount, 300U);
  EXPECT_EQ(found.programs[1].name, "new (one)");
}

TEST_F(InterferenceTest, AWorkerOfTheKernelIsOneWhateverItDoes) {
  look(0);
  proc.thread("50", "50", "kworker/1:0-events", 1, 10, 0);
  look(1'000'000);
  proc.thread("50", "50", "kworker/1:0-mm_percpu_wq", 1, 30, 0);
  look(2'000'000);
  ASSERT_EQ(watch.result().programs.size(), 1U);
  EXPECT_EQ(watch.result().programs[0].name, "kworker/1:0");
  EXPECT_EQ(watch.result().programs[0].amount, 30U);
}

TEST_F(InterferenceTest, ANameThatWouldWriteOnATerminalIsShownWithoutThat) {
  look(0);
  proc.thread("50", "50", "\033[2J\xffx", 1, 10, 0);
  look(1'000'000);
  ASSERT_EQ(watch.result().programs.size(), 1U);
  EXPECT_EQ(watch.result().programs[0].name, "?[2J?x");
}

TEST_F(InterferenceTest, AThreadThatOneLookMissesHasRunNoLongerThanSinceThen) {
  look(0);
  const auto files = proc.files;
  proc.files.erase("/proc/20/task/20/stat");
  look(1'000'000);
  proc.files = files;
  proc.thread("20", "20", "other", 1, 5'000'000'000, 0);
  look(3'000'000);
  ASSERT_EQ(watch.result().programs.size(), 1U);
  EXPECT_EQ(watch.result().programs[0].amount, 2'000'000U);
}

TEST_F(InterferenceTest, WhatACpuCountedWhileItWasOfflineDoesNotCount) {
  const auto files = proc.files;
  proc.files["/proc/interrupts"] =
      "  CPU0 CPU1\n 1: 5 6 IO-APIC 1-edge i8042\n"
      " 24: 10 20 PCI-MSIX-0000:00:01.0 0-edge nvme0q1, nvme1\n"
      "LOC: 100 200 Local timer interrupts\n";
  proc.files["/proc/stat"] = "cpu1 1 0 1 1 0 1 2 3 0 0\n";
  look(0);
  proc.files = files;  // CPU 3 comes
  look(1'000'000);
  Interference found = watch.result();
  EXPECT_TRUE(found.interrupts.empty()) << found.interrupts[0].name;
  EXPECT_EQ(found.handled_ns + found.stolen_ns, 0U);
}

TEST_F(InterferenceTest, AProcessThatBeginsDuringALookIsNotTakenForAnothers) {
  std::set<pid_t> mine = {10};
  const OwnProcesses forking = [&]() -> Result<std::set<pid_t>> {
    auto now = mine;
    mine.insert(60);
    return now;
  };
  ASSERT_TRUE(watch.look(forking, 0));
  mine = {10};
  proc.thread("60", "60", "child", 1, 500, 0);
  ASSERT_TRUE(watch.look(forking, 1'000'000));
  EXPECT_TRUE(watch.result().programs.empty());
  EXPECT_EQ(watch.result().ran_ns, 500U);
}

TEST_F(InterferenceTest, AThreadIdThatIsUsedAgainIsAnotherThread) {
  look(0);
  proc.thread("20", "20", "successor", 1, 40, 0, "99");
  look(1'000'000);
  ASSERT_EQ(watch.result().programs.size(), 1U);
  EXPECT_EQ(watch.result().programs[0].amount, 40U) << "not less than nothing";
}

TEST_F(InterferenceTest, LooksAddUpAndAMovedThreadCountsWhereItRanLast) {
  look(0);
  proc.thread("20", "20", "other", 0, 6000, 0);
  look(1'000'000);
  EXPECT_TRUE(watch.result().programs.empty()) << "it ran on CPU 0 last";
  proc.thread("20", "20", "other", 3, 6500, 0);
  look(2'000'000);
  proc.thread("20", "20", "other", 3, 6600, 0);
  look(3'000'000);
  ASSERT_EQ(watch.result().programs.size(), 1U);
  EXPECT_EQ(watch.result().programs[0].amount, 600U);
}

TEST_F(InterferenceTest, TextThatNoKernelWritesCountsAsNothing) {
  look(0);
  for (const char* text : {"", "\n\n", "CPU0 CPU1\n1: a b\n", "CPU1\n:\nLOC:\n 7 8 9 10\n",
                           "  CPUx CPU99999999999 CPU1\nLOC: 1 2 3\n"}) {
    proc.files["/proc/interrupts"] = text;
    proc.files["/proc/stat"] = text;
    proc.files["/proc/20/task/20/stat"] = text;
    proc.files["/proc/10/task/10/schedstat"] = "x";
    look(1'000'000);
  }
  proc.files["/proc/20/task/20/stat"] = ")(";
  look(2'000'000);
  proc.files.erase("/proc/stat");
  EXPECT_EQ(watch.look(own, 3).error().code, Code::not_found);
}

}  // namespace
}  // namespace hobbes
