// What programs of a co-kernel are shown of its machine.
#include "enclave/drivers/kitten/machine_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

namespace hobbes {
namespace {

// A node of one package with four processors, 0 and 2, 1 and 3 on a core each. It forgets those
// that are taken from it.
class FakeNode final : public Files {
 public:
  FakeNode() {
    for (unsigned cpu : {0U, 1U, 2U, 3U}) {
      const std::string at = folder(cpu);
      files[at + "/topology/thread_siblings_list"] = cpu % 2 == 0 ? "0,2\n" : "1,3\n";
      files[at + "/topology/thread_siblings"] = cpu % 2 == 0 ? "5\n" : "a\n";
      files[at + "/topology/core_siblings"] = "0000000f\n";
      files[at + "/topology/core_id"] = std::to_string(cpu % 2) + "\n";
      files[at + "/cache/index0/shared_cpu_map"] = cpu % 2 == 0 ? "5\n" : "a\n";
      files[at + "/cache/index0/size"] = "32K\n";
      files[at + "/node0/uevent"] = "";
    }
  }
  void take(unsigned cpu) {
    std::erase_if(files, [&](const auto& file) { return file.first.rfind(folder(cpu), 0) == 0; });
  }
  Result<std::string> read(const std::string& path, std::size_t) const override {
    if (path == "/proc/cpuinfo") {
      std::string out;
      for (unsigned cpu : {0U, 1U, 2U, 3U})
        if (files.count(folder(cpu) + "/topology/core_id") != 0)
          out += "processor\t: " + std::to_string(cpu) + "\nmodel name\t: fake\n\n";
      return out;
    }
    auto at = files.find(path);
    if (at == files.end()) return Error{Code::not_found, "read " + path, "there is none", ""};
    return at->second;
  }
  Result<std::vector<std::string>> list(const std::string& path) const override {
    std::vector<std::string> out;
    for (const auto& [file, text] : files) {
      if (file.rfind(path + "/", 0) != 0) continue;
      std::string rest = file.substr(path.size() + 1), name = rest.substr(0, rest.find('/'));
      if (out.empty() || out.back() != name) out.push_back(name);
    }
    if (out.empty()) return Error{Code::not_found, "list " + path, "there is none", ""};
    return out;
  }
  Result<void> write(const std::string&, std::string_view) const override { return {}; }
  Result<void> write_within(const std::string&, std::string_view,
                            std::chrono::milliseconds) const override {
    return {};
  }
  Result<void> make_directory(const std::string&, mode_t) const override { return {}; }
  Result<void> remove_directory(const std::string&) const override { return {}; }
  bool exists(const std::string& path) const override { return files.count(path) != 0; }

  static std::string folder(unsigned cpu) {
    return "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
  }
  std::map<std::string, std::string> files;
};

class MachineFilesTest : public ::testing::Test {
 protected:
  MachineFilesTest() {
    char name[] = "/tmp/machine.XXXXXX";
    folder = ::mkdtemp(name);
  }
  ~MachineFilesTest() override { (void)remove_tree(folder); }
  std::string text(const std::string& name) const {
    return Files::system().read(folder + "/" + name).value_or("none");
  }
  FakeNode node;
  std::string folder;
};

constexpr std::uint64_t gib = 1ULL << 30U;

TEST_F(MachineFilesTest, NameTheEnclavesProcessorsAndNoNeighboursOutsideOfIt) {
  MachineFiles machine(folder, node);
  ASSERT_TRUE(machine.write({1, 2, 3}, {{0, gib}}));
  EXPECT_EQ(text("cpu/online"), "1-3\n");
  EXPECT_EQ(text("cpu/cpu0/topology/core_id"), "none");
  EXPECT_EQ(text("cpu/cpu1/topology/thread_siblings_list"), "1,3\n");
  EXPECT_EQ(text("cpu/cpu2/topology/thread_siblings_list"), "2\n") << "0 is Linux's";
  EXPECT_EQ(text("cpu/cpu2/topology/thread_siblings"), "00000004\n");
  EXPECT_EQ(text("cpu/cpu1/topology/core_siblings"), "0000000e\n");
  EXPECT_EQ(text("cpu/cpu1/cache/index0/shared_cpu_map"), "0000000a\n");
  EXPECT_EQ(text("cpu/cpu1/cache/index0/size"), "32K\n");
  EXPECT_EQ(text("node/node0/cpulist"), "1-3\n");
  EXPECT_EQ(text("node/node0/cpumap"), "0000000e\n");
  EXPECT_EQ(text("cpuinfo").find("processor\t: 0"), std::string::npos);
  EXPECT_NE(text("cpuinfo").find("processor\t: 3\nmodel name\t: fake\n"), std::string::npos);
  EXPECT_EQ(text("meminfo").find("MemTotal:        1048576 kB\n"), 0U) << text("meminfo");
}

TEST_F(MachineFilesTest, AProcessorThatLinuxHasForgottenStaysKnown) {
  MachineFiles machine(folder, node);
  ASSERT_TRUE(machine.write({1}, {{0, gib}}));
  node.take(1);
  ASSERT_TRUE(machine.write({1, 3}, {{0, gib}, {1, gib}}));
  EXPECT_EQ(text("cpu/cpu1/topology/thread_siblings_list"), "1,3\n");
  EXPECT_NE(text("cpuinfo").find("processor\t: 1"), std::string::npos);
  EXPECT_EQ(text("node/has_cpu"), "0\n");
  EXPECT_EQ(text("node/has_memory"), "0-1\n");
  ASSERT_TRUE(machine.write({3}, {{0, gib}}));
  EXPECT_EQ(text("cpu/cpu1/topology/core_id"), "none") << "it has gone back";
  EXPECT_EQ(text("cpu/cpu3/topology/thread_siblings_list"), "3\n");
  EXPECT_EQ(text("node/node1/cpulist"), "none");
}

TEST_F(MachineFilesTest, AreMountedWhereTheSandboxHasProcAndSys) {
  MachineFiles machine(folder, node);
  ASSERT_TRUE(machine.write({1}, {{0, gib}}));
  Bundle bundle;
  EXPECT_TRUE(machine.mounts(bundle).empty());
  bundle.oci.mounts.push_back({"/proc", "proc", "proc", {}});
  ASSERT_EQ(machine.mounts(bundle).size(), 2U);
  EXPECT_EQ(machine.mounts(bundle)[0].destination, "/proc/cpuinfo");
  bundle.hobbes.host_root = true;
  EXPECT_GT(machine.mounts(bundle).size(), 2U);
}

}  // namespace
}  // namespace hobbes
