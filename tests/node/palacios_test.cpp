// Virtual machines on a real KVM, inside the virtual node: its processors have nested
// virtualisation.
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <functional>
#include <thread>

#include "core/file.h"
#include "enclave/drivers/palacios/driver.h"
#include "node_harness.h"
#include "podman.h"
#include "sample.h"

namespace hobbes::test {
namespace {

const std::string guest = HOBBES_BUILD_DIR "/share/hobbes/linux-vm";
const std::string peer = HOBBES_BUILD_DIR "/tests/programs/segment-peer";

std::string file(const std::string& path) {
  return Files::system().read(path, 4 << 20).value_or("");
}

class Palacios : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", F_OK) != 0) node.good({"/sbin/modprobe", "kvm-amd"});
    kvm_.reset(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    machine_.reset(kvm_ ? ::ioctl(kvm_.get(), KVM_CREATE_VM, 0) : -1);
    ASSERT_TRUE(machine_) << "the virtual node has no nested virtualisation";
  }
  void TearDown() override {
    for (const std::string& id :
         Files::system().list(node.run_folder() + "/enclaves").value_or({})) {
      if (HasFailure())
        std::printf("enclave %s: %s\n%s\n", id.c_str(), to_text(node.enclave(id), 2).c_str(),
                    console(id).c_str());
      node.good({"hobbes-run", "delete", "--force", id});
    }
    node.expect_clean();
    EXPECT_EQ(node.run({"pidof", "palacios"}).out, "") << "a monitor is left";
  }
  std::string bundle(const std::string& name, const std::string& script, const Json& patch = {}) {
    Json config = *parse_json(file(guest + "/config.json"), "config");
    config["process"]["args"] = {"sh", "-c", script};
    config["hobbes"]["image"]["kernel"] = guest + "/vmlinux";
    config["hobbes"]["image"]["initrd"] = guest + "/initrd.cpio";
    config["hobbes"]["memory"]["size"] = "192MiB";
    config.merge_patch(patch.is_null() ? Json::object() : patch);
    std::string path = node.folder() + "/" + name;
    EXPECT_TRUE(make_directories(path));
    EXPECT_TRUE(replace_file(path + "/config.json", to_text(config, 2)));
    return path;
  }
  // A guest that stays, for tests that talk to it.
  void boot(const std::string& id, const Json& patch = {},
            const std::string& script = "exec sleep 1000") {
    for (bool last : {false, true}) {
      Outcome made = node.create(id, bundle(id, script, patch));
      ASSERT_EQ(made.wait_status, 0) << made.err;
      Outcome started = node.run({"hobbes-run", "start", id}, 100);
      if (started.wait_status == 0) return;
      ASSERT_TRUE(!last && emulation_hiccup(started.err)) << started.err << console(id);
      node.good({"hobbes-run", "delete", "--force", id});
    }
  }
  // `run`, to its end.
  Outcome run_to_end(const std::string& path) {
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", path, "a"}, 100);
    return emulation_hiccup(outcome.err)
               ? node.run({"hobbes-run", "run", "--bundle", path, "a"}, 100)
               : outcome;
  }
  // A composition, to its end. Under emulation its machines need their time to MPI_Init, and a
  // guest's kernel does without AVX (QEMU 7.2 does not intercept XSETBV), which Open MPI's
  // reductions do not ask it about.
  static constexpr const char* emulated = " --init-timeout 60 -x OMPI_MCA_op=^avx ";
  Outcome compose(const std::string& document, const std::vector<std::string>& options = {}) {
    std::vector<std::string> words = {"remora", "run", "--init-timeout",
                                      "60",     "-x",  "OMPI_MCA_op=^avx"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(document);
    Outcome outcome = node.run(words, 150);
    return emulation_hiccup(outcome.err) ? node.run(words, 150) : outcome;
  }
  // Of some fifty guests booted on emulated nested processors one met a triple fault in its first
  // instructions. No test is about that, and two in a row are one too many.
  static bool emulation_hiccup(const std::string& error) {
    bool met = error.find("start the guest: triple fault") != std::string::npos ||
               error.find("crashed: triple fault") != std::string::npos;
    if (met) std::printf("a guest met a triple fault while it booted; once more\n");
    return met;
  }
  // What a bundle is patched with whose guest is busybox, some drivers and what its first process
  // does.
  Json small_guest(const std::string& drivers, const std::string& script) {
    std::string folder = node.folder() + "/small";
    node.good({"sh", "-c",
               "mkdir -p " + folder + "/bin " + folder + "/dev " + folder + "/proc && cd " +
                   folder +
                   " && cp /bin/busybox bin/ && for t in sh mount setsid poweroff insmod sleep "
                   "head; do ln -sf busybox bin/$t; done && "
                   "release=$(ls -v /boot/vmlinuz-*-amd64 | tail -1) && "
                   "release=${release##*/vmlinuz-} && n=100 && for d in " +
                   drivers +
                   "; do modprobe -S $release --show-depends $d; done | sed -n 's/^insmod \\([^ "
                   "]*\\).*/\\1/p' | awk '!seen[$0]++' | "
                   "while read m; do n=$((n+1)); cp $m $n.ko; done && printf '%s\n' '#!/bin/sh' "
                   "'mount -t devtmpfs dev /dev' "
                   "'mount -t proc proc /proc' 'for m in /*.ko; do insmod $m; done' '" +
                   script +
                   "' >init && chmod +x init && find . | cpio -o -H newc --quiet >../small.cpio"});
    return {{"process", nullptr},
            {"hobbes", {{"image", {{"initrd", folder + ".cpio"}, {"cmdline", "console=ttyS0"}}}}}};
  }
  // What is typed before the shell reads is lost, so it is typed until somebody answers.
  void expect_shell_on_terminal(const std::string& drivers, const std::string& script) {
    Json guest_alone = small_guest(drivers, script);
    guest_alone["hobbes"]["image"]["terminal"] = true;
    std::string command =
        "(for i in $(seq 60); do echo 'echo $((6*7)) && poweroff -f'; sleep 1; done) "
        "| " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " +
        bundle("b", "", guest_alone) + " a";
    Outcome outcome = node.run({"sh", "-c", command}, 100);
    if (emulation_hiccup(outcome.err)) outcome = node.run({"sh", "-c", command}, 100);
    EXPECT_EQ(outcome.wait_status, 0) << outcome.err << outcome.out;
    EXPECT_NE(outcome.out.find("\n42\r\n"), std::string::npos) << outcome.out;
  }
  // A disk with busybox, thinner than it says; and a bundle that has it, without hobbes.kind: the
  // vm object says that.
  std::string make_disk(const std::string& folder) {
    std::string disk = folder + "/disk.img", tree = node.folder() + "/tree";
    node.good({"sh", "-c",
               "mkdir -p " + tree + "/bin " + tree + "/proc && cp /bin/busybox " + tree +
                   "/bin/ && for t in sh sync dd; do ln -s busybox " + tree +
                   "/bin/$t; done && truncate -s 24M " + disk + " && /sbin/mke2fs -q -t ext4 -d " +
                   tree + " " + disk});
    return disk;
  }
  std::string disk_bundle(const std::string& disk, const std::string& script) {
    Json kernel = {{"path", guest + "/vmlinux"},
                   {"initrd", guest + "/initrd.cpio"},
                   {"parameters", {"console=ttyS0", "quiet"}}};
    return bundle("b", script,
                  {{"vm", {{"kernel", kernel}, {"image", {{"path", disk}, {"format", "raw"}}}}},
                   {"hobbes", {{"kind", nullptr}, {"image", nullptr}}}});
  }
  std::string inside(const std::string& id, const std::string& script) {
    Outcome outcome = node.run({"hobbes-run", "exec", id, "sh", "-c", script});
    EXPECT_EQ(outcome.wait_status, 0) << script << "\n"
                                      << outcome.err << "its console:\n"
                                      << console(id);
    return outcome.out;
  }
  void carry_peer(const std::string& id, const std::string& program = peer) {
    node.good({"sh", "-c",
               HOBBES_BUILD_DIR "/bin/hobbes-run exec " + id +
                   " sh -c 'cat >/tmp/peer; chmod +x /tmp/peer' <" + program});
  }
  std::string console(const std::string& id) {
    return file(node.run_folder() + "/enclaves/" + id + "/console.log");
  }
  std::uint64_t statistic(const std::string& id, const std::string& name) {
    auto json = parse_json(node.good({"hobbes-run", "events", "--stats", id}), "stats");
    return json ? static_cast<std::uint64_t>(number_at((*json)["data"], name.c_str())) : 0;
  }
  std::string cause(const std::string& id) {
    return text_at(node.rest("GET", "/v1/enclaves/" + id).second, "cause");
  }
  std::string state(const std::string& id) { return text_at(node.enclave(id), "state"); }
  Node node;
  // The kernel patches itself when its first machine is made and when its last is gone, which
  // emulated processors survive less often than real ones (stale_code.py): one that does nothing is
  // there all the time.
  Fd kvm_, machine_;
};

TEST_F(Palacios, TheProgramRunsAsItsBundleSaysAndItsStatusIsTheEnclaves) {
  std::string path =
      bundle("b",
             "id -u; id -g; pwd; echo $WHAT; ulimit -n; umask; nproc; hostname; echo to stderr "
             ">&2; exit 42",
             {{"hostname", "inside"},
              {"process",
               {{"cwd", "/tmp"},
                {"env", {"PATH=/bin", "WHAT=a b"}},
                {"user", {{"uid", 12}, {"gid", 34}, {"umask", 63}}},
                {"rlimits", {{{"type", "RLIMIT_NOFILE"}, {"soft", 99}, {"hard", 100}}}}}},
              {"hobbes", {{"cores", {{"count", 2}}}}}});
  Outcome outcome = run_to_end(path);
  EXPECT_EQ(outcome.out, "12\n34\n/tmp\na b\n99\n0077\n2\ninside\n") << outcome.err;
  EXPECT_EQ(outcome.err, "to stderr\n");
  EXPECT_EQ(exit_code_of(outcome.wait_status), 42);
}

TEST_F(Palacios, ItHasTheVerbsOfOtherKinds) {
  boot("a", {{"hobbes", {{"cores", {{"list", "0-1"}, {"count", nullptr}}}}}},
       "trap 'echo told; exit 5' TERM; while :; do sleep 1; done");
  EXPECT_EQ(state("a"), "running");
  EXPECT_EQ(inside("a", "echo $((6 * 7))"), "42\n");
  Outcome failing = node.run({"sh", "-c",
                              "echo text | " HOBBES_BUILD_DIR
                              "/bin/hobbes-run exec a sh -c 'cat; echo err >&2; exit 9'"});
  EXPECT_EQ(failing.out, "text\n");
  EXPECT_EQ(failing.err, "err\n");
  EXPECT_EQ(exit_code_of(failing.wait_status), 9);
  EXPECT_EQ(exit_code_of(node.run({"hobbes-run", "exec", "a", "/no/such"}).wait_status), 127);
  // More than every buffer on the way, in both directions at once.
  EXPECT_EQ(
      node.good({"sh", "-c",
                 "head -c 3000000 /dev/urandom >" + node.folder() +
                     "/data; " HOBBES_BUILD_DIR "/bin/hobbes-run exec a cat <" + node.folder() +
                     "/data | cmp - " + node.folder() + "/data && echo same"}),
      "same\n");
  EXPECT_NE(node.good({"script", "-qec", HOBBES_BUILD_DIR "/bin/hobbes-run exec --tty a tty",
                       "/dev/null"})
                .find("/dev/pts/"),
            std::string::npos);

  EXPECT_NE(node.good({"hobbes", "ping", "a"}).find("192 MiB"), std::string::npos);
  EXPECT_GT(statistic("a", "palacios.vcpu0.exits"), 0U);
  node.good({"hobbes-run", "pause", "a"});
  EXPECT_NE(node.good({"hobbes-run", "state", "a"}).find("paused"), std::string::npos);
  EXPECT_EQ(state("a"), "paused");
  std::uint64_t ran = statistic("a", "cpu.usage_us");
  ::usleep(1'500'000);
  EXPECT_LT(statistic("a", "cpu.usage_us") - ran, 300'000U) << "a paused guest runs";
  EXPECT_NE(node.run({"hobbes-run", "exec", "a", "true"}).wait_status, 0);
  node.good({"hobbes-run", "resume", "a"});
  EXPECT_EQ(inside("a", "echo back"), "back\n");

  std::string pid = std::to_string(number_at(node.enclave("a"), "pid"));
  auto bound = [&] {
    return node.good({"sh", "-c",
                      "for t in /proc/" + pid +
                          "/task/*; do grep -q vcpu $t/comm && sed -n 's/Cpus_allowed_list:.//p' "
                          "$t/status; done; true"});
  };
  EXPECT_EQ(bound(), "0\n1\n") << "each vCPU has a core to itself";
  node.good({"hobbes-run", "update", "--cores", "1", "a"});
  EXPECT_EQ(bound(), "0\n0\n") << "both on what is left";
  EXPECT_EQ(inside("a", "nproc"), "2\n");

  // Memory comes and goes, by the guest's own doing; what it booted with stays.
  auto has = [&] {
    return std::strtoull(
               inside("a", "sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo").c_str(),
               nullptr, 10) /
           1024;
  };
  std::uint64_t first = has();
  node.good({"hobbes-run", "update", "--memory-size", "448MiB", "a"});
  EXPECT_EQ(has(), first + 256);
  EXPECT_EQ(inside("a",
                   "mkdir /m; mount -t tmpfs -o size=300m tmpfs /m; dd if=/dev/zero of=/m/big "
                   "bs=1M count=240 2>/dev/null; stat -c %s "
                   "/m/big; umount /m"),
            "251658240\n")
      << "more than it had before";
  EXPECT_NE(node.good({"hobbes", "enclaves"}).find("448 MiB"), std::string::npos);
  EXPECT_NE(node.run({"hobbes-run", "update", "--memory-size", "449MiB", "a"})
                .err.find("in steps of 2 MiB"),
            std::string::npos);
  EXPECT_NE(node.run({"hobbes-run", "update", "--memory-size", "320MiB", "--cores", "2", "a"})
                .err.find("make two updates"),
            std::string::npos);
  node.good({"hobbes-run", "update", "--memory-size", "320MiB", "a"});
  EXPECT_EQ(has(), first + 128);
  node.good({"hobbes-run", "update", "--memory-size", "192MiB", "a"});
  EXPECT_EQ(has(), first);
  EXPECT_NE(node.run({"hobbes-run", "update", "--memory-size", "128MiB", "a"})
                .err.find("keeps the memory it booted with"),
            std::string::npos);
  EXPECT_NE(node.good({"hobbes", "enclaves"}).find("192 MiB"), std::string::npos)
      << "a refused change changes no lease";

  node.good({"hobbes-run", "kill", "a", "TERM"});
  EXPECT_TRUE(eventually([&] { return state("a") == "stopped"; })) << to_text(node.enclave("a"));
  EXPECT_EQ(number_at(node.enclave("a"), "exitStatus"), 5);
  EXPECT_NE(file(node.folder() + "/a/out").find("told"), std::string::npos)
      << "its output goes where its creator's does";
  node.good({"hobbes-run", "delete", "a"});
}

TEST_F(Palacios, ItReadsTheMirrorAndSharesSegmentsWithTheNode) {
  boot("a",
       {{"hobbes",
         {{"segments",
           {{{"name", "counter"}, {"size", "1MiB"}}, {{"name", "offered"}, {"access", "ro"}}}}}}});
  carry_peer("a");
  // The same library inside and outside.
  EXPECT_TRUE(eventually([&] {
    return node.run({"hobbes-run", "exec", "a", "/tmp/peer", "find", "a"}).out ==
           "a kind 3 state 3\n";
  }));
  EXPECT_EQ(node.good({peer, "count", "counter", "1000"}), "1000\n");
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "/tmp/peer", "count", "counter", "10"}),
            "1010\n");
  std::thread other([&] {
    node.good({"hobbes-run", "exec", "a", "/tmp/peer", "count", "counter", "500000"});
  });
  node.good({peer, "count", "counter", "500000"});
  other.join();
  EXPECT_EQ(node.good({peer, "count", "counter", "0"}), "1001010\n")
      << "both sides counted in the same memory";
  // Only what its bundle lists, and as it lists it.
  node.good({"sh", "-c",
             "{ sleep 8 | " + peer + " make offered 4096 0666; } >/dev/null 2>&1 & { sleep 8 | " +
                 peer + " make hidden 4096 0666; } >/dev/null 2>&1 & sleep 1"});
  EXPECT_EQ(
      node.good({"hobbes-run", "exec", "a", "/tmp/peer", "attach", "offered", "ro"}).substr(0, 5),
      "hello");
  EXPECT_NE(node.run({"hobbes-run", "exec", "a", "/tmp/peer", "attach", "offered", "rw"})
                .err.find("lists it as \"ro\""),
            std::string::npos);
  EXPECT_NE(node.run({"hobbes-run", "exec", "a", "/tmp/peer", "attach", "hidden", "ro"})
                .err.find("does not list it"),
            std::string::npos);
  // What is used by nobody any more is hidden, but not what somebody could still map; and it is
  // shown again to the next one that asks.
  EXPECT_TRUE(eventually([&] { return statistic("a", "palacios.segments") == 0; }, 30))
      << statistic("a", "palacios.segments");
  std::thread holder([&] {
    node.good({"hobbes-run", "exec", "a", "sh", "-c", "exec 3</dev/mem; : >/tmp/held; sleep 14"});
  });
  EXPECT_TRUE(eventually([&] {
    return node.run({"hobbes-run", "exec", "a", "test", "-e", "/tmp/held"}).wait_status == 0;
  }));
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "/tmp/peer", "count", "counter", "10"}),
            "1001020\n");
  ::sleep(7);
  EXPECT_EQ(statistic("a", "palacios.segments"), 1U) << "somebody has the device open";
  holder.join();
  EXPECT_TRUE(eventually([&] { return statistic("a", "palacios.segments") == 0; }, 30));
  // The mirror is read-only for the guest's kernel, too: what it writes there is lost, or ends it,
  // but is never in the mirror.
  (void)node.run({"hobbes-run", "exec", "a", "sh", "-c",
                  "dd if=/dev/zero of=/dev/mem bs=4096 seek=67108864 count=1 2>&1"});
  EXPECT_NE(node.run({"hobbes", "enclaves", "--json"}).out.find("\"a\""), std::string::npos);
}

