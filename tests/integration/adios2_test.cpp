// Unmodified programs of ADIOS2 whose steps travel through segments: the engine is named in their
// XML file only.
#include <signal.h>

#include <algorithm>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

const std::string adios2_peer = HOBBES_BUILD_DIR "/tests/programs/adios2-peer";
const std::string mpi_peer = HOBBES_BUILD_DIR "/tests/programs/adios2-mpi-peer";

class Adios2 : public ::testing::Test {
 protected:
  Adios2() { node.wake_daemon(); }
  // An XML file with parameters of the engine beside those that name it.
  std::string xml(const std::string& parameters = "", const std::string& library = "") const {
    const std::string path = node.folder() + "/coupling" + std::to_string(files_++) + ".xml";
    std::string text =
        "<?xml version=\"1.0\"?><adios-config><io name=\"coupling\"><engine type=\"plugin\">"
        "<parameter key=\"PluginName\" value=\"melt\"/>"
        "<parameter key=\"PluginLibrary\" value=\"" +
        (library.empty() ? "hobbes_adios2" : library) + "\"/>" + parameters +
        "</engine></io></adios-config>";
    EXPECT_TRUE(replace_file(path, text));
    return path;
  }
  static std::string parameter(const std::string& name, const std::string& value) {
    return "<parameter key=\"" + name + "\" value=\"" + value + "\"/>";
  }
  // In the background; `wait` tells its output and status.
  void start(const std::string& name, const std::string& command) const {
    const std::string base = node.folder() + "/" + name;
    node.good({"sh", "-c",
               "(" + environment() + command + " >" + base + ".out 2>" + base + ".err & echo $! >" +
                   base + ".pid; wait $!; echo $? >" + base + ".status) >/dev/null 2>&1 &"});
    EXPECT_TRUE(eventually([&] { return !file(name + ".pid").empty(); }));
  }
  std::string finished(const std::string& name, int seconds = 30) const {
    EXPECT_TRUE(eventually([&] { return !file(name + ".status").empty(); }, seconds))
        << name << ": " << file(name + ".out") << file(name + ".err");
    EXPECT_EQ(file(name + ".err"), "") << name;
    return file(name + ".out") + "status " + file(name + ".status");
  }
  void kill(const std::string& name) const {
    EXPECT_EQ(::kill(static_cast<pid_t>(std::stol(file(name + ".pid"))), SIGKILL), 0);
  }
  std::string file(const std::string& name) const {
    return Files::system().read(node.folder() + "/" + name, 1 << 20).value_or("");
  }
  static std::string environment() {
    return "export ADIOS2_PLUGIN_PATH=" HOBBES_BUILD_DIR "/lib; ";
  }
  Outcome run(const std::string& command) const {
    return node.run({"sh", "-c", environment() + command}, 60);
  }
  static std::string steps(const std::string& verb, int from, int to) {
    std::string out;
    for (int i = from; i < to; ++i) out += verb + " " + std::to_string(i) + "\n";
    return out;
  }
  Node node;

 private:
  mutable int files_ = 0;
};

TEST_F(Adios2, StepsGoFromAWriterToAReader) {
  start("writer", adios2_peer + " write " + xml() + " 20 1000");
  Outcome reader = run(adios2_peer + " read " + xml());
  EXPECT_EQ(reader.out, steps("read", 0, 20) + "end\n") << reader.err;
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 20) + "status 0\n");
  EXPECT_EQ(node.good({"hobbes", "segments", "--json"}), "[]\n") << "nothing is left";
}

TEST_F(Adios2, EveryShapeTypeAndSelectionArrives) {
  start("writer", adios2_peer + " write-kinds " + xml());
  Outcome reader = run(adios2_peer + " read-kinds " + xml());
  EXPECT_EQ(reader.out, "good\n") << reader.err;
  EXPECT_EQ(finished("writer"), "status 0\n");
}

