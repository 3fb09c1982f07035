// Ordinary Linux programs on the cores of a co-kernel, inside the virtual node: they do what they
// do on Linux, and what ends badly ends for them alone.
#include <signal.h>
#include <sys/wait.h>

#include <cstring>
#include <thread>

#include "node/kitten_node.h"
#include "sample.h"

namespace hobbes::test {
namespace {

const std::string programs = HOBBES_BUILD_DIR "/tests/programs/";

class KittenPrograms : public Kitten {
 protected:
  // An enclave whose program is `args`, in the node's own files.
  std::string program_bundle(const std::string& name, const std::vector<std::string>& args,
                             Json patch = Json::object()) {
    Json config = {
        {"process",
         {{"args", args},
          {"cwd", "/"},
          {"env", {"PATH=/usr/bin:/bin", "OMPI_MCA_ess_singleton_isolated=1"}}}},
        {"linux", {{"namespaces", {{{"type", "mount"}}}}}},
        {"hobbes",
         {{"root", "host"}, {"cores", {{"count", 2}}}, {"memory", {{"size", "384MiB"}}}}}};
    config.merge_patch(patch);
    return bundle(name, config, HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img");
  }
  // One that waits for further programs.
  void host(const std::string& id, const Json& patch = Json::object()) {
    Outcome made = node.create(id, program_bundle(id, {"/bin/sleep", "100000"}, patch));
    ASSERT_EQ(made.wait_status, 0) << made.err;
    node.good({"hobbes-run", "start", id});
  }
  Outcome inside(const std::string& id, std::vector<std::string> args, int seconds = 60) {
    std::vector<std::string> argv = {"hobbes-run", "exec", id};
    argv.insert(argv.end(), args.begin(), args.end());
    return node.run(argv, seconds);
  }
  std::uint64_t count_of(const std::string& id, const std::string& what) {
    return static_cast<std::uint64_t>(number_at(statistics(id), what.c_str()));
  }
  void expect_alive(const std::string& id, const std::string& after) {
    Outcome alive = node.run({"hobbes", "ping", id});
    EXPECT_EQ(alive.wait_status, 0) << "after " << after << ": " << alive.err << console(id);
  }
  // Nothing of a program stays in its kernel.
  void expect_memory_back(const std::string& id, std::uint64_t before) {
    constexpr std::uint64_t kept = 8 << 20;  // page tables are kept for the next program
    EXPECT_TRUE(eventually([&] {
      (void)node.run({"hobbes", "ping", id});
      return count_of(id, "processes") == 1 && count_of(id, "memoryFree") + kept > before;
    })) << to_text(statistics(id));
  }
};

TEST_F(KittenPrograms, AProgramOfTheBundleIsItsEnclavesProcess) {
  std::string out = node.good(
      {"hobbes-run", "run", "--bundle",
       program_bundle("b", {"/bin/busybox", "echo", "from a core of its own"}), "greets"});
  EXPECT_NE(out.find("from a core of its own\n"), std::string::npos) << out;
  Outcome seven = node.run(
      {"hobbes-run", "run", "--bundle", program_bundle("c", {"/bin/sh", "-c", "exit 7"}), "seven"});
  EXPECT_EQ(WEXITSTATUS(seven.wait_status), 7) << seven.err;
  Outcome missing = node.run(
      {"hobbes-run", "run", "--bundle", program_bundle("d", {"/no/such/program"}), "missing"});
  EXPECT_EQ(WEXITSTATUS(missing.wait_status), 127) << missing.err;
  EXPECT_NE(missing.err.find("no such file or directory"), std::string::npos) << missing.err;

  host("waits");
  Json state = *parse_json(node.good({"hobbes-run", "state", "waits"}), "state");
  auto pid = static_cast<pid_t>(number_at(state, "pid"));
  EXPECT_NE(node.good({"hobbes-run", "ps", "waits"}).find(std::to_string(pid)), std::string::npos);
  EXPECT_TRUE(eventually([&] { return line("/proc/" + std::to_string(pid) + "/comm") == "sleep"; }))
      << line("/proc/" + std::to_string(pid) + "/comm");
  node.good({"hobbes-run", "kill", "waits", "TERM"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("waits"), "state") == "stopped"; }))
      << to_text(node.enclave("waits"));
  EXPECT_NE(console("waits").find("shutting down"), std::string::npos)
      << "the kernel ends with its program: " << console("waits");
}

TEST_F(KittenPrograms, SystemCallsHaveTheResultsThatLinuxGives) {
  host("k");
  for (const char* name : {"system-calls", "system-calls-static"}) {
    Outcome on_linux = node.run({programs + name, "/tmp"}),
            on_kitten = inside("k", {programs + name, "/tmp"});
    ASSERT_EQ(on_linux.wait_status, 0) << on_linux.err;
    EXPECT_EQ(on_kitten.wait_status, 0) << on_kitten.err << console("k");
    EXPECT_EQ(on_kitten.out, on_linux.out) << name;
    EXPECT_GT(on_linux.out.size(), 5000U);
  }
  EXPECT_GT(count_of("k", "forwardedCalls"), 1000U);
}

TEST_F(KittenPrograms, ShellsInterpretersAndSimulationsRunUnmodified) {
  host("k");
  std::uint64_t before = count_of("k", "memoryFree");
  const std::string script = R"(
    a=$(seq 1 5 | while read x; do echo $((x*x)); done | paste -sd+); echo $a = $(($a))
    cat <<END | wc -l
one
two
END
    (sleep 0.1; echo background) & wait; echo waited $?
    trap 'echo trapped' USR1; kill -USR1 $$
    bash -c 'kill -9 $$' 2>/dev/null; echo $?
    timeout 0.2 sleep 5; echo $?
    printf '%s\n' c a b | sort | tr a-z A-Z
    ls /usr/bin/env && stat -c %s /usr/bin/env && sha256sum < /usr/bin/env
    find /etc -maxdepth 1 -name 'host*' | sort
  )";
  const std::string python = R"(
import threading, subprocess, sqlite3, socket, os, multiprocessing, time
found = []
def work(n): found.append((n, sum(i * n for i in range(20000))))
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(found))
print(subprocess.run('echo shell | tr a-z A-Z', shell=True, capture_output=True, text=True).stdout)
cat = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(cat.communicate(b'piped'), cat.returncode)
db = sqlite3.connect('/tmp/kitten.db'); db.execute('create table t(a)')
db.executemany('insert into t values(?)', [(i * i,) for i in range(100)]); db.commit()
print(db.execute('select sum(a) from t').fetchone()); db.close(); os.unlink('/tmp/kitten.db')
listening = socket.socket(); listening.bind(('127.0.0.1', 0)); listening.listen()
def serve():
    peer, _ = listening.accept(); peer.sendall(peer.recv(100).upper()); peer.close()
