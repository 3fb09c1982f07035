// A real Slurm: jobs in containers become enclaves of their user, by the files of packaging/slurm.
#include "bundle/bundle.h"
#include "core/file.h"
#include "core/identity.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

class Slurm : public ::testing::Test {
 protected:
  Slurm() {
    bundle = node.busybox_bundle(
        "b", "true", {{"hobbes", {{"cores", {{"count", 1}}}, {"memory", {{"size", "64MiB"}}}}}});
    node.good({"chown", "-R", "nobody", bundle});
  }
  Outcome as_user(const std::string& commands, const std::string& kind = "") const {
    std::vector<std::string> words = {HOBBES_SOURCE_DIR "/tests/conformance/slurm", node.folder(),
                                      HOBBES_BUILD_DIR, "cd /; " + commands};
    if (!kind.empty()) words.push_back(kind);
    return node.run(words, 120);
  }
  // The user's enclaves have a folder and control groups of their own, which Node knows nothing of.
  // Slurm's node has ended, and its hobbesd with it, perhaps before that had taken the last group
  // away: the next one does.
  void expect_clean() const {
    EXPECT_EQ(Files::system().list(node.run_folder() + "/users/65534").value_or({}),
              std::vector<std::string>())
        << "enclaves are left";
    node.wake_daemon();
    EXPECT_TRUE(eventually([&] {
      return node
          .good({"find", "/sys/fs/cgroup", "-ignore_readdir_race", "-type", "d", "-name",
                 "user-" + hex(hash_of(node.run_folder()), 8) + "-*"})
          .empty();
    })) << "control groups are left";
    node.expect_clean();
  }
  std::string bundle_that_stays() const {
    std::string out = node.busybox_bundle("stays", "exec sleep 1000",
                                          {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}}}});
    node.good({"chown", "-R", "nobody", out});
    return out;
  }
  std::string log() const {
    return Files::system().read(node.folder() + "/slurm/slurmd.log", 1 << 20).value_or("");
  }
  Node node;
  std::string bundle;
};

TEST_F(Slurm, AStepInAContainerRunsInAnEnclaveOfItsUserAndItsStatusIsTheSteps) {
  Outcome outcome =
      as_user("srun --container=" + bundle + " /bin/sh -c 'echo in $(hostname); nproc; exit 7'");
  EXPECT_EQ(exit_code_of(outcome.wait_status), 7) << outcome.err << log();
  EXPECT_NE(outcome.out.find("\n1\n"), std::string::npos) << outcome.out;
  expect_clean();
}

// Its program is process 1 of its namespace and hears no SIGTERM; Slurm asks for its state and
// kills it as root.
TEST_F(Slurm, ACancelledStepLeavesNothingAlthoughItsProgramDoesNotHear) {
  Outcome outcome =
      as_user("srun --quiet --container=" + bundle +
              " /bin/sleep 1000 & while ! hobbes --json enclaves | grep -q running; do "
              "sleep 0.2; done; echo it runs; "
              "scancel --user nobody; wait; for i in $(seq 300); do [ \"$(hobbes "
              "--json enclaves)\" = '[]' ] && "
              "break; sleep 0.1; done; hobbes --json enclaves");
  EXPECT_EQ(outcome.out, "it runs\n[]\n") << outcome.err << log();
  // Slurm 22.05 asks for the kill; 24.11 signals the step's processes itself.
  EXPECT_TRUE(log().find("RunTimeKill rc:0") != std::string::npos ||
              log().find("_kill_proclist") != std::string::npos)
      << log();
  expect_clean();
}

// Two jobs of one user, each with an enclave that its program made in a state root of its own and
// did not delete.
TEST_F(Slurm, TheEpilogTakesAwayWhatItsJobLeftAndNothingElse) {
  std::string mine = node.folder() + "/mine";
  ASSERT_TRUE(make_directories(mine));
  node.good({"chown", "nobody", mine});
  auto make = [run = "hobbes-run --root " + mine + " run --detach --bundle " + bundle_that_stays() +
                     " "](const std::string& id) {
    return run + id + " </dev/null >/dev/null 2>&1; ";
  };
  std::string count = "hobbes --json enclaves | grep -c '\"id\"'";
  Outcome outcome = as_user(
      make("outside") + "srun --quiet sh -c '" + make("inside") +
      "echo made $(hobbes --json enclaves | grep -c id.*inside)'; for i in $(seq 100); do [ \"$(" +
      count + ")\" = 1 ] && break; sleep 0.1; done; " +
      "hobbes --json enclaves | grep '\"id\"'; hobbes-run --root " + mine +
      " delete --force outside");
  EXPECT_NE(outcome.out.find("made 1\n"), std::string::npos) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("\"outside\""), std::string::npos)
      << "of no job: " << outcome.out << outcome.err << log();
  EXPECT_EQ(outcome.out.find("\"inside\""), std::string::npos)
      << "its job has ended: " << outcome.out;
  expect_clean();
}

