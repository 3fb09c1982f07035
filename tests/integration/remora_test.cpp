// Compositions against the real Open MPI.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <thread>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

const std::string programs = HOBBES_BUILD_DIR "/tests/programs/";

// Two sibling enclaves of one core each; `inner` are the apps of the second, `outer` those of the
// first.
std::string composition(const Node& node, const std::string& outer, const std::string& inner,
                        const Json& patch = {}) {
  Json base = {
      {"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
      {"process", {{"capabilities", nullptr}}}};
  if (!patch.is_null()) base.merge_patch(patch);
  node.bundle("one", "true", base);
  node.bundle("two", "true", base);
  std::string path = node.folder() + "/c.xml";
  EXPECT_TRUE(replace_file(
      path,
      "<composition name=\"test\" mpiComm=\"universe\">\n<enclave name=\"one\" bundle=\"one\" "
      "mpiComm=\"first\">" +
          outer + "</enclave>\n<enclave name=\"two\" bundle=\"two\" mpiComm=\"second\">" + inner +
          "</enclave>\n</composition>\n"));
  return path;
}

std::string app(const std::string& name, const std::string& program, int ranks,
                const std::string& arguments = {}) {
  return "<app name=\"" + name + "\" path=\"" + programs + program + "\" ranks=\"" +
         std::to_string(ranks) + "\" argv=\"" + arguments + "\"/>";
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

void expect_nothing_left(const Node& node) {
  node.expect_clean();
  for (const std::string& name : Files::system().list("/dev/shm").value_or({}))
    EXPECT_EQ(name.find("-test"), std::string::npos) << "/dev/shm/" << name;
}

TEST(Remora, RanksOfAllAppsTalkThroughSharedMemory) {
  Node node;
  std::string out = node.good({"remora", "run", "-x", "OMPI_MCA_btl=^tcp",
                               composition(node, app("a", "universe", 2, "first=2 second=0"),
                                           app("b", "universe", 1, "first=0 second=1"))});
  EXPECT_EQ(count(out, "ok "), 3) << out;
  expect_nothing_left(node);
}

TEST(Remora, AProgramThatIsLinkedWithAnotherMpiIsRefusedBeforeAnythingIsTaken) {
  Node node;
  const std::string file =
      composition(node, app("a", "universe", 1, "first=1 second=0"), app("b", "other-mpi-rank", 1));
  for (std::vector<std::string> how : {std::vector<std::string>{}, {"--dry-run"}}) {
    how.insert(how.begin(), {"remora", "run"});
    how.push_back(file);
    auto result = node.run(how);
    EXPECT_FALSE(result.good());
    EXPECT_NE(result.err.find("other-mpi-rank is linked with MPICH"), std::string::npos)
        << result.err;
    EXPECT_NE(result.err.find("mpi=\"no\""), std::string::npos) << result.err;
  }
  expect_nothing_left(node);
}

TEST(Remora, TheUniverseAndEveryNamedSpaceAreAsTheDocumentSays) {
  Node node;
  std::string out = node.good({"remora", "run",
                               composition(node, app("a", "universe", 2, "first=2 second=0"),
                                           app("b", "universe", 1, "first=0 second=2") +
                                               app("c", "universe", 1, "first=0 second=2"))});
  EXPECT_EQ(count(out, "ok "), 4) << out;
  EXPECT_NE(out.find("[a:1] ok 1/4"), std::string::npos) << out;
  expect_nothing_left(node);
}

TEST(Remora, UnmodifiedProgramsInCAndCxxAndFortranSeeTheirOwnWorld) {
  Node node;
  std::string out =
      node.good({"remora", "run",
                 composition(node, app("c", "plain-c", 2) + app("cxx", "plain-cxx", 2),
                             app("fortran", "plain-fortran", 2))});
  for (const char* line :
       {"C rank 1 of 2", "C++ rank 1 of 2", "Fortran rank 1 of 2", "Fortran rank 0 of 2"})
    EXPECT_NE(out.find(line), std::string::npos) << line << "\n" << out;
  expect_nothing_left(node);
}

TEST(Remora, FortranProgramsHaveTheUniverseAndItsSpacesByAModule) {
  Node node;
  std::string out = node.good({"remora", "run",
                               composition(node, app("fortran", "universe-fortran", 2),
                                           app("other", "universe-fortran", 1))});
  for (const char* line : {"[fortran:1] rank 1 of 3, first of 2, fortran 0+2",
                           "[other:0] rank 2 of 3, first of 0, fortran 0+2"})
    EXPECT_NE(out.find(line), std::string::npos) << line << "\n" << out;
  expect_nothing_left(node);
}

TEST(Remora, EnclavesWithPidNamespacesOfTheirOwnExchangeLargeMessages) {
  Node node;
  Json patch = {
      {"linux",
       {{"namespaces",
         {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "pid"}}}}}}};
  std::string out =
      node.good({"remora", "run",
                 composition(node, app("a", "universe", 2), app("b", "universe", 2), patch)});
  EXPECT_EQ(count(out, "ok "), 4) << out;
  expect_nothing_left(node);
}