server = threading.Thread(target=serve); server.start()
client = socket.create_connection(listening.getsockname()); client.sendall(b'socket')
print(client.recv(100)); server.join()
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, -2, -3]))
)";
  const std::vector<std::vector<std::string>> commands = {
      {"/bin/bash", "-c", script},
      {"/usr/bin/python3", "-c", python},
      {"/usr/bin/env", "OMPI_MCA_ess_singleton_isolated=1", "OMPI_ALLOW_RUN_AS_ROOT=1",
       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", programs + "lammps"}};
  for (const auto& command : commands) {
    Outcome on_linux = node.run(command, 120), on_kitten = inside("k", command, 120);
    ASSERT_EQ(on_linux.wait_status, 0) << command.front() << on_linux.err;
    EXPECT_EQ(on_kitten.wait_status, 0) << command.front() << on_kitten.err << console("k");
    EXPECT_EQ(on_kitten.out, on_linux.out) << command.front();
  }
  Json cores = *parse_json(
      inside("k", {"/usr/bin/python3", "-c", "import os; print(sorted(os.sched_getaffinity(0)))"})
          .out,
      "affinity");
  EXPECT_EQ(cores.size(), 2U) << "a program sees the enclave's cores: " << to_text(cores);
  expect_memory_back("k", before);
}

TEST_F(KittenPrograms, HostileProgramsHurtOnlyThemselves) {
  Sample sample;
  host("k", {{"hobbes", {{"cores", {{"count", 1}}}}}});
  Outcome made = node.create(
      "other",
      program_bundle("other", {"/bin/sleep", "100000"},
                     {{"hobbes", {{"cores", {{"count", 1}}}, {"memory", {{"size", "64MiB"}}}}}}));
  ASSERT_EQ(made.wait_status, 0) << made.err;
  node.good({"hobbes-run", "start", "other"});
  std::uint64_t before = count_of("k", "memoryFree");
  const std::map<std::string, int> ends = {
      {"stack", SIGSEGV}, {"data", SIGSEGV}, {"descriptors", 0}, {"fork", 0},   {"threads", 0},
      {"exec", 0},        {"race", -1},      {"view", -1},       {"memory", -1}};
  for (const auto& [what, how] : ends) {
    Outcome ended = inside("k", {programs + "hostile", what}, 40);
    if (how >= 0) {
      EXPECT_EQ(WEXITSTATUS(ended.wait_status), how == 0 ? 0 : 128 + how) << what << ended.err;
    }
    expect_alive("k", what);
    expect_alive("other", what);
  }
  for (int i = 0; i < Sample::of(16); ++i) {
    std::string seed = std::to_string(sample.number());
    // It may have blocked every signal but this one, and then wait for ever.
    (void)inside(
        "k", {"/usr/bin/timeout", "-s", "KILL", "25", programs + "hostile", "calls", seed, "3000"});
    expect_alive("k", "random calls of seed " + seed);
    expect_alive("other", "random calls of seed " + seed);
  }
  expect_memory_back("k", before);
}

TEST_F(KittenPrograms, AComputingProgramTakesNoInterrupts) {
  host("k");
  // While the first one begins, its core is the busier one, and the next goes to core 0.
  ::sleep(2);
  std::thread program([&] {
    // Longer than both looks take on a busy machine.
    Outcome computed = inside("k", {programs + "compute", "18"}, 90);
    EXPECT_EQ(computed.wait_status, 0) << computed.err;
  });
  ::sleep(4);
  Json before = statistics("k")["interrupts"];
  ::sleep(8);
  Json after = statistics("k")["interrupts"];
  program.join();
  // Core 0 takes the doorbells; the program is on the other one.
  ASSERT_EQ(before.size(), 2U);
  EXPECT_EQ(before[1], after[1]);
}

TEST_F(KittenPrograms, ATimeSliceSharesACoreBetweenProgramsThatOnlyCompute) {
  host("k", {{"hobbes", {{"cores", {{"count", 1}}}, {"image", {{"cmdline", "slice=20000000"}}}}}});
  Outcome first, second;
  std::thread other([&] { first = inside("k", {programs + "compute", "12"}, 120); });
  ::sleep(4);
  // Without a slice it could not even begin before the other has ended.
  second = inside("k", {programs + "compute", "1"}, 120);
  EXPECT_NE(node.good({"hobbes-run", "ps", "k"}).find("compute 12"), std::string::npos);
  other.join();
  EXPECT_EQ(first.wait_status, 0) << first.err;
  EXPECT_EQ(second.wait_status, 0) << second.err;
}

TEST_F(KittenPrograms, CoresComeAndGoWhileProgramsRun) {
  host("k");
  const std::vector<std::string> count = {"/usr/bin/nproc"};
  EXPECT_EQ(inside("k", count).out, "2\n");
  node.good({"hobbes-run", "update", "--cores", "1", "k"});
  EXPECT_EQ(inside("k", count).out, "1\n");
  node.good({"hobbes-run", "update", "--cores", "2", "k"});
  EXPECT_EQ(inside("k", count).out, "2\n");
}

TEST_F(KittenPrograms, NothingStaysTakenOfAProcessThatIsKilledWhileProgramsRun) {
  Sample sample;
  const std::string work =
      "import os, threading, subprocess, mmap\n"
      "def work():\n"
      "  while True:\n"
      "    m = mmap.mmap(-1, 65536); m[0] = 1; m.close()\n"
      "    subprocess.run(['/bin/true'])\n"
      "threads = [threading.Thread(target=work) for i in range(3)]\n"
      "[t.start() for t in threads]\n";
  for (int i = 0; i < Sample::of(12); ++i) {
    const std::string id = "k" + std::to_string(i);
    Outcome made = node.create(id, program_bundle(id, {"/usr/bin/python3", "-c", work}));
    ASSERT_EQ(made.wait_status, 0) << made.err;
    node.good({"hobbes-run", "start", id});
    ::usleep(static_cast<useconds_t>(500'000 + sample.number() % 2'500'000));
    auto control = EnclaveRecord::load(record(id).folder(), "control");
    ASSERT_TRUE(control);
    const int victim = i % 3;
    if (victim == 0) ::kill(record(id).process.pid, SIGKILL);
    if (victim == 1) ::kill(control->process.pid, SIGKILL);
    if (victim == 2) node.kill_daemon();
    if (victim == 2) {
      EXPECT_TRUE(record(id).process.alive()) << "programs live without hobbesd";
      node.wake_daemon();
      node.good({"hobbes-run", "kill", id, "KILL"});
    }
    EXPECT_TRUE(eventually([&] { return !record(id).process.alive(); }, 20)) << victim;
    EXPECT_TRUE(eventually([&] { return !control->process.alive(); }, 20)) << victim;
    node.good({"hobbes-run", "delete", "--force", id});
    EXPECT_TRUE(eventually([&] { return all_is_back(); }, 20)) << linux_has();
  }
}

TEST_F(KittenPrograms, ACompositionJoinsRanksOnKittenAndOnLinuxInOneUniverse) {
  if (!Node::joins_mpi()) GTEST_SKIP() << "this build has no component for its Open MPI";
  const std::string folder = HOBBES_BUILD_DIR "/share/hobbes/melt/";
  std::string document = node.folder() + "/mixed.xml";
  ASSERT_TRUE(replace_file(document,
                           "<composition name=\"mixed\" mpiComm=\"universe\">"
                           "<enclave name=\"kitten\" bundle=\"" +
                               folder +
                               "kitten\" mpiComm=\"kitten\">"
                               "<app name=\"a\" path=\"" +
                               programs +
                               "universe\" ranks=\"2\"/></enclave>"
                               "<enclave name=\"linux\" bundle=\"" +
                               folder +
                               "analysis\" mpiComm=\"linux\">"
                               "<app name=\"b\" path=\"" +
                               programs +
                               "universe\" ranks=\"1\"/></enclave>"
                               "</composition>"));
  Outcome mixed = node.run({"remora", "run", "--init-timeout", "90", document}, 150);
  EXPECT_EQ(mixed.wait_status, 0) << mixed.out << mixed.err;
  for (const char* rank : {"[a:0] ok 0/3", "[a:1] ok 1/3", "[b:0] ok 2/3"})
    EXPECT_NE(mixed.out.find(rank), std::string::npos) << rank << " is missing: " << mixed.out;
}

TEST_F(KittenPrograms, HobbesRunKilledAnywhereLeavesNothingOfAProgramTaken) {
  Sample sample;
  std::string path = program_bundle("p", {"/bin/sleep", "1000"});
  for (int i = 0; i < Sample::of(24); ++i) {
    std::string delay = std::to_string(0.05 + 0.001 * (sample.number() % 900));
    node.run({"sh", "-c",
              "timeout -s KILL " + delay + " " HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " +
                  path + " k >/dev/null 2>&1 && timeout -s KILL " + delay +
                  " " HOBBES_BUILD_DIR "/bin/hobbes-run start k >/dev/null 2>&1"});
    node.good({"hobbes-run", "delete", "--force", "k"});
    ASSERT_TRUE(eventually([&] { return module_is_empty() && all_is_back(); }, 20))
        << "after " << delay << " s: " << linux_has();
  }
}

TEST_F(KittenPrograms, SharedMemoryOfLinuxIsOneWithItsOwn) {
  const std::string shared = "/dev/shm/kitten-" + std::to_string(::getpid());
  node.good({"/bin/sh", "-c", "mkdir -p " + shared + " && truncate -s 8192 " + shared + "/memory"});
  host("k", {{"mounts",
              {{{"destination", "/tmp"}, {"type", "tmpfs"}, {"source", "tmpfs"}},
               {{"destination", "/mnt"},
                {"type", "bind"},
                {"source", shared},
                {"options", {"bind", "rw"}}}}}});
  const std::string count =
      "import mmap, os, sys\n"
      "f = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(f, 8192)\n"
      "for i in range(int(sys.argv[2])): m[4096 + i] = m[i] + 1\n"
      "print(m[4096], m[4097], os.pread(f, 2, 4096))\n";
  node.good({"/usr/bin/python3", "-c", count, shared + "/memory", "1"});
  Outcome on_kitten = inside("k", {"/usr/bin/python3", "-c", count, "/mnt/memory", "2"});
  EXPECT_EQ(on_kitten.out, "1 1 b'\\x01\\x01'\n") << on_kitten.err << console("k");
  EXPECT_EQ(node.good({"/usr/bin/od", "-An", "-tx1", "-j4096", "-N2", shared + "/memory"}),
            " 01 01\n");
  node.good({"/bin/rm", "-r", shared});
}

TEST_F(KittenPrograms, ServicesAreCalledFromLinuxAndOnIt) {
  const std::string peer = programs + "fabric-peer";
  host("k");
  const std::string inside_k =
      HOBBES_BUILD_DIR "/bin/hobbes-run exec --env HOBBES_RUN_DIR=" + node.run_folder() + " k " +
      peer;
  node.good({"sh", "-c", peer + " serve on-linux >/dev/null 2>&1 </dev/null &"});
  node.good({"sh", "-c", inside_k + " serve on-kitten >/dev/null 2>&1 </dev/null &"});
  for (const char* service : {"on-linux", "on-kitten"})
    for (const std::string& from : {inside_k, peer})
      EXPECT_EQ(node.good({"sh", "-c", from + " call " + service + " 100"}), "100 answers\n")
          << service << " from " << from;
  EXPECT_NE(node.good({"hobbes", "services"}).find("on-kitten  service  node   k"),
            std::string::npos)
      << node.good({"hobbes", "services"});
  node.good({peer, "stop", "on-linux"});
  node.good({"hobbes-run", "delete", "--force", "k"});
  EXPECT_TRUE(eventually([&] { return node.good({"hobbes", "names", "--json"}) == "[]\n"; }));
}

TEST_F(KittenPrograms, LibrariesSeeTheEnclavesProcessorsAndMemoryAndNoOthers) {
  host("k");
  const std::string cpus = text_at(node.enclave("k"), "cpus");
  auto told = [&](const std::string& of_python) {
    Outcome outcome = inside("k", {"/usr/bin/python3", "-c", "import os, ctypes\n" + of_python});
    EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(told("print(os.cpu_count(), os.sysconf('SC_NPROCESSORS_CONF'))"), "2 2\n");
  EXPECT_EQ(inside("k", {"/bin/cat", "/sys/devices/system/cpu/online"}).out, cpus + "\n");
  EXPECT_EQ(inside("k", {"/bin/grep", "-c", "^processor", "/proc/cpuinfo"}).out, "2\n");
  EXPECT_EQ(inside("k", {"/bin/grep", "MemTotal", "/proc/meminfo"}).out,
            "MemTotal:         393216 kB\n");
  // hwloc, as Open MPI asks it: PUs and bytes.
  EXPECT_EQ(told("hwloc = ctypes.CDLL('libhwloc.so.15')\n"
                 "top = ctypes.c_void_p()\n"
                 "hwloc.hwloc_topology_init(ctypes.byref(top))\n"
                 "hwloc.hwloc_topology_load(top)\n"
                 "print(hwloc.hwloc_get_nbobjs_by_depth(top, "
                 "hwloc.hwloc_get_type_depth(top, 3)))\n"),
            "2\n");
  Outcome openmp = inside("k", {programs + "openmp"}), linux = node.run({programs + "openmp"});
  EXPECT_EQ(openmp.out.substr(0, 26), "2 processors, 2 threads, s") << openmp.out << openmp.err;
  EXPECT_EQ(openmp.out.substr(openmp.out.find("sum")), linux.out.substr(linux.out.find("sum")));
  // As it changes.
  node.good({"hobbes-run", "update", "--cores", "1", "k"});
  EXPECT_EQ(told("print(os.cpu_count(), os.sysconf('SC_NPROCESSORS_CONF'))"), "1 1\n");
  node.good({"hobbes-run", "update", "--cores", "2", "k"});
  node.good({"hobbes-run", "update", "--memory-size", "512MiB", "k"});
  EXPECT_EQ(told("print(os.cpu_count())"), "2\n");
  EXPECT_EQ(inside("k", {"/bin/grep", "MemTotal", "/proc/meminfo"}).out,
            "MemTotal:         524288 kB\n");
}

TEST_F(KittenPrograms, LibhobbesDoesInAProgramWhatItDoesInAnyEnclave) {
  const std::string peer = programs + "segment-peer";
  host("k", {{"hobbes",
              {{"cores", {{"count", 1}}},
               {"segments", {{{"name", "shared"}, {"size", "64KiB"}, {"access", "rw"}}}}}}});
  // This test's hobbesd is not where programs look by themselves.
  const std::vector<std::string> exec = {
      "hobbes-run", "exec", "--env", "HOBBES_RUN_DIR=" + node.run_folder(), "k", peer};
  auto peer_inside = [&](std::vector<std::string> args) {
    args.insert(args.begin(), exec.begin(), exec.end());
    return node.run(args);
  };
  EXPECT_EQ(peer_inside({"find", "k"}).out, "k kind 2 state 3\n") << "the mirror is read";
  EXPECT_EQ(peer_inside({"count", "shared", "1000"}).out, "1000\n");
  EXPECT_EQ(node.good({peer, "count", "shared", "5"}), "1005\n") << "the same memory on Linux";
  Json by_rest = node.finished(
      node.rest("POST", "/v1/enclaves/k/exec", R"({"args":["sh","-c","exit 4"]})").second);
  EXPECT_EQ(number_at(by_rest, "exitCode"), 4) << "by REST: " << to_text(by_rest);
  Outcome rung;
  std::thread listener([&] { rung = peer_inside({"hear", "shared", "2"}); });
  EXPECT_TRUE(eventually([&] { return node.run({peer, "ring", "shared", "1"}).wait_status == 0; }));
  ::sleep(2);
  EXPECT_EQ(peer_inside({"ring", "shared", "2"}).wait_status, 0);
  listener.join();
  EXPECT_EQ(rung.out, "listens\nrang\nrang\n") << rung.err;

  Outcome made;
  std::thread maker([&] {
    made = node.run({"/bin/sh", "-c",
                     "(sleep 5; echo) | " HOBBES_BUILD_DIR
                     "/bin/hobbes-run exec --env HOBBES_RUN_DIR=" +
                         node.run_folder() + " k " + peer + " make own 65536 0600"});
  });
  EXPECT_TRUE(eventually([&] {
    return node.run({peer, "attach", "own", "ro"}).out.rfind("hello ", 0) == 0;
  })) << "a segment that a program on Kitten has made";
  maker.join();
  EXPECT_EQ(made.out.rfind("made ", 0), 0U) << made.err;

  node.good(
      {"sh", "-c", "{ sleep 30 | " + peer + " sweep swept 262144 small; } >/dev/null 2>&1 &"});
  EXPECT_TRUE(eventually([&] {
    return node.good({"hobbes", "segments"}).find("swept") != std::string::npos;
  }));
  Outcome taken = peer_inside({"snapshot", "swept", "3"});
  EXPECT_EQ(taken.out.substr(0, 10), "3 instants") << "what Linux goes on writing: " << taken.err;
  EXPECT_NE(peer_inside({"sweep", "own", "4096", "small"}).err.find("no userfaultfd"),
            std::string::npos)
      << "writes on Kitten are not watched";

  std::string child = node.bundle("child", "sleep 1000");
  Outcome managed = node.run(
      {"hobbes-run", "run", "--bundle",
       program_bundle(
           "m", {peer, "manage", child},
           {{"process", {{"env", {"PATH=/usr/bin:/bin", "HOBBES_RUN_DIR=" + node.run_folder()}}}},
            {"hobbes",
             {{"manage", "node"}, {"memory", {{"size", "128MiB"}}}, {"cores", {{"count", 1}}}}}}),
       "manager"},
      120);
  EXPECT_EQ(managed.wait_status, 0) << managed.err;
  EXPECT_NE(managed.out.find("managed\n"), std::string::npos)
      << "a program on Kitten makes, resizes and ends an enclave: " << managed.out;
}

}  // namespace
}  // namespace hobbes::test