// What a user asks for with the options of the SPANK plugin.
class SlurmEnclave : public Slurm {
 protected:
  SlurmEnclave() {
    Json config = example_config(Kind::linux_, true);
    config["hostname"] = "inside";
    config["linux"]["namespaces"] = {{{"type", "mount"}}, {{"type", "uts"}}, {{"type", "pid"}}};
    config["process"]["user"] = {{"uid", 65534}, {"gid", 65534}};
    EXPECT_TRUE(make_directories(shown));
    EXPECT_TRUE(replace_file(shown + "/config.json", to_text(config)));
    EXPECT_TRUE(make_directories(work));
    node.good({"chown", "-R", "nobody", shown, work});
  }
  const std::string shown = node.folder() + "/shown", work = node.folder() + "/work";
};

TEST_F(SlurmEnclave, AStepRunsInItWithTheJobsFolderVariablesInputAndStatus) {
  Outcome outcome =
      as_user("cd " + work + "; echo hello | srun --quiet --enclave=" + shown +
              " --enclave-cores=1 --enclave-memory=64MiB sh -c 'cat; hostname; nproc; "
              "echo job $SLURM_JOB_ID task $SLURM_PROCID; pwd; echo x >made; exit 7'; "
              "echo status $?; cat made; srun --help | grep -o -e --enclave=BUNDLE");
  EXPECT_NE(outcome.out.find("hello\ninside\n1\njob "), std::string::npos)
      << outcome.out << outcome.err << log();
  EXPECT_NE(outcome.out.find(" task 0\n" + work + "\nstatus 7\nx\n--enclave=BUNDLE\n"),
            std::string::npos)
      << outcome.out << outcome.err;
  expect_clean();
}

TEST_F(SlurmEnclave, ABatchJobSaysItOnceForItsStepsAndEachTaskHasItsOwn) {
  Outcome outcome =
      as_user("cd " + work + "; sbatch --quiet --wait --output=out --enclave=" + shown +
              " --wrap 'hostname; srun hostname; srun --overcommit -n2 sh -c \"echo "
              "\\$(hostname) \\$SLURM_PROCID\" | sort'; cat out");
  EXPECT_EQ(outcome.out, "box\ninside\ninside 0\ninside 1\n") << outcome.err << log();
  expect_clean();
}

TEST_F(SlurmEnclave, ASignalReachesItsProgramAndACancelledStepLeavesNothing) {
  Outcome outcome = as_user(
      "srun --quiet --enclave=" + shown +
      " sh -c 'trap \"echo told; exit 3\" USR1; echo up; while :; do sleep 0.1; done' >" + work +
      "/out & while ! grep -q up " + work +
      "/out; do sleep 0.2; done; scancel --signal=USR1 --user "
      "nobody; wait $!; echo status $?; cat " +
      work +
      "/out; "
      "srun --quiet --enclave=" +
      shown +
      " sleep 1000 & while ! hobbes --json enclaves | grep -q "
      "running; do sleep 0.2; done; scancel --user nobody; wait; for i in $(seq 300); do [ "
      "\"$(hobbes --json enclaves)\" = '[]' ] && break; sleep 0.1; done; hobbes --json enclaves");
  EXPECT_EQ(outcome.out, "status 3\nup\ntold\n[]\n") << outcome.err << log();
  expect_clean();
}

// With Slurm's plugins for control groups: what a job may use, its enclaves may use, and no more.
class SlurmConfined : public SlurmEnclave {
 protected:
  Outcome confined(const std::string& commands) const { return as_user(commands, "cgroups"); }
  // Of a node whose jobs have all ended.
  static constexpr const char* rests =
      "for i in $(seq 300); do [ $(sinfo -h -o %t) = idle ] && [ -z \"$(squeue -h)\" ] && break; "
      "sleep 0.1; done; sinfo -h -o %t";
};

TEST_F(SlurmConfined, AnEnclaveIsInTheGroupsOfItsStep) {
  Outcome outcome = confined("srun --quiet -c1 --mem=200 --enclave=" + shown +
                             " sh -c 'cat /proc/self/cgroup; nproc'; " + rests);
  for (const char* controller : {":cpuset:", ":memory:", ":freezer:"}) {
    const std::size_t at = std::min(outcome.out.find(controller), outcome.out.size());
    const std::string line = outcome.out.substr(at, outcome.out.find('\n', at) - at);
    EXPECT_NE(line.find("/uid_65534/job_1/step_0/"), std::string::npos)
        << controller << outcome.out << outcome.err << log();
  }
  EXPECT_NE(outcome.out.find("\n1\nidle\n"), std::string::npos)
      << "one processor: " << outcome.out << outcome.err;
  expect_clean();
}