TEST(Remora, EnclavesWithUserNamespacesOfTheirOwnExchangeLargeMessages) {
  Node node;
  Json spaces = Json::array();
  for (const char* type : {"mount", "ipc", "uts", "user"}) spaces.push_back({{"type", type}});
  Json map = {{{"containerID", 0}, {"hostID", 0}, {"size", 65536}}};
  node.good(
      {"remora", "run",
       composition(
           node, app("a", "pingpong", 1), app("b", "pingpong", 1),
           {{"linux", {{"namespaces", spaces}, {"uidMappings", map}, {"gidMappings", map}}}})});
  expect_nothing_left(node);
}

TEST(Remora, EightRanksOnTwoCoresYieldToEachOther) {
  Node node;
  std::string out = node.good(
      {"remora", "run", composition(node, app("a", "universe", 4), app("b", "universe", 4))});
  EXPECT_EQ(count(out, "ok "), 8) << out;
}

TEST(Remora, InstancesOfAnEnclaveAreEnclavesOfTheirOwn) {
  Node node;
  std::string path = composition(node, app("a", "universe", 1), app("b", "universe", 1));
  std::string text = *Files::system().read(path);
  text = text.substr(0, text.find("<enclave name=\"one\"")) +
         "<enclave name=\"many\" num=\"2\" bundle=\"one\" mpiComm=\"many\">" +
         app("x", "universe", 2, "many=4") + "</enclave></composition>";
  ASSERT_TRUE(replace_file(path, text));
  EXPECT_EQ(count(node.good({"remora", "run", path}), "ok "), 4);
  expect_nothing_left(node);
}

TEST(Remora, AnExistingEnclaveIsUsedAndLeftAsItWas) {
  Node node;
  Json patch = {
      {"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}, {{"type", "uts"}}}}}},
      {"process", {{"capabilities", nullptr}}}};
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("old", "exec sleep 1000", patch), "old"});
  std::string path = node.folder() + "/c.xml";
  ASSERT_TRUE(replace_file(path, "<composition name=\"test\"><enclave name=\"e\" use=\"old\">" +
                                     app("x", "universe", 2) + "</enclave></composition>"));
  EXPECT_EQ(count(node.good({"remora", "run", path}), "ok "), 2);
  EXPECT_EQ(text_at(node.enclave("old"), "state"), "running");
  node.good({"hobbes-run", "delete", "--force", "old"});
  expect_nothing_left(node);
}

struct Failure {
  const char* how;
  int status;
  const char* says;
};

void PrintTo(const Failure& failure, std::ostream* out) { *out << failure.how; }

class RemoraFailure : public ::testing::TestWithParam<Failure> {};

TEST_P(RemoraFailure, EndsWithinTenSecondsWithTheCulpritNamed) {
  Node node;
  Failure failure = GetParam();
  std::string path = composition(node, app("good", "misbehave", 2, failure.how),
                                 app("bad", "misbehave", 1, failure.how));
  auto begin = std::chrono::steady_clock::now();
  Outcome outcome = node.run({"remora", "run", path}, 30);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(exit_code_of(outcome.wait_status), failure.status) << outcome.err;
  EXPECT_NE(outcome.err.find("app \"bad\" in enclave \"two\""), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find(failure.says), std::string::npos) << outcome.err;
  EXPECT_LT(seconds, 13) << "10 s from the fault, and the time to start and clean up";
  expect_nothing_left(node);
}

INSTANTIATE_TEST_SUITE_P(
    Every, RemoraFailure,
    ::testing::Values(Failure{"abort", 42, "called MPI_Abort with code 42"},
                      Failure{"kill", 137, "signal 9"}, Failure{"segv", 139, "signal 11"},
                      Failure{"exit3", 3, "exit code 3"},
                      Failure{"exit0", 1, "without MPI_Finalize"},
                      Failure{"never-init-exit", 1, "without MPI_Init"},
                      Failure{"never-init-hang", 1, "has not reached MPI_Init"},
                      Failure{"finalize-early", 1, "is in MPI_Finalize while"}),
    [](const auto& test) {
      std::string name = test.param.how;
      std::erase(name, '-');
      return name;
    });

