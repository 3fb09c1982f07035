#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <cerrno>
#include <map>

#include "partition/cgroup.h"
#include "partition/device_filter.h"

namespace hobbes {
namespace {

TEST(CgroupLayout, HybridAndV1AndV2AreToldApart) {
  auto hybrid = CgroupLayout::parse(
      "30 23 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
      "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  EXPECT_STREQ(hybrid.mode(), "v1");
  EXPECT_EQ(hybrid.v1.at("cpu"), "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(hybrid.v1.at("cpuacct"), "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(CgroupLayout::parse("").mode(), std::string("none"));
}

// A file system in memory that fails where it is told to.
class FakeFiles final : public Files {
 public:
  mutable std::map<std::string, std::string> files;
  mutable std::map<std::string, bool> folders;
  std::string fail_write_at, fail_mkdir_at;

  Result<std::string> read(const std::string& path, std::size_t) const override {
    auto at = files.find(path);
    if (at == files.end()) return os_error("read " + path, ENOENT);
    return at->second;
  }
  Result<void> write(const std::string& path, std::string_view text) const override {
    if (!fail_write_at.empty() && path.find(fail_write_at) != std::string::npos) return os_error("write " + path, EINVAL);
    files[path] = text;
    return {};
  }
  Result<void> make_directory(const std::string& path, mode_t) const override {
    if (!fail_mkdir_at.empty() && path.find(fail_mkdir_at) != std::string::npos) return os_error("mkdir " + path, ENOSPC);
    if (folders[path]) return os_error("mkdir " + path, EEXIST);
    folders[path] = true;
    files[path + "/cgroup.procs"] = "";
    if (path.find("cpuset") != std::string::npos) files[path + "/cpuset.cpus"] = files[path + "/cpuset.mems"] = "";
    return {};
  }
  Result<void> remove_directory(const std::string& path) const override {
    folders.erase(path);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& path) const override {
    return std::vector<std::string>();
    (void)path;
  }
  bool exists(const std::string& path) const override { return files.count(path) != 0 || folders.count(path) != 0; }
};

CgroupLayout two_controllers() {
  CgroupLayout layout;
  layout.v1 = {{"cpuset", "/cg/cpuset"}, {"memory", "/cg/memory"}};
  return layout;
}

TEST(Cgroup, ANewCpusetInheritsWhatItMayUse) {
  FakeFiles files;
  files.files["/cg/cpuset/cpuset.cpus"] = "0-3\n";
  files.files["/cg/cpuset/cpuset.mems"] = "0\n";
  Cgroup cgroup(two_controllers(), "/hobbes/x", files);
  ASSERT_TRUE(cgroup.create());
  EXPECT_EQ(files.files["/cg/cpuset/hobbes/x/cpuset.cpus"], "0-3");
  EXPECT_EQ(files.files["/cg/cpuset/hobbes/cpuset.mems"], "0");
}

TEST(Cgroup, AFailureHalfWayLeavesNothing) {
  FakeFiles files;
  files.files["/cg/cpuset/cpuset.cpus"] = files.files["/cg/cpuset/cpuset.mems"] = "0";
  files.fail_mkdir_at = "/cg/memory/hobbes/x";
  Cgroup cgroup(two_controllers(), "/hobbes/x", files);
  EXPECT_FALSE(cgroup.create());
  EXPECT_EQ(files.folders.count("/cg/cpuset/hobbes/x"), 0U);
}

TEST(Cgroup, ALimitTheNodeCannotSetIsRefusedByName) {
  FakeFiles files;
  Cgroup cgroup(two_controllers(), "/x", files);
  oci::Resources resources;
  resources.pids_limit = 5;
  auto refused = cgroup.apply(resources);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("pids"), std::string::npos);
  resources = {};
  resources.cpus = "0-99";
  files.fail_write_at = "cpuset.cpus";
  EXPECT_NE(cgroup.apply(resources).error().text().find("cpuset.cpus"), std::string::npos);
}

// Runs a program on a device request the way the kernel would: enough of the instruction set for what device_program emits.
bool allows(const std::vector<bpf_insn>& program, std::uint32_t type, std::uint32_t access, std::uint32_t major, std::uint32_t minor) {
  std::uint64_t r[11] = {};
  std::uint32_t context[3] = {access << 16U | type, major, minor};
  for (std::size_t pc = 0; pc < program.size(); ++pc) {
    const bpf_insn& i = program[pc];
    switch (i.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
        r[i.dst_reg] = context[i.off / 4];
        break;
      case BPF_ALU64 | BPF_MOV | BPF_K:
        r[i.dst_reg] = static_cast<std::uint64_t>(i.imm);
        break;
      case BPF_ALU64 | BPF_MOV | BPF_X:
        r[i.dst_reg] = r[i.src_reg];
        break;
      case BPF_ALU64 | BPF_AND | BPF_K:
        r[i.dst_reg] &= static_cast<std::uint64_t>(static_cast<std::int64_t>(i.imm));
        break;
      case BPF_ALU64 | BPF_RSH | BPF_K:
        r[i.dst_reg] >>= static_cast<unsigned>(i.imm);
        break;
      case BPF_JMP | BPF_JNE | BPF_K:
        pc += r[i.dst_reg] != static_cast<std::uint64_t>(i.imm) ? static_cast<std::size_t>(i.off) : 0;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        pc += r[i.dst_reg] == static_cast<std::uint64_t>(i.imm) ? static_cast<std::size_t>(i.off) : 0;
        break;
      case BPF_JMP | BPF_EXIT:
        return r[0] != 0;
      default:
        ADD_FAILURE() << "unknown instruction " << int(i.code);
        return false;
    }
  }
  ADD_FAILURE() << "the program does not end";
  return false;
}

TEST(DeviceFilter, LaterRulesOverrideEarlierOnes) {
  std::vector<oci::DeviceRule> rules = {
      {false, 'a', {}, {}, "rwm"}, {true, 'c', 1, 3, "rw"}, {true, 'b', 8, {}, "r"}, {false, 'c', 1, 3, "w"}};
  auto program = device_program(rules);
  EXPECT_TRUE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 3));
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_WRITE, 1, 3)) << "taken back by the last rule";
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_MKNOD, 1, 3));
  EXPECT_TRUE(allows(program, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ, 8, 77));
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE, 8, 77));
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 5));
  EXPECT_FALSE(allows(device_program({}), BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 3));
}

}  // namespace
}  // namespace hobbes