TEST_F(SlurmConfined, TheMemoryOfAnEnclaveIsTheJobs) {
  const std::string take = "python3 -c \"print(len(bytearray(300 << 20)) >> 20)\"";
  Outcome outcome = confined(
      "srun --quiet -c1 --mem=100 --enclave-memory=1GiB --enclave=" + shown + " sh -c '" + take +
      "'; echo status $?; srun --quiet -c1 --mem=1000 --enclave-memory=1GiB --enclave=" + shown +
      " sh -c '" + take + "'; " + rests);
  EXPECT_EQ(outcome.out.substr(0, 7), "status ") << outcome.out << outcome.err << log();
  EXPECT_EQ(outcome.out.find("status 0"), std::string::npos) << outcome.out << outcome.err << log();
  EXPECT_NE(outcome.err.find("or its job's, ran out"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.out.find("\n300\nidle\n"), std::string::npos)
      << outcome.out << outcome.err << log();
  expect_clean();
}

// Its enclave would hold the groups of the step, for whose end Slurm waits until it drains the
// node.
TEST_F(SlurmConfined, AnEnclaveThatAStepLeavesEndsWithItAndTheNodeServesOn) {
  Outcome outcome = confined("srun --quiet -c1 --mem=200 sh -c 'hobbes-run run --detach --bundle " +
                             bundle_that_stays() +
                             " left </dev/null >/dev/null 2>&1; hobbes --json enclaves | grep -c "
                             "running'; " +
                             rests + "; srun --quiet -c1 echo well");
  EXPECT_EQ(outcome.out, "1\nidle\nwell\n") << outcome.out << outcome.err << log();
  EXPECT_EQ(log().find("not killable"), std::string::npos) << log();
  expect_clean();
}

TEST_F(SlurmConfined, ACancelledStepLeavesNoGroups) {
  Outcome outcome = confined("srun --quiet -c1 --mem=200 --enclave=" + shown +
                             " sleep 1000 & while ! hobbes --json enclaves | grep -q running; do "
                             "sleep 0.2; done; scancel --signal=KILL --user nobody; wait; " +
                             std::string(rests) + "; hobbes --json enclaves");
  EXPECT_EQ(outcome.out, "idle\n[]\n") << outcome.err << log();
  expect_clean();
}

// As after a crash of slurmd, which starts no epilog then. The id is of job 4711, which Slurm knows
// nothing of; what the user made otherwise stays.
TEST_F(SlurmEnclave, TheNextPrologTakesAwayWhatAJobWithoutAnEpilogLeft) {
  std::string make = "hobbes-run run --detach --bundle " + bundle_that_stays() + " ";
  Outcome outcome = as_user(make + "box.65534.4711.0.0 </dev/null >/dev/null 2>&1; " + make +
                            "mine </dev/null >/dev/null 2>&1; hobbes --json enclaves | grep -c "
                            "'\"id\"'; srun --quiet true; hobbes --json enclaves | grep '\"id\"'; "
                            "hobbes-run delete --force mine");
  EXPECT_EQ(outcome.out.substr(0, 2), "2\n") << outcome.err << log();
  EXPECT_EQ(outcome.out.find("4711"), std::string::npos) << outcome.out << log();
  EXPECT_NE(outcome.out.find("\"mine\""), std::string::npos) << outcome.out << outcome.err;
  expect_clean();
}

TEST_F(SlurmEnclave, AUsersMistakeIsToldInASentenceAndCostsTheNodeNothing) {
  Outcome outcome =
      as_user("for options in --enclave=/nowhere '--enclave=" + shown +
              " --enclave-kind=unicorn' '--enclave=" + shown +
              " --enclave-cores=1000' --enclave-cores=1; do srun $options true; echo "
              "status $?; done; for i in $(seq 50); do [ $(sinfo -h -o %t) = idle ] && "
              "break; sleep 0.2; done; sinfo -h -o %t; srun --quiet true && echo well");
  EXPECT_EQ(outcome.out.find("status 0"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.substr(outcome.out.size() - std::min<std::size_t>(10, outcome.out.size())),
            "idle\nwell\n")
      << outcome.out << outcome.err;
  for (const char* told : {"/nowhere", "unicorn", "1000"})
    EXPECT_NE(outcome.err.find(told), std::string::npos) << told << ": " << outcome.err;
  EXPECT_NE((outcome.err + log()).find("says nothing without --enclave=BUNDLE"), std::string::npos)
      << outcome.err << log();
  expect_clean();
}

}  // namespace
}  // namespace hobbes::test