TEST(Remora, SegmentsOfACompositionAreToldFromOthers) {
  Node node;
  node.wake_daemon();
  const std::string peer = programs + "segment-peer";
  node.good({"sh", "-c", "{ sleep 20 | " + peer + " make outside 4096 0666; } >/dev/null 2>&1 &"});
  ASSERT_TRUE(replace_file(node.folder() + "/ask.py",
                           "import json, socket, time\n"
                           "def ask(name):\n"
                           "  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
                           "  s.connect('" +
                               node.run_folder() +
                               "/control.sock')\n"
                               "  s.send(json.dumps({'op': 'segment.attach', 'name': name, "
                               "'access': 'ro', 'ofComposition': True}).encode())\n"
                               "  return json.loads(s.recv(65536)).get('error', {'code': 'ok', "
                               "'cause': ''})\n"
                               "for name in ['inside', 'outside']:\n"
                               "  for i in range(100):\n"
                               "    answer = ask(name)\n"
                               "    if answer['code'] != 'not found': break\n"
                               "    time.sleep(0.1)\n"
                               "  print(name, answer['code'], answer['cause'])\n"));
  auto script = [](const std::string& name, const std::string& text) {
    return "<app name=\"" + name + "\" path=\"/bin/sh\" ranks=\"1\" mpi=\"no\"><arg>-c</arg><arg>" +
           text + "</arg></app>";
  };
  std::string out =
      node.good({"remora", "run",
                 composition(node, script("maker", "sleep 5 | " + peer + " make inside 4096 0666"),
                             script("asker", "python3 " + node.folder() + "/ask.py"),
                             {{"mounts", Json::array({{{"destination", node.folder()},
                                                       {"type", "bind"},
                                                       {"source", node.folder()},
                                                       {"options", {"bind"}}}})}})});
  EXPECT_NE(out.find("inside ok"), std::string::npos) << out;
  EXPECT_NE(out.find("outside denied it was not made in an enclave of the same composition"),
            std::string::npos)
      << out;
}