TEST_F(Palacios, SegmentsThatItsProgramsMakeAreEverybodys) {
  boot("a", {{"hobbes",
              {{"memory", {{"segments", "1MiB"}}},
               {"segments", {{{"name", "melt.*"}, {"access", "ro"}}, {{"composition", true}}}}}}});
  carry_peer("a");
  auto inside = [&](std::vector<std::string> args) {
    args.insert(args.begin(), {"hobbes-run", "exec", "a", "/tmp/peer"});
    return node.run(args);
  };
  // What waits for a line ends with the test's pipe.
  auto in_background = [&](const std::string& words) {
    node.good({"sh", "-c",
               "{ sleep 30 | " HOBBES_BUILD_DIR "/bin/hobbes-run exec a /tmp/peer " + words +
                   "; } >/dev/null 2>&1 &"});
  };
  in_background("make field 65536 0666");
  EXPECT_TRUE(eventually([&] {
    return node.run({peer, "attach", "field", "rw"}).out[0] == 'h';
  })) << "what the guest wrote the node reads, and writes: "
      << node.run({peer, "attach", "field", "rw"}).err;
  Outcome seen = inside({"attach", "field", "rw"});
  EXPECT_EQ(seen.out.substr(0, 5), "seen ") << "another program of the guest: " << seen.err;
  EXPECT_NE(node.good({"hobbes", "segments"}).find("field"), std::string::npos);
  // One memory: both sides count in it at once.
  auto number = [&](const Outcome& outcome) { return std::strtoull(outcome.out.c_str(), {}, 10); };
  const auto before = number(node.run({peer, "count", "field", "0"}));
  std::thread other([&] { EXPECT_EQ(inside({"count", "field", "200000"}).wait_status, 0); });
  EXPECT_EQ(node.run({peer, "count", "field", "200000"}).wait_status, 0);
  other.join();
  EXPECT_EQ(number(node.run({peer, "count", "field", "0"})) - before, 400000U);
  in_background("convert kept");
  EXPECT_TRUE(eventually([&] {
    return node.run({peer, "attach", "kept", "ro"}).wait_status == 0;
  })) << "memory that its program had already";
  // Its room, its rights, and what cannot be had.
  EXPECT_NE(inside({"make", "big", "1048576", "0600"}).err.find("are left"), std::string::npos);
  EXPECT_NE(inside({"make", "stays", "4096", "0600", "persistent"}).err.find("ends with it"),
            std::string::npos);
  EXPECT_NE(inside({"make", "field", "4096", "0600"}).err.find("taken"), std::string::npos);
  node.good({"sh", "-c",
             "for name in melt.a ice; do { sleep 12 | " + peer +
                 " make $name 4096 0666; } >/dev/null 2>&1 & done; sleep 1"});
  EXPECT_EQ(inside({"attach", "melt.a", "ro"}).out.substr(0, 6), "hello ") << "by its pattern";
  EXPECT_NE(inside({"attach", "melt.a", "rw"}).err.find("composition"), std::string::npos);
  EXPECT_NE(inside({"attach", "ice", "ro"}).err.find("composition"), std::string::npos);
  // A snapshot of what a program of the node goes on writing, by one of the guest.
  node.good(
      {"sh", "-c", "{ sleep 30 | " + peer + " sweep melt.b 262144 small; } >/dev/null 2>&1 &"});
  EXPECT_TRUE(eventually([&] {
    return node.good({"hobbes", "segments"}).find("melt.b") != std::string::npos;
  }));
  Outcome taken = inside({"snapshot", "melt.b", "3"});
  EXPECT_EQ(taken.out.substr(0, 10), "3 instants") << taken.err;
  EXPECT_NE(inside({"sweep", "own", "4096", "small"}).err.find("are not watched"),
            std::string::npos);
  // The end of its maker is the segment's, however it comes.
  node.good({"hobbes-run", "exec", "a", "sh", "-c", "kill -9 $(pidof peer)"});
  EXPECT_TRUE(eventually([&] {
    const std::string left = node.good({"hobbes", "segments"});
    return left.find("field") == std::string::npos && left.find("kept") == std::string::npos;
  })) << node.good({"hobbes", "segments"});
  in_background("make again 1000000 0600");
  EXPECT_TRUE(eventually([&] {
    return node.run({peer, "attach", "again", "ro"}).wait_status == 0;
  })) << "its room is free again";
}

