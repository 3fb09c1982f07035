// Programs on remora's command line, as mpirun's users know it, and what ranks take over from their
// caller.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

const std::string remora = HOBBES_BUILD_DIR "/bin/remora";

class RemoraPrograms : public ::testing::Test {
 protected:
  RemoraPrograms() {
    node.wake_daemon();
    EXPECT_TRUE(make_directories(folder));
    EXPECT_TRUE(replace_file(
        folder + "/tell",
        "#!/bin/sh\necho \"$REMORA_APP:$REMORA_APP_RANK in $(pwd) with $* and ${MARK-nothing}\"\n",
        0755));
  }
  // Runs a command line of the shell in the folder.
  [[nodiscard]] Outcome sh(const std::string& line) const {
    return node.run({"sh", "-c", "cd " + folder + " && " + line});
  }
  Node node;
  std::string folder = node.folder() + "/submit";
};

TEST_F(RemoraPrograms, RunWithoutADocument) {
  Outcome outcome =
      sh(remora + " run -np 2 --no-mpi ./tell one 'two words' : -np 1 --no-mpi ./tell '<&>'");
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("[tell:1] tell:1 in " + folder + " with one two words and nothing"),
            std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("[tell-2:0] tell-2:0 in " + folder + " with <&> and nothing"),
            std::string::npos)
      << outcome.out;
}

TEST_F(RemoraPrograms, AreOneUniverse) {
  const std::string program = HOBBES_BUILD_DIR "/tests/programs/universe";
  Outcome outcome = sh(remora + " run --timeout 60 -np 2 " + program + " : -np 1 " + program);
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out << outcome.err;
}

TEST_F(RemoraPrograms, WriteWhereTheyWereStarted) {
  ASSERT_TRUE(replace_file(folder + "/write", "#!/bin/sh\necho written >here\n", 0755));
  EXPECT_EQ(sh(remora + " run -q -np 1 --no-mpi ./write").wait_status, 0);
  EXPECT_EQ(Files::system().read(folder + "/here").value_or(""), "written\n");
  EXPECT_NE(sh(remora + " run -q -np 1 --no-mpi --wdir / ./tell").out.find(" in / "),
            std::string::npos);
  std::string other = node.folder() + "/elsewhere";
  ASSERT_TRUE(make_directories(other));
  EXPECT_NE(sh(remora + " run -q -np 1 --no-mpi --wdir " + other + " ./tell")
                .out.find(" in " + other + " "),
            std::string::npos);
}

TEST_F(RemoraPrograms, HaveTheVariablesThatAreHandedOn) {
  EXPECT_NE(sh("MARK=set " + remora + " run -q -np 1 --no-mpi ./tell").out.find("and nothing"),
            std::string::npos)
      << "not every variable";
  EXPECT_NE(sh("MARK=set " + remora + " run -q -x MARK -np 1 --no-mpi ./tell").out.find("and set"),
            std::string::npos);
  EXPECT_NE(sh(remora + " run -q -x MARK=given -np 1 --no-mpi ./tell").out.find("and given"),
            std::string::npos);
  EXPECT_NE(sh("OMP_NUM_THREADS=3 " + remora + " run -q -np 1 --no-mpi printenv OMP_NUM_THREADS")
                .out.find("3"),
            std::string::npos);
  Outcome unset = sh(remora + " run -x NO_SUCH_VARIABLE -np 1 --no-mpi ./tell");
  EXPECT_NE(unset.wait_status, 0);
  EXPECT_NE(unset.err.find("NO_SUCH_VARIABLE"), std::string::npos) << unset.err;
}

TEST_F(RemoraPrograms, LeaveTheirOutputInAFolderThatIsNamed) {
  Outcome outcome =
      sh(remora + " run -q --timestamp-output --output-filename out -np 2 --no-mpi ./tell x");
  EXPECT_EQ(outcome.wait_status, 0);
  EXPECT_EQ(Files::system().read(folder + "/out/tell/1/stdout").value_or(""),
            "tell:1 in " + folder + " with x and nothing\n");
  EXPECT_EQ(Files::system().read(folder + "/out/tell/1/stderr").value_or("absent"), "");
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), ':') >= 8, true)
      << "with the time of day: " << outcome.out;
}

