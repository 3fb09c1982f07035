// The test bed itself, from outside: what runs in the virtual node is told faithfully, and every
// way it can end is told apart.
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "node_harness.h"

namespace hobbes::test {
namespace {

const std::string vnode = HOBBES_SOURCE_DIR "/tests/node/vnode";

class VirtualNode : public ::testing::Test {
 protected:
  // The first question tries KVM and may have a line to say; later ones remember its answer.
  void SetUp() override { accelerator_ = node.good({vnode, "accel"}); }
  [[nodiscard]] bool emulated() const { return accelerator_ == "tcg\n"; }
  static int code(const Outcome& outcome) { return exit_code_of(outcome.wait_status); }
  Outcome in_guest(const std::string& script, std::vector<std::string> options = {}) {
    std::vector<std::string> argv = {vnode, "run"};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.insert(argv.end(), {"--", "sh", "-c", script});
    return node.run(argv, 150);
  }
  Node node;

 private:
  std::string accelerator_;
};

TEST_F(VirtualNode, OutputAndExitStatusAreTheCommands) {
  Outcome outcome = in_guest("printf 'a\\nb'; printf 'error text' >&2; pwd; exit 42");
  EXPECT_EQ(code(outcome), 42);
  EXPECT_EQ(outcome.out.substr(0, 3), "a\nb");
  EXPECT_EQ(outcome.err, "error text");
}

TEST_F(VirtualNode, ItHasTheShapeThatIsAskedFor) {
  Outcome outcome = in_guest(
      "nproc; ls -d /sys/devices/system/node/node[0-9]* | wc -l; cat "
      "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list; "
      "grep -l offline /sys/devices/system/memory/memory*/state | wc -l; stat -f -c %T "
      "/sys/fs/cgroup",
      {"--cpus", "3", "--numa", "3", "--threads", "2", "--memory", "1536M", "--dimm", "2:256M",
       "--cgroups", "v2"});
  EXPECT_EQ(code(outcome), 0) << outcome.err;
  EXPECT_EQ(outcome.out, "6\n3\n0-1\n2\ncgroup2fs\n");
}

TEST_F(VirtualNode, ThisMachinesFilesCannotBeChangedFromInside) {
  Outcome outcome = in_guest("touch " HOBBES_SOURCE_DIR "/written-by-guest && echo wrote");
  EXPECT_EQ(outcome.out, "wrote\n") << "inside there is a writable layer";
  EXPECT_NE(::access(HOBBES_SOURCE_DIR "/written-by-guest", F_OK), 0) << "it reached this machine";
}

TEST_F(VirtualNode, APanicIsToldAsOne) {
  Outcome outcome = in_guest("echo c >/proc/sysrq-trigger; sleep 60");
  EXPECT_EQ(code(outcome), 120);
  EXPECT_NE(outcome.err.find("kernel panicked"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("sysrq triggered crash"), std::string::npos) << "the console is shown";
}

TEST_F(VirtualNode, WhosePanicItWasIsToldByTheConsole) {
  const auto may_be_ours = [&](const std::string& console) {
    const std::string ask =
        "import sys; from importlib.machinery import SourceFileLoader as L; "
        "print(L('vnode', sys.argv[1]).load_module().panic_may_be_ours(sys.argv[2].encode()))";
    Outcome outcome =
        node.run({"/usr/bin/python3", "-B", "-W", "ignore", "-c", ask, vnode, console}, 30);
    EXPECT_EQ(code(outcome), 0) << outcome.err;
    return outcome.out == "True\n";
  };
  const std::string with = "Modules linked in: hobbes(O) kvm\n",
                    without = "Modules linked in: kvm ccp\n", panic = "Kernel panic - not syncing";
  EXPECT_TRUE(may_be_ours(with + panic));
  EXPECT_TRUE(may_be_ours(panic + ": sysrq triggered crash"));
  EXPECT_TRUE(may_be_ours(without + with + panic)) << "the last list is the panic's";
  EXPECT_FALSE(may_be_ours(without + panic));
  EXPECT_TRUE(may_be_ours(without + std::string(20000, ' ') + panic)) << "that was long before";
  EXPECT_FALSE(may_be_ours("BUG: TASK stack guard page was hit at 1\n" + with + panic));
  EXPECT_TRUE(may_be_ours("BUG: TASK stack guard page was hit at 1\n" + with +
                          " take_extent+0x1/0x2 [hobbes]\n" + panic));
  EXPECT_FALSE(may_be_ours(panic + ": corrupted stack end detected inside scheduler"));
}

TEST_F(VirtualNode, ATripleFaultIsToldAsOne) {
  Outcome outcome = in_guest("echo b >/proc/sysrq-trigger; sleep 60", {"--append", "reboot=t"});
  EXPECT_EQ(code(outcome), 121) << outcome.err;
}

TEST_F(VirtualNode, AHangIsToldFromASlowCommand) {
  EXPECT_EQ(code(in_guest("kill -STOP -1; while :; do :; done", {"--silence", "8"})), 122);
  EXPECT_EQ(code(in_guest("sleep 100", {"--silence", "30", "--timeout", "15"})), 124);
}

TEST_F(VirtualNode, AfterAHangTheNodeIsBootedAnewForTheNextCommand) {
  ::setenv("VNODE_DIR", node.folder().c_str(), 1);
  EXPECT_EQ(code(node.run({vnode, "up", "t"}, 60)), 0);
  const std::string hang = "kill -STOP -1; while :; do :; done", silence = "12";
  Outcome hung =
      node.run({vnode, "exec", "--again", "--silence", silence, "t", "--", "sh", "-c", hang}, 150);
  EXPECT_EQ(code(hung), 122) << hung.err;
  EXPECT_EQ(hung.err.find("run once more") != std::string::npos, emulated()) << hung.err;
  Outcome next = node.run({vnode, "exec", "t", "--", "echo", "here again"}, 60);
  EXPECT_EQ(next.out, "here again\n") << next.err;
  EXPECT_EQ(code(node.run({vnode, "down", "t"}, 30)), 0);
  ::unsetenv("VNODE_DIR");
}

TEST_F(VirtualNode, TranslatingTheCodeOfASilentGuestAnewDoesNotDisturbIt) {
  Outcome outcome = in_guest(
      "beat=$(pgrep -P 1 | head -1); kill -STOP $beat; end=$(($(date +%s) + 14)); while [ $(date "
      "+%s) -lt $end ]; do "
      "seq 100000 | md5sum; done | sort -u; kill -CONT $beat; echo goes on");
  EXPECT_EQ(code(outcome), 0);
  EXPECT_EQ(outcome.out.find("goes on"), outcome.out.find('\n') + 1)
      << "one and the same sum: " << outcome.out;
  EXPECT_NE(outcome.err.find("translated anew"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("CPU 3 at 0x"), std::string::npos)
      << "every CPU was looked at: " << outcome.err;
}

TEST_F(VirtualNode, ATerminatedCommandTakesTheNodeAlong) {
  std::string shared = "VNODE_DIR=" + node.folder() + " TMPDIR=" + node.folder() + " ",
              of_mine = "; pgrep -fc '[q]emu.*" + node.folder() + "'";
  auto left = [&](const std::string& script) {
    return node.run({"sh", "-c", shared + script + of_mine}, 150).out;
  };
  EXPECT_EQ(left("timeout 8 " + vnode + " run -- sleep 1000 2>/dev/null"), "0\n");
  EXPECT_EQ(left("timeout 2 " + vnode + " up t 2>/dev/null"), "0\n") << "while it boots";
  EXPECT_EQ(
      left(vnode + " run -- sleep 1000 2>/dev/null & sleep 6; kill $!; sleep 0.2; kill $!; wait"),
      "0\n")
      << "told twice";
  EXPECT_EQ(left(vnode + " up t"), "1\n");
  EXPECT_EQ(left("timeout 3 " + vnode + " exec t -- sleep 1000 2>/dev/null; sleep 0.5"), "0\n");
}

TEST_F(VirtualNode, AGuestThatHangsWhileBootingGetsOneMoreChance) {
  Outcome outcome = in_guest("true", {"--silence", "1"});  // no guest boots that fast
  EXPECT_EQ(code(outcome), 122);
  EXPECT_NE(outcome.err.find("while booting; booting it again"), std::string::npos) << outcome.err;
}

TEST_F(VirtualNode, AComplaintOfTheKernelIsAFailureWhateverTheCommandSays) {
  // What the console shows decides; a stock kernel has no way to be provoked that is not worse than
  // a line of text.
  Outcome outcome = in_guest("echo '<4>WARNING: CPU: 0 PID: 1 at the test' >/dev/kmsg; exit 0");
  EXPECT_EQ(code(outcome), 123) << outcome.err;
  EXPECT_NE(outcome.err.find("at the test"), std::string::npos) << outcome.err;
}

TEST_F(VirtualNode, AFailureInAVirtualMachineThatStallsIsAHang) {
  const std::string stall =
      "echo '[   22.732269] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:'; exit ";
  Outcome outcome = in_guest(stall + "1");
  EXPECT_EQ(code(outcome), 122) << outcome.err;
  EXPECT_NE(outcome.err.find("a virtual machine on the node hung"), std::string::npos)
      << outcome.err;
}

TEST_F(VirtualNode, ACommandThatIsNotThereIsToldAsShellsDo) {
  EXPECT_EQ(code(in_guest("/no/such/program")), 127);
}

// On some machines /dev/kvm claims every capability and runs nothing.
TEST_F(VirtualNode, TheAcceleratorIsTheOneAskedForAndWithoutAWishOneThatBootsANode) {
  EXPECT_EQ(node.good({vnode, "accel", "--accel", "tcg"}), "tcg\n");
  EXPECT_EQ(node.good({"env", "VNODE_ACCEL=kvm", vnode, "accel"}), "kvm\n");
  EXPECT_NE(code(node.run({"env", "VNODE_ACCEL=fast", vnode, "accel"})), 0);
  EXPECT_TRUE(emulated() || node.good({vnode, "accel"}) == "kvm\n");
  if (!emulated()) return;
  // On one such machine QEMU ends at once, on another the guest never gives a sign of life.
  Outcome forced = in_guest("true", {"--accel", "kvm", "--silence", "10"});
  EXPECT_TRUE(code(forced) >= 120 && code(forced) <= 125)
      << "a node that was asked for is not replaced by another kind: " << forced.err;
}

// Two hardware threads of one core never serve two kernels.
TEST_F(VirtualNode, ACoKernelGetsWholeCoresWhereCoresHaveThreads) {
  Outcome outcome =
      in_guest("set -e; insmod " HOBBES_BUILD_DIR "/kmod/hobbes.ko; PATH=" HOBBES_BUILD_DIR
               "/bin:$PATH; cp -r " HOBBES_BUILD_DIR
               "/share/hobbes/kitten /root/one; sed 's/\"count\": 1/\"list\": \"3\"/' "
               "/root/one/config.json >/root/c; cp -r /root/one "
               "/root/half; cp /root/c "
               "/root/half/config.json; hobbes-run create --bundle /root/half h >/dev/null; if "
               "hobbes-run start h 2>&1; then exit 9; fi; hobbes-run "
               "delete --force h; "
               "hobbes-run create --bundle /root/one w >/dev/null; hobbes-run start w; cat "
               "/sys/devices/system/cpu/online; hobbes-run "
               "delete --force w; cat "
               "/sys/devices/system/cpu/online",
               {"--cpus", "2", "--threads", "2", "--numa", "1"});
  EXPECT_EQ(code(outcome), 0) << outcome.err;
  EXPECT_NE(outcome.out.find("other hardware thread"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("0-1\n0-3\n"), std::string::npos) << outcome.out;
}

// Memory that cannot be taken away from a running Linux can be kept from it when it boots.
TEST_F(VirtualNode, ACoKernelRunsInMemoryThatWasReservedAtBootWhereNoBlockCanGo) {
  const std::string one = "cp -r " HOBBES_BUILD_DIR
                          "/share/hobbes/kitten /root/one; PATH=" HOBBES_BUILD_DIR "/bin:$PATH; ";
  const std::string load = "insmod " HOBBES_BUILD_DIR "/kmod/hobbes.ko";
  const std::vector<std::string> node_of_blocks_that_stay = {
      "--no-dimm", "--numa", "1", "--cpus", "2", "--append", "memmap=256M$0x30000000"};
  Outcome outcome = in_guest(one +
                                 "for wrong in 16M@0x10000000 256M@0x2ff00000 257M@0x30000000 "
                                 "1M@0x30000000 nonsense 2M@0xfee00000; do " +
                                 load + " reserved=$wrong 2>/dev/null && exit 9; done; " + load +
                                 "; hobbes-run create --bundle /root/one k 2>&1 && hobbes-run "
                                 "start k 2>&1 && exit 8; hobbes-run delete --force k; "
                                 "rmmod hobbes; set -e; " +
                                 load +
                                 " reserved=128M@0x30000000,128M@0x38000000; for round in 1 2; do "
                                 "hobbes-run create --bundle /root/one k >/dev/null; "
                                 "hobbes-run start k; hobbes-run state k | grep -o running; grep "
                                 "-c 'free 134217728 reserved' /dev/hobbes; "
                                 "grep -l offline /sys/devices/system/memory/memory*/state | wc "
                                 "-l; hobbes-run delete --force k; "
                                 "grep -c 'free 134217728 reserved' /dev/hobbes; done; rmmod "
                                 "hobbes; if grep hobbes /proc/iomem; then exit 7; fi",
                             node_of_blocks_that_stay);
  EXPECT_EQ(code(outcome), 0) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("Linux can give up 0 B"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("running\n1\n0\n2\nrunning\n1\n0\n2\n"), std::string::npos)
      << outcome.out;
}

// Linux would try for ever to move such a page.
TEST_F(VirtualNode, ARefusalNamesThePageAndTheProcessThatKeepMemory) {
  Outcome outcome =
      in_guest("cp -r " HOBBES_BUILD_DIR "/share/hobbes/kitten /root/one; PATH=" HOBBES_BUILD_DIR
               "/bin:$PATH; insmod " HOBBES_BUILD_DIR
               "/kmod/hobbes.ko; cd /sys/devices/system/memory; for block in $(grep -l offline "
               "memory*/state); do echo online_movable "
               ">$block; done; "
               "/usr/bin/python3 " HOBBES_SOURCE_DIR
               "/tests/node/holdfast.py 250 >/root/held & holder=$!; until [ -s /root/held ]; do "
               "sleep 0.2; done; "
               "hobbes-run create --bundle /root/one k 2>&1; echo \"status $?, holder $holder\"; "
               "hobbes-run delete --force k; "
               "grep -L online memory*/state | wc -l; kill $holder; wait $holder; "
               "hobbes-run create --bundle /root/one k >/dev/null && hobbes-run start k && "
               "hobbes-run state k | grep -o running; "
               "hobbes-run delete --force k",
               {"--numa", "1", "--cpus", "2", "--dimm", "0:256M"});
  std::smatch refusal;
  ASSERT_TRUE(std::regex_search(outcome.out, refusal,
                                std::regex("could not be emptied within 6 s, because of page "
                                           "0x[0-9a-f]+ \\(migration failure\\), which process "
                                           "([0-9]+) \\(python3[^)]*\\) maps")))
      << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("status 1, holder " + refusal[1].str() + "\n0\nrunning\n"),
            std::string::npos)
      << outcome.out << outcome.err;
}

// The same image as the co-kernel's, without any Linux.
TEST_F(VirtualNode, TheThreeKindsLiveTogether) {
  Outcome outcome = node.run(
      {vnode, "run", "--again", "--", HOBBES_BUILD_DIR "/share/hobbes/trio/demo", HOBBES_BUILD_DIR},
      700);
  EXPECT_EQ(code(outcome), 0) << outcome.out << outcome.err;
  // Both counted, and the last number is of both.
  EXPECT_NE(outcome.out.find("[partition] sees"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("guest (palacios)"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("kitten (kitten)"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("[guest] counted"), std::string::npos) << outcome.out;
}

TEST_F(VirtualNode, KittenBootsAloneByPvh) {
  Outcome outcome = node.run({"/usr/bin/qemu-system-x86_64",
                              "-machine",
                              "q35",
                              "-accel",
                              "tcg",
                              "-cpu",
                              "max",
                              "-m",
                              "256M",
                              "-kernel",
                              HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img",
                              "-append",
                              "exit now",
                              "-nodefaults",
                              "-display",
                              "none",
                              "-serial",
                              "stdio",
                              "-no-reboot",
                              "-device",
                              "isa-debug-exit,iobase=0xf4"},
                             60);
  EXPECT_EQ(code(outcome), 1) << "written 0 to the exit port: " << outcome.out;
  EXPECT_NE(outcome.out.find("kitten: enclave 'alone', 1 cores, 238 MiB"), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("command line: exit now"), std::string::npos);
  EXPECT_NE(outcome.out.find("nothing to do"), std::string::npos);
}

}  // namespace
}  // namespace hobbes::test