TEST_F(Palacios, SegmentsHaveDoorbellsBetweenTheNodeAndItsPrograms) {
  boot("a", {{"hobbes", {{"segments", {{{"name", "s"}, {"size", "4KiB"}}}}}}});
  carry_peer("a");
  auto file_of = [&](const std::string& name) { return node.folder() + "/" + name; };
  auto listen = [&](const std::string& name, const std::string& where) {
    node.good({"sh", "-c", where + " hear s 1 >" + "'" + file_of(name) + "' 2>&1 </dev/null &"});
    EXPECT_TRUE(eventually([&] { return file(file_of(name)) == "listens\n"; }, 30))
        << file(file_of(name));
  };
  auto heard = [&](const std::string& name) {
    return eventually([&] { return file(file_of(name)) == "listens\nrang\n"; }, 30);
  };
  const std::string in_guest = HOBBES_BUILD_DIR "/bin/hobbes-run exec a /tmp/peer";
  // A ring on the node or in the guest reaches the listeners there and here.
  for (const std::string& from : {peer, in_guest}) {
    listen("here", peer);
    listen("there", in_guest);
    listen("there too", in_guest);
    node.good({"sh", "-c", from + " ring s 1"});
    for (const char* name : {"here", "there", "there too"})
      EXPECT_TRUE(heard(name)) << name << ": " << file(file_of(name));
  }
  std::thread other([&] {
    EXPECT_EQ(node.good({"sh", "-c", in_guest + " bounce s 200 1"}), "200\n");
  });
  EXPECT_EQ(node.good({peer, "bounce", "s", "200", "0"}), "200\n");
  other.join();
  EXPECT_EQ(
      node.good({"sh", "-c", in_guest + " bounce s 300 0 & " + in_guest + " bounce s 300 1; wait"}),
      "300\n300\n");
  // A program that does nothing but ring.
  listen("hears the storm", peer);
  node.good({"sh", "-c", in_guest + " ring s 20000 >/dev/null 2>&1 </dev/null &"});
  node.good({"hobbes", "ping", "a"});
  EXPECT_TRUE(heard("hears the storm"));
  EXPECT_TRUE(eventually(
      [&] {
        return node.good({"hobbes", "segments", "--json"}).find("\"attachments\": 0") !=
               std::string::npos;
      },
      40))
      << "nobody uses it any more: " << node.good({"hobbes", "segments", "--json"});
}

