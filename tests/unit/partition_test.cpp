#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "enclave/drivers/linux/security_label.h"
#include "partition/batch_step.h"
#include "partition/cgroup.h"
#include "partition/device_filter.h"
#include "partition/unmovable_page.h"

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
  EXPECT_EQ(hybrid.v1.at("unified"), "/sys/fs/cgroup/unified") << "its tree is joined, too";
  EXPECT_EQ(CgroupLayout::parse("").mode(), std::string("none"));
}

// As a kernel 6.1 wrote them: two blocks' pages, and one dump cut off.
TEST(UnmovablePage, TheKernelsLogNamesTheLastPageOfTheBlock) {
  const std::string log =
      "migrating pfn 12a801 failed ret:1 \n"
      "page:000000001c4c8d5f refcount:3 mapcount:1 mapping:000000009f1f3a3c index:0x7f10a3e01 "
      "pfn:0x12a801\n"
      "memcg:ffff8881000e2000\n"
      "anon flags: 0x100000000080014(uptodate|lru|swapbacked|node=0|zone=3)\n"
      "page dumped because: migration failure\n"
      "page:00000000aaaaaaaa refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 "
      "pfn:0x148000\n"
      "page dumped because: unmovable page\n"
      "page:00000000bbbbbbbb refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 "
      "pfn:0x12a900\n";
  const std::uint64_t block = 0x128000000, size = 128 << 20;
  auto held = unmovable_page(log, block, size);
  ASSERT_TRUE(held);
  EXPECT_EQ(held->address, 0x12a801000U);
  EXPECT_EQ(held->reason, "migration failure");
  EXPECT_EQ(unmovable_page(log, 0x148000000, size)->reason, "unmovable page");
  EXPECT_FALSE(unmovable_page(log, 0x150000000, size));
  EXPECT_FALSE(
      unmovable_page("page: pfn:0xfffffffffffffffffffff\npage dumped because: noise", 0, ~0ULL));
  EXPECT_EQ(describe(*held, {}),
            "page 0x12a801000 (migration failure), which no process is seen to map: perhaps the "
            "kernel or a device has it");
  EXPECT_EQ(describe(*held, {{7, "a"}, {9, "b"}}),
            "page 0x12a801000 (migration failure), which processes 7 (a), 9 (b) map");
}