TEST_F(RemoraPrograms, SayWhereTheyAreBoundAndWhenTheyTakeTurns) {
  Outcome outcome = sh(remora + " run --report-bindings -np 2 --cores 1 --no-mpi ./tell");
  EXPECT_NE(outcome.err.find("tell:1 (rank 1 of the universe) is bound to CPUs"), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("1 CPU for 2 ranks"), std::string::npos) << outcome.err;
}

TEST_F(RemoraPrograms, TwiceAtOnceAreTwoCompositions) {
  Background first(node, "first",
                   {"sh", "-c", "exec " + remora + " run -q -np 1 --no-mpi sleep 30"});
  ASSERT_TRUE(eventually([&] {
    return node.run({"remora", "ps"}).out.find("composition sleep,") != std::string::npos;
  }));
  Outcome second = sh(remora + " run -np 1 --no-mpi sleep 0");
  EXPECT_EQ(second.wait_status, 0) << second.err;
  EXPECT_NE(second.err.find("\"sleep-2\""), std::string::npos) << second.err;
  Outcome named = sh(remora + " run --name sleep -np 1 --no-mpi sleep 0");
  EXPECT_NE(named.wait_status, 0) << "a name that was asked for is not exchanged for another";
  EXPECT_EQ(sh(remora + " run --name other -np 1 --no-mpi sleep 0").wait_status, 0);
}

TEST_F(RemoraPrograms, ThatCannotBeThereTogetherAreRefusedByADryRun) {
  EXPECT_EQ(sh(remora + " run --dry-run -np 1 --cores 1 --no-mpi ./tell").wait_status, 0);
  Outcome both =
      sh(remora +
         " run --dry-run -np 1 --cores 1 --no-mpi ./tell : -np 1 --cores 9999 --no-mpi ./tell");
  EXPECT_NE(both.wait_status, 0);
  std::string cpus = std::to_string(::sysconf(_SC_NPROCESSORS_ONLN));
  Outcome full =
      sh(remora + " run --dry-run -np 1 --memory 1MiB --cores 1 --no-mpi ./tell : -np 1 --cores " +
         cpus + " --no-mpi ./tell");
  EXPECT_NE(full.wait_status, 0) << "each fits, both together do not: " << full.out;
}

TEST_F(RemoraPrograms, ThatAreWrittenWronglyAreRefusedByTheirWord) {
  for (const auto& [line, word] :
       {std::pair{"-np 0 ./tell", "-np 0"}, std::pair{"-np many ./tell", "many"},
        std::pair{"-np 1", "no program"}, std::pair{"-np 1 ./tell : ", "':'"},
        std::pair{"-np 1 --speed 9 ./tell", "--speed"},
        std::pair{"-np 1 --cores 99999 ./tell", "99999"}, std::pair{"x.xml -np 1 ./tell", "x.xml"},
        std::pair{"-np 1 --bundle b --cores 1 ./tell", "--bundle"}, std::pair{"", "neither"}}) {
    Outcome outcome = sh(remora + " run " + line);
    EXPECT_NE(outcome.wait_status, 0) << line;
    EXPECT_NE(outcome.err.find(word), std::string::npos) << line << ": " << outcome.err;
  }
}

TEST_F(RemoraPrograms, ValidateReadsTheBundlesToo) {
  std::string document =
      R"(<composition name="v"><enclave name="one" bundle="b">
        <app name="a" path="/bin/true" mpi="no"/></enclave></composition>)";
  ASSERT_TRUE(replace_file(folder + "/v.xml", document));
  Outcome missing = sh(remora + " validate v.xml");
  EXPECT_EQ(missing.wait_status, 0);
  EXPECT_NE(missing.out.find("would still need"), std::string::npos) << missing.out;
  ASSERT_TRUE(make_directories(folder + "/b"));
  ASSERT_TRUE(replace_file(
      folder + "/b/config.json",
      R"({"ociVersion": "1.0.0", "hobbes": {"root": "host", "cores": {"count": -4}}})"));
  Outcome wrong = sh(remora + " validate v.xml");
  EXPECT_NE(wrong.wait_status, 0);
  EXPECT_NE(wrong.out.find("/hobbes/cores/count"), std::string::npos) << wrong.out;
}

}  // namespace
}  // namespace hobbes::test