TEST_F(Palacios, ServicesAreCalledFromTheNodeAndOnIt) {
  const std::string fabric = HOBBES_BUILD_DIR "/tests/programs/fabric-peer";
  boot("a");
  carry_peer("a", fabric);
  const std::string in_guest = HOBBES_BUILD_DIR "/bin/hobbes-run exec a /tmp/peer";
  node.good({"sh", "-c", fabric + " serve on-node >/dev/null 2>&1 </dev/null &"});
  node.good({"sh", "-c", in_guest + " serve in-guest >/dev/null 2>&1 </dev/null &"});
  for (const char* service : {"on-node", "in-guest"})
    for (const std::string& from : {in_guest, fabric})
      EXPECT_EQ(node.good({"sh", "-c", from + " call " + service + " 100"}), "100 answers\n")
          << service << " from " << from;
  // Channels that ended give their places in the guest's window back.
  for (int i = 0; i < 70; ++i) node.good({fabric, "call", "in-guest", "1"});
  EXPECT_NE(node.good({"hobbes", "services"}).find("in-guest  service  node   a"),
            std::string::npos)
      << node.good({"hobbes", "services"});
  // Who is killed on either side is told on the other.
  node.good({fabric, "stop", "on-node"});
  node.good({"sh", "-c", in_guest + " stop in-guest"});
  EXPECT_TRUE(eventually([&] { return node.good({"hobbes", "names", "--json"}) == "[]\n"; }));
}

struct EndCase {
  const char* name;
  const char* script;
  const char* append;
  const char* state;
  int status;
  const char* cause;
};
class PalaciosEnd : public Palacios, public ::testing::WithParamInterface<EndCase> {};