// The ranks' ends are all waiting when the PMIx library looks at its connections next.
TEST(Remora, RanksThatDieWhileOthersFinalizeDoNotHurtTheLauncher) {
  Node node;
  std::string path = composition(node, app("good", "misbehave", 2, "finalize-early"),
                                 app("bad", "misbehave", 1, "finalize-early"));
  pid_t launcher = ::fork();
  if (launcher == 0) {
    ::setenv("MALLOC_PERTURB_", "165", 1);  // mallopt(3): freed memory is overwritten
    ::execl(HOBBES_BUILD_DIR "/bin/remora", "remora", "run", "-q", path.c_str(), nullptr);
    ::_exit(1);
  }
  EXPECT_TRUE(eventually(
      [&] {
        std::string stacks = node.run({"remora", "where"}).out;
        return stacks.find("ompi_mpi_finalize") != std::string::npos &&
               count(stacks, "PMPI_Recv") == 2;
      },
      20))
      << node.run({"remora", "where"}).out;
  Json ranks = Json::parse(node.good({"remora", "ps", "--json"}))[0]["ranks"];
  ::kill(launcher, SIGSTOP);
  for (const Json& rank : ranks) {  // who waits in MPI_Finalize comes last
    pid_t pid = rank["pid"];
    ::kill(pid, SIGKILL);
    EXPECT_TRUE(eventually([&] { return process_state(pid) == 'Z' || process_state(pid) == 0; }));
  }
  ::kill(launcher, SIGCONT);
  int status = 0;
  ::waitpid(launcher, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "the launcher died of signal " << WTERMSIG(status);
  EXPECT_EQ(exit_code_of(status), 137);
  expect_nothing_left(node);
}

TEST(Remora, ALongWaitInFinalizeIsNoDeadlock) {
  Node node;
  node.good({"remora", "run",
             composition(node, app("a", "misbehave", 2, "late"), app("b", "misbehave", 1, "late"))},
            40);
}

TEST(Remora, ATimeLimitEndsItWithStatus124) {
  Node node;
  Outcome outcome = node.run(
      {"remora", "run", "--timeout", "2",
       composition(node, app("a", "misbehave", 1, "term"), app("b", "misbehave", 1, "term"))});
  EXPECT_EQ(exit_code_of(outcome.wait_status), 124);
  EXPECT_NE(outcome.err.find("time limit of 2 s"), std::string::npos) << outcome.err;
  expect_nothing_left(node);
}

TEST(Remora, StandardInputGoesToTheRankThatIsNamed) {
  Node node;
  std::string path =
      composition(node, app("a", "misbehave", 1, "stdin"), app("b", "misbehave", 1, "stdin"));
  Outcome outcome =
      node.run({"sh", "-c", "echo a line | " HOBBES_BUILD_DIR "/bin/remora run --stdin 1 " + path});
  EXPECT_NE(outcome.out.find("[b:0] read a line"), std::string::npos) << outcome.out << outcome.err;
  EXPECT_EQ(outcome.out.find("[a:0] read"), std::string::npos);
}

TEST(Remora, SignalsEndItAndAKilledLauncherLeavesNothing) {
  Node node;
  std::string path =
      composition(node, app("a", "misbehave", 2, "term"), app("b", "misbehave", 1, "term"));
  for (int number : {SIGTERM, SIGINT, SIGKILL}) {
    std::string out = node.folder() + "/out";
    pid_t child = ::fork();
    if (child == 0) {
      if (std::freopen(out.c_str(), "w", stdout) == nullptr ||
          std::freopen("/dev/null", "w", stderr) == nullptr)
        ::_exit(1);
      ::execl(HOBBES_BUILD_DIR "/bin/remora", "remora", "run", path.c_str(), nullptr);
      ::_exit(1);
    }
    EXPECT_TRUE(eventually(
        [&] { return count(Files::system().read(out).value_or(""), "ready") == 3; }, 20));
    EXPECT_TRUE(eventually([&] { return count(node.run({"remora", "ps"}).out, "in MPI") >= 3; }));
    ::kill(child, number);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(exit_code_of(status), 128 + number);
    auto over = [&] { return node.run({"remora", "ps"}).out == "no composition runs\n"; };
    auto gone = [&] { return node.run({"pgrep", "-f", programs + "misbehave"}).out.empty(); };
    if (number != SIGKILL) {
      EXPECT_TRUE(over());
      EXPECT_TRUE(gone()) << "ranks are left";
      continue;
    }
    EXPECT_TRUE(eventually(over)) << "a killed launcher leaves this to hobbesd";
    EXPECT_TRUE(eventually(gone)) << "ranks are left";
    EXPECT_TRUE(eventually([&] {
      return node.run({"hobbes", "enclaves", "--json"}).out == "[]\n";
    })) << "enclaves go with their launcher";
    node.good({"remora", "run", composition(node, app("a", "plain-c", 1), app("b", "plain-c", 1))});
  }
  expect_nothing_left(node);
}

TEST(Remora, WhereShowsTheStacksOfARunningComposition) {
  Node node;
  std::string path =
      composition(node, app("a", "misbehave", 1, "term"), app("b", "misbehave", 1, "term"));
  pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(1);
    ::execl(HOBBES_BUILD_DIR "/bin/remora", "remora", "run", "-q", path.c_str(), nullptr);
    ::_exit(1);
  }
  EXPECT_TRUE(eventually(
      [&] {
        return node.run({"remora", "where"}).out.find("pause") != std::string::npos;
      },
      20))
      << node.run({"remora", "where"}).out;
  ::kill(child, SIGTERM);
  ::waitpid(child, nullptr, 0);
}