TEST_F(Adios2, WritersAndReadersAreInEnclavesOfTheirOwn) {
  auto bundle = [&](const std::string& name, const std::string& command) {
    return node.bundle(
        name, "export HOBBES_RUN_DIR=" + node.run_folder() + "; " + environment() + command);
  };
  // Enclaves of the host's root have a /tmp of their own.
  const std::string file =
      HOBBES_BUILD_DIR "/tests/coupling-" + std::to_string(::getpid()) + ".xml";
  ASSERT_TRUE(replace_file(file, Files::system().read(xml(), 4096).value_or("")));
  start("writer", HOBBES_BUILD_DIR "/bin/hobbes-run run --bundle " +
                      bundle("w", "exec " + adios2_peer + " write " + file + " 5 50") +
                      " simulation");
  Outcome reader = node.run({"hobbes-run", "run", "--bundle",
                             bundle("r", "exec " + adios2_peer + " read " + file), "analysis"},
                            60);
  EXPECT_EQ(reader.out, steps("read", 0, 5) + "end\n") << reader.err;
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 5) + "status 0\n");
  ::unlink(file.c_str());
}

TEST_F(Adios2, AFullQueueBlocksTheWriter) {
  const std::string file = xml(parameter("QueueLimit", "2"));
  start("writer", adios2_peer + " write " + file + " 6 10");
  start("reader", adios2_peer + " read " + file + " 0.5");
  ASSERT_TRUE(eventually([&] { return this->file("reader.out").find("read 0") == 0; }));
  // The reader holds step 1 at most; two are in the queue.
  EXPECT_EQ(this->file("writer.out").find("wrote 4"), std::string::npos);
  EXPECT_EQ(finished("reader"), steps("read", 0, 6) + "end\nstatus 0\n");
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 6) + "status 0\n");
}

TEST_F(Adios2, AFullQueueDiscardsStepsWhereThatIsWanted) {
  const std::string file =
      xml(parameter("QueueLimit", "1") + parameter("QueueFullPolicy", "Discard"));
  start("writer", adios2_peer + " write " + file + " 40 10 0.05");
  Outcome reader = run(adios2_peer + " read " + file + " 0.3");
  EXPECT_EQ(reader.wait_status, 0) << reader.out << reader.err;
  EXPECT_NE(reader.out.find("read 0\n"), std::string::npos);
  EXPECT_EQ(reader.out.find("read 1\n"), std::string::npos) << "it was busy";
  EXPECT_GT(std::count(reader.out.begin(), reader.out.end(), '\n'), 3) << reader.out;
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 40) + "status 0\n");
}

TEST_F(Adios2, AReaderMayComeLate) {
  const std::string file = xml(parameter("RendezvousReaderCount", "0"));
  start("writer", adios2_peer + " write " + file + " 30 10 0.05");
  ASSERT_TRUE(
      eventually([&] { return this->file("writer.out").find("wrote 3") != std::string::npos; }));
  Outcome reader = run(adios2_peer + " read " + file);
  EXPECT_EQ(reader.out.find("read 0\n"), std::string::npos) << "what was before it came is gone";
  EXPECT_NE(reader.out.find("read 29\nend\n"), std::string::npos) << reader.out << reader.err;
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 30) + "status 0\n");
}

TEST_F(Adios2, SeveralReadersEachGetEveryStep) {
  const std::string file = xml(parameter("RendezvousReaderCount", "2"));
  start("one", adios2_peer + " read " + file);
  start("two", adios2_peer + " read " + file + " 0.02");
  Outcome writer = run(adios2_peer + " write " + file + " 10 100");
  EXPECT_EQ(writer.wait_status, 0) << writer.err;
  EXPECT_EQ(finished("one"), steps("read", 0, 10) + "end\nstatus 0\n");
  EXPECT_EQ(finished("two"), steps("read", 0, 10) + "end\nstatus 0\n");
}

