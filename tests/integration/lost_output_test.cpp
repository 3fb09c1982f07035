// The class of output that is lost without a word: a stream that is full for a moment is waited
// for, and one that fails is an error in every command.
#include <fcntl.h>
#include <sys/socket.h>

#include "security/attacker.h"

namespace hobbes::test {
namespace {

struct Collected {
  std::string text;
  int status = -1;
  bool ended = false;
};

// Runs a command line with a standard output that never makes its writer wait, and reads from it
// slowly at first, for at most 60 s.
Collected slowly(const std::string& command) {
  Collected out;
  int pair[2];
  EXPECT_EQ(::pipe2(pair, O_CLOEXEC), 0);
  Fd reads(pair[0]), writes(pair[1]);
  ::fcntl(writes.get(), F_SETFL, O_NONBLOCK);
  pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    ::dup2(writes.get(), 1);
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  writes.reset();
  ::usleep(700'000);
  ::fcntl(reads.get(), F_SETFL, O_NONBLOCK);
  out.ended = eventually(
      [&] {
        char chunk[65536];
        for (ssize_t n = 0; (n = ::read(reads.get(), chunk, sizeof chunk)) > 0;) {
          out.text.append(chunk, static_cast<std::size_t>(n));
          if (out.text.size() < (1 << 18)) ::usleep(2000);
        }
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid == child;
      },
      60);
  char chunk[65536];
  for (ssize_t n = 0; (n = ::read(reads.get(), chunk, sizeof chunk)) > 0;)
    out.text.append(chunk, static_cast<std::size_t>(n));
  ::kill(-child, SIGKILL);
  ::waitpid(child, &out.status, 0);
  return out;
}

long lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

const std::string bin = HOBBES_BUILD_DIR "/bin/";
constexpr long many = 40000;
const std::string print_many =
    "i=0; while [ $i -lt 40000 ]; do echo line number $i of many; i=$((i+1)); done";

class LostOutput : public ::testing::Test {
 protected:
  LostOutput() {
    node.wake_daemon();
    node.good({"mkfifo", silent()});
  }
  // Standard input from which nothing ever comes, and which never ends, when opened for both
  // reading and writing.
  [[nodiscard]] std::string silent() const { return node.folder() + "/silent"; }
  [[nodiscard]] std::string composition(const std::string& script) const {
    std::string folder = node.bundle(
        "one", "true", {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}}}}}});
    EXPECT_TRUE(replace_file(folder + "/app", "#!/bin/sh\n" + script + "\n", 0755));
    std::string path = node.folder() + "/c.xml";
    EXPECT_TRUE(replace_file(path,
                             "<composition name=\"lost\"><enclave name=\"one\" bundle=\"one\"><app "
                             "name=\"a\" mpi=\"no\" path=\"" +
                                 folder + "/app\" ranks=\"1\"/></enclave></composition>"));
    return path;
  }
  [[nodiscard]] std::string with_terminal(const std::string& script,
                                          const Json& more = Json::object()) const {
    Json patch = {{"hobbes", {{"cores", nullptr}}}, {"process", {{"terminal", true}}}};
    patch.update(more);
    return node.bundle("t", script, patch);
  }
  Node node;
};

TEST_F(LostOutput, OfARankIntoAStreamThatIsFullForAMoment) {
  Collected got = slowly(bin + "remora run -q --no-prefix --timeout 50 " + composition(print_many));
  EXPECT_TRUE(got.ended);
  EXPECT_EQ(got.status, 0);
  EXPECT_EQ(lines(got.text), many);
}

TEST_F(LostOutput, OfATerminalIntoAStreamThatIsFullForAMoment) {
  Collected got = slowly("exec " + bin + "hobbes-run run --bundle " + with_terminal(print_many) +
                         " a <> " + silent());
  EXPECT_TRUE(got.ended);
  EXPECT_EQ(got.status, 0);
  EXPECT_EQ(lines(got.text), many);
  (void)node.run({"hobbes-run", "delete", "--force", "a"});
}

TEST_F(LostOutput, OfAListIntoAStreamThatIsFullForAMoment) {
  // Records of enclaves that have ended, with long names, are enough to fill a pipe.
  std::string root = node.folder() + "/root";
  Json record = {{"version", 1},    {"bundle", std::string(300, 'b')},
                 {"kind", "linux"}, {"pid", 1},
                 {"startTicks", 1}, {"prepared", true}};
  for (int i = 0; i < 600; ++i) {
    std::string id = "enclave-" + std::to_string(i);
    ASSERT_TRUE(make_directories(root + "/" + id));
    record["id"] = id;
    ASSERT_TRUE(replace_file(root + "/" + id + "/record.json", to_text(record)));
  }
  for (const char* format : {"table", "json"}) {
    std::string command = bin + "hobbes-run --root " + root + " list --format " + format;
    std::string whole = node.good({"sh", "-c", command});
    Collected got = slowly(command);
    EXPECT_EQ(got.status, 0) << format;
    EXPECT_EQ(got.text.size(), whole.size()) << format;
  }
}

// A disk without room: what could not be written is said, and is no success.
struct Full {
  const char* name;
  std::string command;
};