// Bundles that others start: each takes its rank from the host when it is created, and they find
// each other.
TEST(LaunchHook, BundlesStartedOneByOneFormTheHostedComposition) {
  Node node;
  std::string path = node.folder() + "/open.xml";
  ASSERT_TRUE(replace_file(path,
                           "<composition name=\"open\"><enclave name=\"e\" mpiComm=\"e\"><app "
                           "name=\"x\" ranks=\"2\"/></enclave><enclave "
                           "name=\"f\"><app name=\"y\"/></enclave></composition>"));
  auto member = [&](const std::string& name, const std::string& app_name) {
    return node.bundle(
        name, "exec " + programs + "universe",
        {{"process", {{"capabilities", nullptr}}},
         {"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}}}}},
         {"hobbes",
          {{"cores", nullptr},
           {"remora", {{"composition", "open"}, {"app", app_name}, {"timeout", 10}}}}}});
  };
  // The first member comes before its host: it waits for it.
  std::string script =
      "(" HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " + member("m0", "x") + " m0 > " +
      node.folder() +
      "/m0.out 2>&1 &); sleep 0.5; " HOBBES_BUILD_DIR "/bin/remora host --timeout 30 " + path +
      " 2>&1 & " + "sleep 1; " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " +
      member("m1", "x") + " m1 & " HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " +
      member("m2", "y") + " m2; wait";
  Outcome outcome = node.run({"bash", "-c", script}, 60);
  std::string all =
      outcome.out + outcome.err + Files::system().read(node.folder() + "/m0.out").value_or("");
  EXPECT_EQ(count(all, "ok "), 3) << all;
  EXPECT_NE(all.find("composition \"open\" finished"), std::string::npos) << all;
  expect_nothing_left(node);
}

TEST(LaunchHook, AMissingHostOrPeerIsNamedWithinItsTime) {
  Node node;
  Json patch = {{"hobbes",
                 {{"cores", nullptr},
                  {"remora", {{"composition", "nowhere"}, {"app", "x"}, {"timeout", 1}}}}}};
  EXPECT_NE(node.run({"hobbes-run", "create", "--bundle", node.bundle("b", "true", patch), "a"})
                .err.find("nobody hosted it within 1 s"),
            std::string::npos);
  std::string path = node.folder() + "/open.xml";
  ASSERT_TRUE(replace_file(path,
                           "<composition name=\"open\"><enclave name=\"e\"><app name=\"x\" "
                           "ranks=\"2\"/></enclave></composition>"));
  Outcome outcome = node.run(
      {"bash", "-c",
       HOBBES_BUILD_DIR "/bin/remora host --peer-timeout 2 " + path +
           " & sleep 0.7; " HOBBES_BUILD_DIR "/bin/remora env open x > /dev/null; wait $!"},
      30);
  EXPECT_EQ(exit_code_of(outcome.wait_status), 1);
  EXPECT_NE(outcome.err.find("of app \"x\" has not joined within 2 s"), std::string::npos)
      << outcome.err;
  expect_nothing_left(node);
}

TEST(Remora, ThePosterIsRefusedAsPrintedAndValidWhenMended) {
  Node node;
  const std::string fixtures = HOBBES_SOURCE_DIR "/tests/fixtures/";
  Outcome printed =
      node.run({"remora", "validate", fixtures + "poster-composition-as-printed.xml"});
  EXPECT_EQ(exit_code_of(printed.wait_status), 1);
  EXPECT_NE(printed.out.find(":7: found </app>"), std::string::npos) << printed.out;
  std::string mended =
      node.good({"remora", "validate", fixtures + "poster-composition-mended.xml"});
  for (const char* space : {"universe", "simulation", "analysis", "tool"})
    EXPECT_NE(mended.find("  " + std::string(space)), std::string::npos) << mended;
  EXPECT_NE(mended.find("`remora run` would still need"), std::string::npos);
  EXPECT_EQ(
      exit_code_of(
          node.run({"remora", "run", fixtures + "poster-composition-mended.xml"}).wait_status),
      1);
}

// The shipped composition with other arguments for the simulation, as a file of the node.
std::string melt_with(const Node& node, const std::string& arguments) {
  const std::string folder = HOBBES_BUILD_DIR "/share/hobbes/melt";
  std::string xml = Files::system().read(folder + "/composition.xml").value_or("");
  auto replace = [&](const std::string& from, const std::string& to) {
    for (std::size_t at = xml.find(from); at != std::string::npos;
         at = xml.find(from, at + to.size()))
      xml.replace(at, from.size(), to);
  };
  replace("../../../libexec", HOBBES_BUILD_DIR "/libexec");
  replace("bundle=\"", "bundle=\"" + folder + "/");
  replace("argv=\"20000 100\"", "argv=\"" + arguments + "\"");
  EXPECT_TRUE(replace_file(node.folder() + "/melt.xml", xml));
  return node.folder() + "/melt.xml";
}

TEST(Melt, ItIsSteeredWhileItRuns) {
  Node node;
  node.wake_daemon();
  std::string share = node.folder() + "/share";
  ASSERT_TRUE(make_directories(share, 0777));
  const std::string document = melt_with(node, "6000 100");
  Outcome run;
  std::thread melts([&] { run = node.run({"remora", "run", "--share", share, document}, 100); });
  EXPECT_TRUE(eventually(
      [&] {
        return node.run({"hobbes", "call", "melt", "status"}).wait_status == 0;
      },
      30));
  EXPECT_EQ(node.good({"hobbes", "call", "melt", "set", R"({"every": 1000})", "--json"}),
            "{\"every\":1000}\n");
  Outcome refused = node.run({"hobbes", "call", "melt", "set", R"({"every": 0})"});
  EXPECT_EQ(exit_code_of(refused.wait_status), 1);
  melts.join();
  EXPECT_EQ(run.wait_status, 0) << run.err;
  std::ifstream table(share + "/rdf.csv");
  std::string line, last;
  int frames = -1;  // the first line has the names of the columns
  while (std::getline(table, line)) {
    last = line;
    ++frames;
  }
  EXPECT_LT(frames, 61) << "it has published less often";
  EXPECT_EQ(last.substr(last.find(',') + 1, 5), "6000,") << "and has come to its end";
}

// The example of the Python package, on the running melt.
TEST(Melt, APythonProgramFollowsItBySnapshots) {
  Node node;
  node.wake_daemon();
  std::string share = node.folder() + "/share";
  ASSERT_TRUE(make_directories(share, 0777));
  const std::string document = melt_with(node, "8000 200");
  Outcome run, followed;
  std::thread follower([&] {
    followed =
        node.run({"env", "PYTHONPATH=" HOBBES_SOURCE_DIR "/api/python", "PYTHONDONTWRITEBYTECODE=1",
                  "HOBBES_LIBRARY=" HOBBES_BUILD_DIR "/lib/libhobbes.so", "/usr/bin/python3",
                  HOBBES_SOURCE_DIR "/api/python/examples/melt.py", "4"},
                 100);
  });
  run = node.run({"remora", "run", "--share", share, document}, 100);
  follower.join();
  EXPECT_EQ(run.wait_status, 0) << run.err;
  EXPECT_EQ(followed.wait_status, 0) << followed.err;
  EXPECT_EQ(count(followed.out, "4000 atoms, neighbours at 1."), 4) << followed.out;
}

// The shipped composition, shortened, against LAMMPS's own compute rdf of the same steps.
// Tolerance: LAMMPS counts pairs of its neighbour list, which may be up to 20 steps old at its
// outer edge; inside, both count the same pairs in the same bins.
TEST(Melt, TheRdfAgreesWithLammpsOwn) {
  Node node;
  std::string share = node.folder() + "/share";
  ASSERT_TRUE(make_directories(share, 0777));
  const std::string document =
      melt_with(node, "400 100 /usr/share/lammps/examples/melt/in.melt " + share + "/lammps.rdf");
  node.good({"remora", "run", "--share", share, document}, 90);

  std::ifstream theirs(share + "/lammps.rdf"), ours(share + "/rdf.csv");
  std::map<long, std::vector<double>> reference;
  for (std::string line; std::getline(theirs, line);) {
    if (line[0] == '#') continue;
    long step = 0, rows = 0;
    ASSERT_EQ(std::sscanf(line.c_str(), "%ld %ld", &step, &rows), 2) << line;
    for (long i = 0; i < rows; ++i) {
      std::getline(theirs, line);
      double row = 0, r = 0, g = 0;
      ASSERT_EQ(std::sscanf(line.c_str(), "%lf %lf %lf", &row, &r, &g), 3) << line;
      reference[step].push_back(g);
    }
  }
  std::string line;
  std::getline(ours, line);
  int compared = 0;
  while (std::getline(ours, line)) {
    std::vector<double> fields;
    for (std::size_t at = 0; at < line.size();) {
      std::size_t end = std::min(line.find(',', at), line.size());
      fields.push_back(std::stod(line.substr(at, end - at)));
      at = end + 1;
    }
    auto at = reference.find(static_cast<long>(fields[1]));
    if (at == reference.end() || at->first == 0) continue;
    ASSERT_EQ(at->second.size(), fields.size() - 3);
    for (std::size_t bin = 0; bin + 3 < fields.size(); ++bin)
      EXPECT_NEAR(fields[bin + 3], at->second[bin], 0.002 + 0.005 * at->second[bin])
          << "step " << at->first << " bin " << bin;
    ++compared;
  }
  EXPECT_EQ(compared, 4);
  for (const char* file : {"rdf.png", "atoms.png"})
    EXPECT_GT(Files::system().read(share + "/" + file, 16 << 20).value_or("").size(), 10000U)
        << file;
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