TEST(Files, AWriteThatNeverEndsIsGivenUpInTime) {
  std::string path = "/tmp/hobbes-fifo-" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  Fd reader(::open(path.c_str(), O_RDWR | O_CLOEXEC));  // never reads: the pipe fills
  auto first =
      Files::system().write_within(path, std::string(1 << 20, 'x'), std::chrono::milliseconds(100));
  auto second = Files::system().write_within(path, "x", std::chrono::milliseconds(100));
  ::unlink(path.c_str());
  EXPECT_FALSE(first) << "the pipe took a part of it";
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::timeout) << second.error().text();
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
    if (!fail_write_at.empty() && path.find(fail_write_at) != std::string::npos)
      return os_error("write " + path, EINVAL);
    files[path] = text;
    return {};
  }
  Result<void> write_within(const std::string& path, std::string_view text,
                            std::chrono::milliseconds) const override {
    return write(path, text);
  }
  Result<void> make_directory(const std::string& path, mode_t) const override {
    if (!fail_mkdir_at.empty() && path.find(fail_mkdir_at) != std::string::npos)
      return os_error("mkdir " + path, ENOSPC);
    if (folders[path]) return os_error("mkdir " + path, EEXIST);
    folders[path] = true;
    files[path + "/cgroup.procs"] = "";
    if (path.find("cpuset") != std::string::npos)
      files[path + "/cpuset.cpus"] = files[path + "/cpuset.mems"] = "";
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
  bool exists(const std::string& path) const override {
    return files.count(path) != 0 || folders.count(path) != 0;
  }
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

// As the groups of Slurm's cgroup/v1 plugins are: no tasks for cpuset, and nothing for pids.
TEST(Cgroup, OneInABatchStepIsBelowTheStepWhereThatIsAndWithTheOthersElsewhere) {
  FakeFiles files;
  CgroupLayout layout = two_controllers();
  layout.v1["pids"] = "/cg/pids";
  files.files["/cg/cpuset/cpuset.cpus"] = "0-3";
  files.files["/cg/cpuset/cpuset.mems"] = "0";
  const std::string step = "/slurm/uid_7/job_3/step_0", task = step + "/task_1";
  for (const std::string& there : {"/cg/cpuset" + step, "/cg/memory" + step, "/cg/memory" + task}) {
    files.files[there + "/cgroup.procs"] = "";
    for (std::size_t at = there.find("/slurm"); at != std::string::npos;) {
      at = there.find('/', at + 1);
      files.folders[there.substr(0, at)] = true;
      files.files[there.substr(0, at) + "/cpuset.cpus"] = "2";
      files.files[there.substr(0, at) + "/cpuset.mems"] = "0";
    }
  }
  Cgroup cgroup(layout, task + "/user-x", files);
  ASSERT_TRUE(cgroup.create());
  EXPECT_EQ(cgroup.directory("cpuset"), "/cg/cpuset" + step + "/user-x");
  EXPECT_EQ(cgroup.directory("memory"), "/cg/memory" + task + "/user-x");
  EXPECT_EQ(cgroup.directory("pids"), "/cg/pids/hobbes/user-x");
  EXPECT_EQ(files.files["/cg/cpuset" + step + "/user-x/cpuset.cpus"], "2");
  EXPECT_FALSE(files.exists("/cg/pids/slurm")) << "groups of Slurm's are not made for it";
  EXPECT_FALSE(files.exists("/cg/cpuset" + task));
  auto inside = cgroup.make_subgroup("part");
  ASSERT_TRUE(inside);
  EXPECT_EQ(inside->directory("memory"), "/cg/memory" + task + "/user-x/part");
  EXPECT_EQ(inside->directory("pids"), "/cg/pids/hobbes/user-x/part");
}

TEST(BatchStep, IsFoundInTheGroupsOfAProcessAtItsDeepest) {
  EXPECT_EQ(batch_step_of("5:memory:/slurm/uid_7/job_3/step_0/task_1\n"
                          "4:cpuset:/slurm/uid_7/job_3/step_0\n3:pids:/\n0::/\n"),
            "/slurm/uid_7/job_3/step_0/task_1");
  EXPECT_EQ(batch_step_of("0::/system.slice/slurmstepd.scope/job_3/step_batch/user/task_0\n"),
            "/system.slice/slurmstepd.scope/job_3/step_batch/user");
  EXPECT_EQ(batch_step_of("4:freezer:/slurm_box/uid_7/job_3/step_extern\n"),
            "/slurm_box/uid_7/job_3/step_extern");
  EXPECT_EQ(batch_step_of("0::/system.slice/box_slurmstepd.scope/job_3/step_0/user/task_0/x\n"),
            "/system.slice/box_slurmstepd.scope/job_3/step_0/user");
}

TEST(BatchStep, IsNoneWhereAUserCouldHaveMadeThePath) {
  for (const char* path :
       {"/", "/hobbes/x", "/user.slice/user-7.slice/slurm/uid_7/job_3/step_0",
        "/user.slice/slurmstepd.scope/job_3/step_0/user", "/slurm/uid_7/job_3", "/slurm/step_0",
        "/system.slice/slurmstepd.scope/job_3/step_0", "slurm/uid_7/job_3/step_0", ""})
    EXPECT_EQ(batch_step_in(path), "") << path;
  EXPECT_EQ(batch_step_of("nonsense"), "");
  EXPECT_EQ(without_task("/slurm/uid_7/job_3/step_0/task_1"), "/slurm/uid_7/job_3/step_0");
  EXPECT_EQ(without_task("/slurm/uid_7/job_3/step_0"), "/slurm/uid_7/job_3/step_0");
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

TEST(Cgroup, AWeightMayBeOfOneDevice) {
  oci::Resources resources;
  resources.block_weights = {{7, 3, 500}};
  FakeFiles files;
  CgroupLayout layout;
  layout.v1 = {{"blkio", "/cg/blkio"}};
  ASSERT_TRUE(Cgroup(layout, "/x", files).apply(resources));
  EXPECT_EQ(files.files["/cg/blkio/x/blkio.weight_device"], "7:3 500");
  files.files["/cg/blkio/x/blkio.bfq.weight"] = "";
  ASSERT_TRUE(Cgroup(layout, "/x", files).apply(resources));
  EXPECT_EQ(files.files["/cg/blkio/x/blkio.bfq.weight_device"], "7:3 500");
  layout = {};
  layout.v2 = "/cg";
  ASSERT_TRUE(Cgroup(layout, "/x", files).apply(resources));
  EXPECT_EQ(files.files["/cg/x/io.weight"], "7:3 4950") << "10 .. 1000 are 1 .. 10000 there";
  files.files["/cg/x/io.bfq.weight"] = "";
  ASSERT_TRUE(Cgroup(layout, "/x", files).apply(resources));
  EXPECT_EQ(files.files["/cg/x/io.bfq.weight"], "7:3 500");
}

TEST(SecurityLabel, IsRefusedWhereNoModuleWouldEnforceIt) {
  FakeFiles files;
  oci::Process process;
  process.apparmor_profile = "unconfined";
  EXPECT_TRUE(check_security_labels(process, "", files)) << "asks for nothing";
  process.apparmor_profile = "some";
  EXPECT_NE(
      check_security_labels(process, "", files).error().text().find("process.apparmorProfile"),
      std::string::npos);
  files.files["/sys/module/apparmor/parameters/enabled"] = "N\n";
  EXPECT_FALSE(check_security_labels(process, "", files));
  files.files["/sys/module/apparmor/parameters/enabled"] = "Y\n";
  EXPECT_TRUE(check_security_labels(process, "", files));
  EXPECT_NE(check_security_labels(process, "a:b:c", files).error().text().find("linux.mountLabel"),
            std::string::npos);
  process.selinux_label = "a:b:c";
  EXPECT_NE(check_security_labels(process, "", files).error().text().find("process.selinuxLabel"),
            std::string::npos);
  files.files["/sys/fs/selinux/enforce"] = "0";
  EXPECT_TRUE(check_security_labels(process, "a:b:c", files));
}

// Runs a program on a device request the way the kernel would: enough of the instruction set for
// what device_program emits.
bool allows(const std::vector<bpf_insn>& program, std::uint32_t type, std::uint32_t access,
            std::uint32_t major, std::uint32_t minor) {
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
        pc +=
            r[i.dst_reg] != static_cast<std::uint64_t>(i.imm) ? static_cast<std::size_t>(i.off) : 0;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        pc +=
            r[i.dst_reg] == static_cast<std::uint64_t>(i.imm) ? static_cast<std::size_t>(i.off) : 0;
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
  std::vector<oci::DeviceRule> rules = {{false, 'a', {}, {}, "rwm"},
                                        {true, 'c', 1, 3, "rw"},
                                        {true, 'b', 8, {}, "r"},
                                        {false, 'c', 1, 3, "w"}};
  auto program = device_program(rules);
  EXPECT_TRUE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 3));
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_WRITE, 1, 3))
      << "taken back by the last rule";
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_MKNOD, 1, 3));
  EXPECT_TRUE(allows(program, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ, 8, 77));
  EXPECT_FALSE(
      allows(program, BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE, 8, 77));
  EXPECT_FALSE(allows(program, BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 5));
  EXPECT_FALSE(allows(device_program({}), BPF_DEVCG_DEV_CHAR, BPF_DEVCG_ACC_READ, 1, 3));
}

}  // namespace
}  // namespace hobbes