TEST_F(LostOutput, OnAFullDiskIsAnError) {
  std::string plain = node.bundle("b", "echo a line", {{"hobbes", {{"cores", nullptr}}}});
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("s", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}), "there"});
  const Full all[] = {{"list", "hobbes-run list"},
                      {"list as JSON", "hobbes-run list --format json"},
                      {"state", "hobbes-run state there"},
                      {"ps", "hobbes-run ps there"},
                      {"events", "hobbes-run events --stats there"},
                      {"spec", "hobbes-run spec --print"},
                      {"features", "hobbes-run features"},
                      {"validate", "hobbes-run validate --bundle " + plain},
                      {"dry run", "hobbes-run create --dry-run --bundle " + plain + " x"},
                      {"remora", "remora run -q --timeout 20 " + composition("echo a line")},
                      {"remora validate", "remora validate " + composition("echo a line")},
                      {"a terminal", "hobbes-run run --bundle " + with_terminal("echo a line") +
                                         " a <> " + silent()},
                      {"nodes", "hobbes node"},
                      {"enclaves", "hobbes enclaves --json"}};
  for (const Full& one : all) {
    Outcome outcome = node.run({"sh", "-c", bin + one.command + " > /dev/full"}, 40);
    EXPECT_NE(outcome.wait_status, 0)
        << one.name << " has lost its output and says that all is well";
    EXPECT_NE(outcome.err.find("o space left"), std::string::npos)
        << one.name << ": " << outcome.err;
  }
  (void)node.run({"hobbes-run", "delete", "--force", "a"});
  node.good({"hobbes-run", "delete", "--force", "there"});
}

// The loop never waits for a reader of the output: time limits and signals are obeyed meanwhile.
TEST_F(LostOutput, AReaderThatStallsDoesNotHoldUpATimeLimit) {
  std::string path = composition("while :; do echo a line for nobody to read; done");
  std::string note = node.folder() + "/status";
  Background stalled(node, "stalled",
                     {"sh", "-c",
                      "(" + bin + "remora run --timeout 2 " + path + " 2>/dev/null; echo $? > " +
                          note + ") | sleep 60"});
  EXPECT_TRUE(eventually(
      [&] { return Files::system().read(note).value_or("").find('\n') != std::string::npos; }, 20))
      << "it goes on for ever";
  EXPECT_EQ(Files::system().read(note).value_or(""), "124\n");
}

TEST_F(LostOutput, AReaderThatStallsDoesNotHoldUpASignal) {
  std::string path = composition("while :; do echo a line for nobody to read; done");
  std::string note = node.folder() + "/status";
  Background stalled(node, "stalled",
                     {"sh", "-c",
                      "(" + bin + "remora run " + path + " 2>/dev/null & echo $! > " + note +
                          ".pid; wait $!; echo $? > " + note + ") | sleep 60"});
  ASSERT_TRUE(eventually([&] { return text_at(node.enclave("lost.one"), "state") == "created"; }));
  ::usleep(500'000);  // the pipe fills up
  pid_t remora = std::atoi(Files::system().read(note + ".pid").value_or("0").c_str());
  ASSERT_GT(remora, 1);
  ::kill(remora, SIGTERM);
  EXPECT_TRUE(eventually(
      [&] { return Files::system().read(note).value_or("").find('\n') != std::string::npos; }, 20))
      << "it is deaf";
  EXPECT_EQ(Files::system().read(note).value_or(""), "143\n");
}

// Without a process namespace of its own, the program ends by the signal even while it waits for
// room in the terminal; a shell's trap would wait for the end of that write.
TEST_F(LostOutput, AReaderOfATerminalThatStallsDoesNotHoldUpASignal) {
  std::string bundle =
      with_terminal("exec yes a line for nobody to read",
                    {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "ipc"}}}}}}});
  std::string note = node.folder() + "/status";
  Background stalled(
      node, "stalled",
      {"sh", "-c",
       "(" + bin + "hobbes-run run --bundle " + bundle + " a 2>/dev/null <> " + silent() +
           " & echo $! > " + note + ".pid; wait $!; echo $? > " + note + ") | sleep 60"});
  ASSERT_TRUE(eventually([&] { return text_at(node.enclave("a"), "state") == "running"; }));
  pid_t inside = static_cast<pid_t>(number_at(node.enclave("a"), "pid"));
  int waits = 0;
  EXPECT_TRUE(
      eventually([&] { return (waits = process_state(inside) == 'S' ? waits + 1 : 0) == 10; }, 15))
      << "the terminal never was full";
  pid_t run = std::atoi(Files::system().read(note + ".pid").value_or("0").c_str());
  ASSERT_GT(run, 1);
  ::kill(run, SIGTERM);
  EXPECT_TRUE(
      eventually([&] { return process_state(inside) == '\0' || process_state(inside) == 'Z'; }, 15))
      << "it is deaf";
  EXPECT_TRUE(eventually(
      [&] { return Files::system().read(note).value_or("").find('\n') != std::string::npos; }, 20))
      << "it goes on for ever";
  EXPECT_EQ(Files::system().read(note).value_or(""), "143\n");
  stalled.end();
  (void)node.run({"hobbes-run", "delete", "--force", "a"});
}

}  // namespace
}  // namespace hobbes::test