TEST_F(Adios2, AReaderThatIsKilledHoldsNobodyUp) {
  const std::string file =
      xml(parameter("QueueLimit", "1") + parameter("RendezvousReaderCount", "2"));
  start("dies", adios2_peer + " read " + file + " 100");
  start("lives", adios2_peer + " read " + file);
  start("writer", adios2_peer + " write " + file + " 5 10");
  ASSERT_TRUE(eventually([&] { return this->file("writer.out").find("wrote 0") == 0; }));
  kill("dies");
  EXPECT_EQ(finished("lives"), steps("read", 0, 5) + "end\nstatus 0\n");
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 5) + "status 0\n");
}

TEST_F(Adios2, AWriterThatIsKilledIsToldToItsReaders) {
  const std::string file = xml();
  start("writer", adios2_peer + " write " + file + " 100 10 0.1");
  start("reader", adios2_peer + " read " + file);
  ASSERT_TRUE(
      eventually([&] { return this->file("reader.out").find("read 2") != std::string::npos; }));
  kill("writer");
  const std::string said = finished("reader");
  EXPECT_NE(said.find("status 3\nstatus 3\n"), std::string::npos)
      << "OtherError, not the end of the stream: " << said;
  EXPECT_TRUE(eventually([&] { return node.good({"hobbes", "segments", "--json"}) == "[]\n"; }));
}

TEST_F(Adios2, WhatCannotBeIsRefusedInASentence) {
  auto refusal = [&](const std::string& parameters) {
    Outcome outcome = run(adios2_peer + " read " + xml(parameters));
    EXPECT_EQ(WEXITSTATUS(outcome.wait_status), 4) << outcome.out;
    return outcome.err;
  };
  EXPECT_NE(refusal(parameter("OpenTimeoutSecs", "0.2")).find("adios.melt"), std::string::npos)
      << "there is no writer";
  EXPECT_NE(refusal(parameter("OpenTimeoutSecs", "soon")).find("OpenTimeoutSecs is 'soon'"),
            std::string::npos);
  EXPECT_NE(refusal(parameter("QueueFullPolicy", "Guess")).find("choose Block or Discard"),
            std::string::npos);
  EXPECT_NE(refusal(parameter("Mode", "999")).find("no octal number"), std::string::npos);
  Outcome alone =
      run(adios2_peer + " write " + xml(parameter("OpenTimeoutSecs", "0.05")) + " 1 10");
  EXPECT_NE(alone.err.find("there are not 1 readers in time"), std::string::npos) << alone.err;
}

TEST_F(Adios2, APythonProgramReadsIt) {
  const std::string file = xml();
  start("writer", adios2_peer + " write " + file + " 3 100");
  const std::string script = R"python(
import sys
import adios2
adios = adios2.Adios(sys.argv[1])
io = adios.declare_io("coupling")
total = 0
with adios2.Stream(io, "melt", "r") as stream:
    for _ in stream.steps():
        field = stream.read("field")
        assert field.shape == (100, 4), field.shape
        total += field[1, 2] % 1e6
print(total)
)python";
  Outcome reader = run("/usr/bin/python3 -c '" + script + "' " + file);
  EXPECT_EQ(reader.out, "18.0\n") << reader.err;
  EXPECT_EQ(finished("writer"), steps("wrote", 0, 3) + "status 0\n");
}

TEST_F(Adios2, RanksOfMpiProgramsShareAStream) {
  const std::string file = xml("", "hobbes_adios2_mpi"),
                    mpirun = "mpirun --allow-run-as-root --oversubscribe --mca btl self,sm -n ";
  start("writer", mpirun + "3 " + mpi_peer + " write " + file + " 4 7");
  Outcome reader = run(mpirun + "2 " + mpi_peer + " read " + file);
  EXPECT_EQ(reader.out, "ranks agree on 4 steps\n") << reader.err;
  EXPECT_EQ(finished("writer"), "status 0\n");
}

}  // namespace
}  // namespace hobbes::test