TEST_P(PalaciosEnd, IsToldFromOthers) {
  static Sample sample;
  if (!sample.draws(3)) GTEST_SKIP() << "not of this sample";
  const EndCase& c = GetParam();
  Json image = {
      {"hobbes", {{"image", {{"cmdline", std::string("console=ttyS0 quiet ") + c.append}}}}}};
  boot("a", image);
  (void)node.run({"hobbes-run", "exec", "a", "sh", "-c", c.script});
  EXPECT_TRUE(eventually([&] { return state("a") == c.state; }, 20))
      << to_text(node.enclave("a")) << console("a");
  if (c.status >= 0) {
    EXPECT_EQ(number_at(node.enclave("a"), "exitStatus"), c.status);
  }
  EXPECT_NE((cause("a") + console("a")).find(c.cause), std::string::npos) << cause("a") << "\n"
                                                                          << console("a");
}
INSTANTIATE_TEST_SUITE_P(
    Every, PalaciosEnd,
    ::testing::Values(EndCase{"poweroff", "poweroff -f", "", "stopped", 0, "powered off"},
                      EndCase{"reboot", "reboot -f", "", "stopped", 75, "rebooted"},
                      EndCase{"panic", "echo c >/proc/sysrq-trigger", "", "crashed", -1,
                              "Kernel panic - not syncing"},
                      EndCase{"triplefault", "echo b >/proc/sysrq-trigger", "reboot=t", "crashed",
                              -1, "triple fault"}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_F(Palacios, RunTellsWhyTheGuestCrashed) {
  Outcome outcome = run_to_end(bundle("b", "echo c >/proc/sysrq-trigger"));
  EXPECT_EQ(exit_code_of(outcome.wait_status), 134);
  EXPECT_NE(outcome.err.find("hobbes-run: enclave 'a' crashed: "), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("Kernel panic - not syncing"), std::string::npos) << outcome.err;
}

TEST_F(Palacios, BadImagesAreRefusedClearly) {
  auto refusal = [&](const Json& patch) {
    std::string path = bundle("bad", "true", patch);
    Outcome made = node.create("bad", path);
    std::string said = made.err;
    if (made.wait_status == 0) {
      Outcome started = node.run({"hobbes-run", "start", "bad"}, 60);
      EXPECT_NE(started.wait_status, 0) << to_text(patch);
      said = started.err;
    }
    node.good({"hobbes-run", "delete", "--force", "bad"});
    return said;
  };
  auto image = [](const std::string& key, const std::string& value) {
    return Json{{"hobbes", {{"image", {{key, value}}}}}};
  };
  std::string cut = node.folder() + "/cut", text = node.folder() + "/text",
              small = node.folder() + "/disk";
  node.good({"sh", "-c",
             "head -c 3000000 " + guest + "/vmlinux >" + cut + "; echo words >" + text +
                 "; head -c 1000 /dev/zero >" + small});
  EXPECT_NE(refusal(image("kernel", "/no/such")).find("no such file"), std::string::npos);
  EXPECT_NE(refusal(image("kernel", cut)).find("truncated"), std::string::npos);
  EXPECT_NE(refusal(image("kernel", text)).find("truncated"), std::string::npos);
  EXPECT_NE(refusal(image("kernel", "/bin/busybox")).find("no PVH entry note"), std::string::npos);
  EXPECT_NE(
      refusal(image("kernel", guest + "/initrd.cpio")).find("neither an ELF image nor a bzImage"),
      std::string::npos);
  EXPECT_NE(refusal(image("initrd", "/no/such")).find("no such file"), std::string::npos);
  EXPECT_NE(refusal({{"hobbes", {{"memory", {{"size", "32MiB"}}}}}}).find("does not fit"),
            std::string::npos);
  EXPECT_NE(
      refusal({{"vm", {{"image", {{"path", small}, {"format", "raw"}}}}}}).find("whole sectors"),
      std::string::npos);
  EXPECT_NE(refusal({{"vm", {{"image", {{"path", small}, {"format", "qcow2"}}}}}}).find("qemu-img"),
            std::string::npos);
  EXPECT_NE(refusal({{"process", {{"args", {"/no/such/program"}}}}}).find("no such file"),
            std::string::npos)
      << "the agent's word";
  // A guest without an agent, asked to run a program.
  Json never = image("kernel", HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img");
  never["hobbes"]["image"]["bootSeconds"] = 2;
  EXPECT_NE(refusal(never).find("did not answer within 2 s"), std::string::npos);
}

TEST_F(Palacios, KittenIsAGuestLikeAnyOther) {
  Json alone = {{"process", nullptr},
                {"hobbes",
                 {{"image",
                   {{"kernel", HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img"},
                    {"initrd", nullptr},
                    {"cmdline", "exit"}}}}}};
  Outcome outcome = run_to_end(bundle("b", "", alone));
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("alone on this machine"), std::string::npos) << outcome.out;
}

TEST_F(Palacios, TheSerialPortOfAGuestWithoutAnAgentIsATerminal) {
  expect_shell_on_terminal("virtio_mmio",
                           "exec setsid sh -c \"exec sh -i </dev/ttyS0 >/dev/ttyS0 2>&1\"");
}

TEST_F(Palacios, TheConsoleOfAGuestWithoutAnAgentIsATerminalOnceItPrintsThere) {
  expect_shell_on_terminal("virtio_mmio virtio_console",
                           "until [ -c /dev/hvc0 ]; do sleep 0.1; done; exec setsid sh -c \"exec "
                           "sh -i </dev/hvc0 >/dev/hvc0 2>&1\"");
}

TEST_F(Palacios, ThePowerButtonOfAGuestWithoutAnAgentIsPressedByTheFirstTerm) {
  Sample sample;
  const bool drawn = sample.draws(2);
  for (bool listens : {true, false}) {
    if (!Sample::complete() && listens != drawn) continue;  // each boots a machine
    Json alone =
        small_guest("evdev button", std::string("until [ -c /dev/input/event0 ]; do sleep 0.1; "
                                                "done; exec 3</dev/input/event0; sleep 1; ") +
                                        "echo waiting; head -c 24 <&3 >/dev/null; echo pressed; " +
                                        (listens ? "poweroff -f" : "while :; do sleep 1; done"));
    boot("a", alone);
    ASSERT_TRUE(eventually([&] { return console("a").find("waiting") != std::string::npos; }, 60))
        << console("a");
    node.good({"hobbes-run", "kill", "a", "TERM"});
    EXPECT_TRUE(eventually([&] { return console("a").find("pressed") != std::string::npos; }, 20))
        << console("a");
    if (!listens) {
      EXPECT_EQ(state("a"), "running");
      node.good({"hobbes-run", "kill", "a", "TERM"});
    }
    EXPECT_TRUE(eventually([&] { return state("a") == "stopped"; }, 20))
        << to_text(node.enclave("a")) << console("a");
    EXPECT_EQ(number_at(node.enclave("a"), "exitStatus"), listens ? 0 : 128 + SIGTERM);
    node.good({"hobbes-run", "delete", "a"});
  }
}

TEST_F(Palacios, TheBundlesProgramHasATerminalWhenItSaysSo) {
  std::string path =
      bundle("b", "test -t 0 && test -t 1 && echo terminal; read line; echo got $line; exit 4",
             {{"process", {{"terminal", true}}}});
  auto typed = [&] {
    return node.run(
        {"sh", "-c",
         "echo words | " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " + path + " a"},
        100);
  };
  Outcome outcome = typed();
  if (emulation_hiccup(outcome.err)) outcome = typed();
  EXPECT_EQ(exit_code_of(outcome.wait_status), 4) << outcome.err;
  EXPECT_NE(outcome.out.find("terminal\r\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("got words\r\n"), std::string::npos) << outcome.out;
}

TEST_F(Palacios, ARuntimeSpecVmWithADiskOfItsOwn) {
  std::string disk = make_disk(node.folder());
  Outcome outcome = run_to_end(disk_bundle(disk, "echo kept >/file; sync; echo from the disk"));
  EXPECT_EQ(outcome.out, "from the disk\n") << outcome.err;
  EXPECT_EQ(node.good({"/sbin/debugfs", "-R", "cat /file", disk}), "kept\n");
}

TEST_F(Palacios, AFullDiskUnderAWriteIsTheGuestsErrorAndNoMore) {
  std::string small = node.folder() + "/small";
  node.good({"sh", "-c", "mkdir " + small + " && mount -t tmpfs -o size=3m tmpfs " + small});
  // The image is larger than what its file system can hold.
  std::string disk = make_disk(small);
  Outcome outcome = run_to_end(disk_bundle(disk,
                                           "dd if=/dev/zero of=/file bs=64k count=200 conv=fsync "
                                           "2>/dev/null || echo refused; echo lives"));
  EXPECT_EQ(outcome.out, "refused\nlives\n") << outcome.err;
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_NE(node.good({"df", small}).find("100%"), std::string::npos);
  node.good({"umount", small});
}

TEST_F(Palacios, ABundlesRootFileSystemIsWhatItsProgramSees) {
  const std::string look =
      "cat /etc/name; ls -d /modules 2>/dev/null; readlink /etc/link; ls /linked; ";
  std::string shared = node.folder() + "/shared";
  // The program's own links lead to where it will look, also absolute ones; and mount points need
  // not be there.
  const Json mounts = {{{"destination", "/linked/here"},
                        {"type", "bind"},
                        {"source", shared},
                        {"options", {"bind"}}}};
  auto root = [&](bool read_only) {
    std::string path = bundle(
        "b",
        look + (read_only ? "mount -o remount,rw /; touch /etc/new 2>/dev/null || echo refused"
                          : "echo x >/etc/new"),
        {{"root", {{"path", "rootfs"}, {"readonly", read_only}}}, {"mounts", mounts}});
    node.good(
        {"sh", "-c",
         "mkdir -p " + shared + "; cd " + path +
             " && rm -rf rootfs && mkdir -p rootfs/bin rootfs/etc rootfs/srv && cp /bin/busybox "
             "rootfs/bin/ && for t in sh cat ls readlink "
             "mount touch; do ln -s busybox rootfs/bin/$t; done; "
             "echo image >rootfs/etc/name; ln -s name rootfs/etc/link; ln -s /srv rootfs/linked"});
    return path;
  };
  std::string path = root(false);
  Outcome outcome = run_to_end(path);
  EXPECT_EQ(outcome.out, "image\nname\nhere\n") << outcome.err;
  EXPECT_EQ(file(path + "/rootfs/etc/new"), "x\n") << "the folder itself, not a copy";
  outcome = run_to_end(root(true));
  EXPECT_EQ(outcome.out, "image\nname\nhere\nrefused\n") << outcome.err;
}

TEST_F(Palacios, ItsMountsAreFoldersOfTheNodeBothWays) {
  std::string data = node.folder() + "/data", fixed = node.folder() + "/fixed";
  node.good({"sh", "-c",
             "mkdir -p " + data + "/sub " + fixed + " && echo input >" + data +
                 "/sub/in && echo constant >" + fixed + "/c"});
  node.good({"sh", "-c",
             "mkdir " + data + "/one && mount -t tmpfs one " + data + "/one && mkdir " + data +
                 "/one/two && mount -t tmpfs two " + data + "/one/two && echo below >" + data +
                 "/one/two/deep"});
  const Json mounts = {
      {{"destination", "/data"}, {"type", "bind"}, {"source", data}, {"options", {"rbind", "rw"}}},
      {{"destination", "/fixed"}, {"source", fixed}, {"options", {"bind", "ro"}}},
      {{"destination", "/scratch"},
       {"type", "tmpfs"},
       {"source", "tmpfs"},
       {"options", {"nosuid", "size=1m"}}},
      {{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}}};
  boot("a", {{"mounts", mounts}});
  EXPECT_EQ(inside("a", "cat /data/sub/in /fixed/c"), "input\nconstant\n");
  EXPECT_EQ(inside("a", "df -k /scratch | tail -1 | awk '{print $2}'"), "1024\n");
  inside("a",
         "echo output >/data/out && mkdir /data/made && chmod 700 /data/made && ln -s out "
         "/data/link && cat /data/link && mv /data/out "
         "/data/moved && mv /data/moved /data/out");
  EXPECT_EQ(file(data + "/out"), "output\n");
  EXPECT_EQ(node.run({"stat", "-c", "%a", data + "/made"}).out, "700\n");
  EXPECT_EQ(node.run({"readlink", data + "/link"}).out, "out\n");
  // What either side changes the other sees, in files that both know already.
  node.good({"sh", "-c", "echo more >>" + data + "/out"});
  EXPECT_EQ(inside("a", "cat /data/out"), "output\nmore\n");
  inside("a", "echo and more >>/data/out");
  EXPECT_EQ(file(data + "/out"), "output\nmore\nand more\n");
  // Not because the guest's kernel says so.
  EXPECT_EQ(inside("a",
                   "mount -o remount,rw /fixed && grep -c '/fixed virtiofs rw' /proc/mounts; touch "
                   "/fixed/new 2>/dev/null || echo refused"),
            "1\nrefused\n");
  // Two file systems of the node, with the same inode numbers.
  EXPECT_EQ(inside("a",
                   "find /data/one | sort; [ $(stat -c %d /data/one) != $(stat -c %d "
                   "/data/one/two) ] && cat /data/one/two/deep"),
            "/data/one\n/data/one/two\n/data/one/two/deep\nbelow\n");
  // Much at once, through pages of the guest: the same bytes on both sides.
  std::string sum =
      inside("a", "dd if=/dev/urandom of=/data/big bs=64k count=64 2>/dev/null; md5sum </data/big");
  EXPECT_EQ(node.run({"sh", "-c", "md5sum <" + data + "/big"}).out, sum);
  inside("a",
         "cd /data; for i in $(seq 200); do echo $i >n$i; done; cat n* | wc -l | grep -qx 200 && "
         "rm n* big && sync");
  EXPECT_EQ(node.run({"ls", data}).out, "link\nmade\none\nout\nsub\n");
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.good({"umount", data + "/one/two", data + "/one"});

  node.good({"mkfifo", data + "/fifo"});
  for (const std::string& wrong : {data + "/missing", data + "/fifo"}) {
    Json mount = {{"destination", "/data"}, {"type", "bind"}, {"source", wrong}};
    Outcome refused = node.create("w", bundle("w", "true", {{"mounts", {mount}}}));
    EXPECT_NE(refused.wait_status, 0);
    EXPECT_NE(refused.err.find(wrong), std::string::npos) << refused.err;
  }
}

TEST_F(Palacios, MappedFilesOfAFolderAreMemoryOfBothSides) {
  const std::string mapper = HOBBES_BUILD_DIR "/tests/programs/mapped-file";
  std::string data = node.folder() + "/data", shm = "/dev/shm/" + std::to_string(::getpid());
  node.good({"sh", "-c",
             "mkdir -p " + data + " " + shm + " && truncate -s 8192 " + data + "/disk " + shm +
                 "/memory && truncate -s 64K " + shm + "/cut"});
  const Json mounts = {{{"destination", "/data"}, {"type", "bind"}, {"source", data}},
                       {{"destination", "/dev/shm"}, {"type", "bind"}, {"source", shm}}};
  boot("a", {{"mounts", mounts}});
  carry_peer("a", mapper);
  EXPECT_EQ(inside("a", "grep -c ' /dev/shm virtiofs ' /proc/mounts"), "1\n");
  for (auto [here, there] :
       {std::pair{data + "/disk", "/data/disk"}, std::pair{shm + "/memory", "/dev/shm/memory"}}) {
    std::thread other([&, path = there] {
      node.good({"hobbes-run", "exec", "a", "/tmp/peer", "count", path, "500000"});
    });
    node.good({mapper, "count", here, "500000"});
    other.join();
    EXPECT_EQ(node.good({mapper, "count", here, "0"}), "1000000\n") << here;
    EXPECT_EQ(inside("a", "/tmp/peer count " + std::string(there) + " 0"), "1000000\n");
  }
  // What the guest makes longer and maps is the node's, too.
  EXPECT_EQ(inside("a",
                   "truncate -s 3M /dev/shm/new && /tmp/peer count /dev/shm/new 7 && "
                   "rm -f /dev/shm/none"),
            "7\n");
  EXPECT_EQ(node.good({mapper, "count", shm + "/new", "1"}), "8\n");
  // A file that is cut under the guest's mapping ends at most the program that goes on using it.
  inside("a",
         "mkfifo /tmp/go; { sleep 1000 >/tmp/go & }; /tmp/peer hold /dev/shm/cut 65536 </tmp/go "
         ">/tmp/held 2>&1 & for i in 1 2; do echo go; sleep 1; done >/tmp/go");
  EXPECT_EQ(inside("a", "cat /tmp/held"), "holds\nalive\nalive\n");
  node.good({"truncate", "-s", "0", shm + "/cut"});
  inside("a", "echo go >/tmp/go; sleep 1; cat /tmp/held");
  EXPECT_EQ(state("a"), "running");
  node.good({"truncate", "-s", "65536", shm + "/cut"});
  std::string counted = inside("a", "/tmp/peer count /dev/shm/cut 5");
  EXPECT_EQ(node.good({mapper, "count", shm + "/cut", "0"}), counted) << "one memory again";
  node.good({"hobbes-run", "delete", "--force", "a"});
  node.good({"rm", "-r", shm});
}

TEST_F(Palacios, SingleFilesOfTheNodeAreSharedAndNothingBesideThem) {
  std::string data = node.folder() + "/data";
  node.good({"sh", "-c",
             "mkdir " + data + " && cd " + data +
                 " && echo one >rw && echo two >ro && echo secret >beside"});
  const Json mounts = {{{"destination", "/etc/rw"},
                        {"type", "bind"},
                        {"source", data + "/rw"},
                        {"options", {"bind", "rw"}}},
                       {{"destination", "/etc/ro"},
                        {"type", "bind"},
                        {"source", data + "/ro"},
                        {"options", {"bind", "ro"}}}};
  boot("a", {{"mounts", mounts}});
  EXPECT_EQ(inside("a",
                   "cat /etc/rw /etc/ro; echo three >>/etc/rw; mount -o remount,rw /etc/ro "
                   "2>/dev/null; echo x >/etc/ro || echo refused"),
            "one\ntwo\nrefused\n");
  EXPECT_EQ(file(data + "/rw"), "one\nthree\n");
  EXPECT_EQ(file(data + "/ro"), "two\n");
  EXPECT_EQ(inside("a",
                   "ls /files; touch /files/new 2>/dev/null || echo fixed; rm -f /files/0 "
                   "2>/dev/null; ls /files"),
            "0\n1\nfixed\n0\n1\n");
  node.good({"sh", "-c", "echo changed >" + data + "/rw"});
  EXPECT_EQ(inside("a", "cat /etc/rw"), "changed\n");
}

// An image of podman's, with all that podman wants to see in it: name resolution, host name,
// secrets, its own mounts.
TEST_F(Palacios, PodmanRunsAnImageInAVirtualMachine) {
  Podman podman(node);
  std::string as = " --network=none";
  for (const std::string word :
       {"kind=palacios", "cores.count=1", "memory.size=192MiB", "image.cmdline=quiet"})
    as += " --annotation org.hobbes." + word;
  as += " --annotation org.hobbes.image.kernel=" + guest +
        "/vmlinux --annotation org.hobbes.image.initrd=" + guest + "/initrd.cpio ";
  node.good({"sh", "-c", "echo of the node >" + node.folder() + "/note"});
  Outcome outcome = podman.run(
      "run --rm --hostname inside -v " + node.folder() + "/note:/etc/note" + as +
      "box:1 sh -c 'hostname; cat /etc/note; cat /etc/hostname; echo; cat /proc/cmdline; exit 7'");
  EXPECT_EQ(exit_code_of(outcome.wait_status), 7) << outcome.err;
  EXPECT_EQ(outcome.out.rfind("inside\nof the node\ninside\n", 0), 0U) << outcome.out;
  EXPECT_NE(outcome.out.find("reboot=acpi"), std::string::npos)
      << "a kernel of its own: " << outcome.out;
  podman.good("run -d --name a" + as + "box:1 sh -c 'echo begun; exec sleep 1000'");
  EXPECT_EQ(podman.good("exec a sh -c 'echo $((6*7))'"), "42\n");
  EXPECT_EQ(exit_code_of(podman.run("exec a sh -c 'exit 6'").wait_status), 6);
  EXPECT_EQ(podman.good("logs a"), "begun\n");
  podman.good("stop -t 2 a");
  EXPECT_NE(podman.good("ps -a").find("Exited"), std::string::npos);
  podman.good("rm a");
}

TEST_F(Palacios, ACompositionNamesOneForAProgramWithoutMpi) {
  std::string vm = bundle("vm", "true"), host = node.folder() + "/host";
  Json config = example_config(Kind::linux_, true);
  config["hobbes"]["cores"] = {{"count", 1}};
  ASSERT_TRUE(make_directories(host));
  ASSERT_TRUE(replace_file(host + "/config.json", to_text(config)));
  std::string text =
      "<composition name='pair'><enclave name='host' bundle='host'><app name='ranks' ranks='2' "
      "path='" HOBBES_BUILD_DIR
      "/tests/programs/plain-c'/></enclave><enclave name='machine' bundle='vm'><app name='tool' "
      "ranks='2' mpi='no' path='sh'>"
      "<arg>-c</arg><arg>echo $REMORA_APP_RANK of $REMORA_APP_SIZE on $(uname -n); exit "
      "$STATUS</arg>"
      "<env name='STATUS' value='0'/></app></enclave></composition>";
  ASSERT_TRUE(replace_file(node.folder() + "/pair.xml", text));
  Outcome outcome = compose(node.folder() + "/pair.xml");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  for (const char* line : {"[tool:0] 0 of 2 on", "[tool:1] 1 of 2 on", "[ranks:0]"})
    EXPECT_NE(outcome.out.find(line), std::string::npos) << outcome.out << outcome.err;
  // Its failure is the composition's, as any rank's is.
  text.replace(text.find("value='0'"), std::strlen("value='0'"), "value='3'");
  ASSERT_TRUE(replace_file(node.folder() + "/pair.xml", text));
  Outcome failed = compose(node.folder() + "/pair.xml");
  EXPECT_EQ(exit_code_of(failed.wait_status), 3) << failed.err;
  EXPECT_NE(failed.err.find("of app \"tool\" in enclave \"machine\""), std::string::npos)
      << failed.err;
}

// Compositions of MPI programs in a virtual machine that shows the node's own files, and on Linux.
class PalaciosRanks : public Palacios {
 protected:
  void SetUp() override {
    if (!Node::joins_mpi()) GTEST_SKIP() << "this build has no component for its Open MPI";
    Palacios::SetUp();
    (void)bundle("machine", "true",
                 {{"hobbes", {{"root", "host"}, {"memory", {{"size", "512MiB"}}}}}});
    Json config = example_config(Kind::linux_, true);
    config["hobbes"]["cores"] = {{"count", 1}};
    ASSERT_TRUE(make_directories(node.folder() + "/host"));
    ASSERT_TRUE(replace_file(node.folder() + "/host/config.json", to_text(config)));
  }
  // Two ranks in the machine and one on Linux, the machine's first or last.
  std::string document(const std::string& program, const std::string& arguments,
                       bool machine_first) {
    auto enclave = [&](const std::string& name, int ranks) {
      return "<enclave name='" + name + "' bundle='" + name + "' mpiComm='" + name +
             "'><app name='" + name + "' ranks='" + std::to_string(ranks) +
             "' path='" HOBBES_BUILD_DIR "/tests/programs/" + program + "' argv='" + arguments +
             "'/></enclave>";
    };
    std::string machine = enclave("machine", 2), host = enclave("host", 1);
    std::string path = node.folder() + "/ranks.xml";
    EXPECT_TRUE(replace_file(path, "<composition name='ranks' mpiComm='universe'>" +
                                       (machine_first ? machine + host : host + machine) +
                                       "</composition>"));
    return path;
  }
};

TEST_F(PalaciosRanks, InAVirtualMachineAndOnLinuxAreOneUniverse) {
  Outcome done = compose(document("universe", "universe=3", true), {"--report-bindings"});
  EXPECT_EQ(done.wait_status, 0) << done.out << done.err;
  for (const char* line : {"[machine:0] ok 0/3", "[machine:1] ok 1/3", "[host:0] ok 2/3"})
    EXPECT_NE(done.out.find(line), std::string::npos) << line << " is missing: " << done.out;
  EXPECT_NE(done.err.find("machine:1 (rank 1 of the universe) is bound to CPUs "),
            std::string::npos)
      << done.err;
}

// Each ends the composition with the culprit's name and leaves nothing. One of them each time, all
// in
// `./check --soak`: each boots a machine.
TEST_F(PalaciosRanks, ThatFailEndTheCompositionAndHoldNobodyUp) {
  auto a_rank_fails = [this](const char* how, bool machine_first, int status, const char* told) {
    Outcome failed = compose(document("misbehave", how, machine_first));
    EXPECT_EQ(exit_code_of(failed.wait_status), status) << failed.out << failed.err;
    EXPECT_NE(failed.err.find(told), std::string::npos) << failed.err;
  };
  auto the_machine_stops = [this](const std::vector<std::string>& by, int limit, int status) {
    const std::string path = document("misbehave", "term", false),
                      said = node.folder() + "/" + by[0];
    std::thread meanwhile([&] {
      EXPECT_TRUE(eventually(
          [&] {
            std::string text = file(said);
            return text.find("[machine:0] ready") != std::string::npos &&
                   text.find("[machine:1] ready") != std::string::npos;
          },
          100))
          << file(said);
      std::vector<std::string> words = {"hobbes-run", by[0], "ranks.machine"};
      words.insert(words.end(), by.begin() + 1, by.end());
      node.good(words);
    });
    Outcome ended =
        node.run({"sh", "-c",
                  HOBBES_BUILD_DIR "/bin/remora run" + std::string(emulated) + "--timeout " +
                      std::to_string(limit) + " " + path + " >" + said + " 2>" + said + ".err"},
                 200);
    meanwhile.join();
    EXPECT_EQ(exit_code_of(ended.wait_status), status) << file(said + ".err");
    EXPECT_EQ(node.good({"hobbes", "enclaves", "--json"}), "[]\n");
  };
  const std::vector<std::function<void()>> failures = {
      [&] {
        a_rank_fails("kill", false, 137, "rank 1 of app \"machine\" in enclave \"machine\" ");
      },
      [&] { a_rank_fails("finalize-early", true, 1, "for a message that cannot come"); },
      [&] {
        the_machine_stops({"kill", "KILL"}, 300, 1);
      },
      [&] { the_machine_stops({"pause"}, 60, 124); }};
  Sample sample;
  const std::size_t one = sample.number() % failures.size();
  for (std::size_t i = 0; i < failures.size(); ++i)
    if (Sample::complete() || i == one) {
      std::printf("failure %zu\n", i);
      failures[i]();
    }
}

TEST_F(Palacios, NothingIsLeftOfAKilledMonitorOrHobbesd) {
  boot("a", {{"hobbes", {{"cores", {{"count", 1}}}}}});
  // hobbesd: the guest runs on and is adopted.
  node.kill_daemon();
  EXPECT_EQ(inside("a", "echo on"), "on\n");
  node.wake_daemon();
  EXPECT_TRUE(eventually([&] { return state("a") == "running"; }));
  // The monitor: its end is the enclave's.
  ::kill(static_cast<pid_t>(number_at(node.enclave("a"), "pid")), SIGKILL);
  EXPECT_TRUE(eventually([&] { return state("a") == "crashed"; })) << to_text(node.enclave("a"));
  EXPECT_EQ(number_at(node.enclave("a"), "exitStatus"), 137);
}

TEST_F(Palacios, AnErrorOfKvmAtAnyCallIsToldAndLeavesNothing) {
  std::string path = bundle("b", "true", {{"hobbes", {{"memory", {{"size", "128MiB"}}}}}});
  // Every third call, another one each time.
  const int step = Sample::complete() ? 1 : 3;
  int refused = 0;
  for (int call = 1 + static_cast<int>(Sample().number()) % step; call <= 40; call += step) {
    ASSERT_EQ(node.create("a", path).wait_status, 0) << "call " << call;
    std::string pid = std::to_string(number_at(node.enclave("a"), "pid"));
    // Attached before the monitor is executed, it fails the monitor's n-th request to KVM.
    node.good({"sh", "-c",
               "strace -f -qq -o /dev/null -e trace=ioctl -e inject=ioctl:error=ENOMEM:when=" +
                   std::to_string(call) + " -p " + pid +
                   " >/dev/null 2>&1 & for i in $(seq 200); do grep -q 'TracerPid:.[1-9]' /proc/" +
                   pid + "/status && exit 0; sleep 0.05; done; exit 1"});
    Outcome started = node.run(
        {"timeout", "-s", "KILL", "6", HOBBES_BUILD_DIR "/bin/hobbes-run", "start", "a"}, 100);
    // Once the machine is made its threads are confined: what strace makes of a call is none they
    // may ask for.
    bool made = console("a").find("machine after") != std::string::npos;
    bool told = started.err.find("memory") != std::string::npos ||
                started.err.find("Cannot allocate") != std::string::npos;
    if (!made && WIFEXITED(started.wait_status) && WEXITSTATUS(started.wait_status) == 1) {
      EXPECT_TRUE(told) << "call " << call << ": " << started.err;
      ++refused;
    }
    node.good({"hobbes-run", "delete", "--force", "a"});
    if (made) break;  // all calls were tried
  }
  EXPECT_GT(refused, 15 / step);
}

// A node is not called able to host virtual machines because a device file exists.
TEST_F(Palacios, AnErrorOfKvmInTheTrialGuestIsToldAndForgotten) {
  auto features = [&](const std::string& injection) {
    ::unlink((node.run_folder() + "/kvm-trial.json").c_str());
    std::string strace =
        injection.empty()
            ? ""
            : "strace -f -qq -o /dev/null -e trace=ioctl -e inject=ioctl:error=ENOMEM:when=" +
                  injection + " ";
    std::string said =
        node.good({"sh", "-c", strace + HOBBES_BUILD_DIR "/bin/hobbes-run features"});
    return parse_json(said, "features").value_or(Json::object())["hobbes"]["kinds"]["palacios"];
  };
  auto kept = [&] { return ::access((node.run_folder() + "/kvm-trial.json").c_str(), F_OK) == 0; };
  int refused = 0;
  for (int call = 1; call <= 20; ++call) {
    Json palacios = features(std::to_string(call));
    if (palacios.value("available", true)) continue;
    ++refused;
    EXPECT_NE(text_at(palacios, "why").find("KVM_"), std::string::npos) << palacios;
    EXPECT_FALSE(kept()) << "call " << call << " failed once, which may pass: " << palacios;
  }
  EXPECT_GT(refused, 7);
  EXPECT_TRUE(features("").value("available", false)) << features("");
  EXPECT_TRUE(kept());
}

TEST_F(Palacios, WithoutKvmACreateFailsInOneClearSentence) {
  machine_.reset();
  kvm_.reset();
  node.good({"/sbin/rmmod", "kvm_amd"});
  Outcome made = node.create("a", bundle("b", "true"));
  EXPECT_NE(made.wait_status, 0);
  EXPECT_NE(made.err.find("there is no /dev/kvm; enable virtualisation in the firmware and load "
                          "kvm-intel or kvm-amd"),
            std::string::npos)
      << made.err;
  EXPECT_NE(node.good({"hobbes-run", "features"}).find("there is no /dev/kvm"), std::string::npos);
  node.good({"/sbin/modprobe", "kvm-amd"});
}

}  // namespace
}  // namespace hobbes::test
