// What people meet first: suggestions, the doctor, events that say who and how, and a manager that
// rests when nothing happens.
#include "security/attacker.h"

namespace hobbes::test {
namespace {

TEST(Suggestions, AreMadeForCommandsOptionsAndIds) {
  Node node;
  node.good({"hobbes-run", "run", "--detach", "--bundle",
             node.bundle("b", "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}),
             "simulation"});
  struct Case {
    std::vector<std::string> words;
    const char* meant;
    int status;
  };
  const std::vector<Case> all = {
      {{"hobbes-run", "strat", "simulation"}, "'start'", 2},
      {{"hobbes-run", "lits"}, "'list'", 2},
      {{"hobbes-run", "create", "--bundel", "/tmp", "x"}, "'--bundle'", 2},
      {{"hobbes-run", "state", "simulatoin"}, "'simulation'", 1},
      {{"hobbes", "enclave"}, "'enclaves'", 2},
      {{"hobbes", "logs", "simulatio"}, "'simulation'", 1},
      {{"remora", "rnu", "x.xml"}, "'run'", 2},
      {{"remora", "run", "--tiemout", "5", "x.xml"}, "'--timeout'", 2}};
  for (const Case& one : all) {
    Outcome outcome = node.run(one.words);
    EXPECT_EQ(exit_code_of(outcome.wait_status), one.status) << one.words[1] << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(std::string("did you mean ") + one.meant), std::string::npos)
        << one.words[1] << ": " << outcome.err;
  }
  Outcome far = node.run({"hobbes-run", "completely-different"});
  EXPECT_EQ(far.err.find("did you mean"), std::string::npos) << far.err;
  node.good({"hobbes-run", "delete", "--force", "simulation"});
}

TEST(Shell, ErrorsAreJsonWhereOutputIs) {
  Node node;
  node.wake_daemon();
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"hobbes", "--json", "logs", "nobody"},
        {"remora", "--json", "ps", "nobody"},
        {"remora", "ps", "--json", "nobody"},
        {"hobbes", "--json", "nosuch"}}) {
    Outcome outcome = node.run(words);
    EXPECT_NE(outcome.wait_status, 0);
    Json said = parse_json(outcome.err, "standard error").value_or(Json::object());
    EXPECT_TRUE(said["error"].contains("cause")) << words[0] << ": " << outcome.err;
  }
}

TEST(Doctor, SaysWhatTheNodeCanHostAndWhatToDo) {
  Node node;
  node.wake_daemon();
  Outcome outcome = node.run({"hobbes", "--json", "doctor"});
  Json findings = parse_json(outcome.out, "findings").value_or(Json::array());
  std::set<std::string> topics;
  for (const Json& one : findings) {
    topics.insert(text_at(one, "topic"));
    EXPECT_TRUE(text_at(one, "level") == "ok" || !text_at(one, "remedy").empty()) << to_text(one);
  }
  for (const char* topic : {"kind linux", "kind kitten", "kind palacios", "control groups",
                            "hobbesd", "run directory", "policy", "users"})
    EXPECT_EQ(topics.count(topic), 1U) << topic << " in " << outcome.out;
  EXPECT_EQ(outcome.wait_status, 0) << outcome.out;
  EXPECT_NE(node.good({"hobbes", "doctor"}).find("runs and answers"), std::string::npos);

  ASSERT_EQ(::chmod(node.run_folder().c_str(), 0777), 0);
  Outcome open = node.run({"hobbes", "doctor"});
  EXPECT_NE(open.wait_status, 0) << "anybody can write to the run directory: " << open.out;
  EXPECT_NE(open.out.find("chmod"), std::string::npos) << open.out;
  ASSERT_EQ(::chmod(node.run_folder().c_str(), 0755), 0);
  node.kill_daemon();
  EXPECT_NE(node.run({"hobbes", "doctor"}).out.find("does not run"), std::string::npos);
}

TEST(Doctor, APolicyIsCheckedWithoutServing) {
  Node node;
  std::string policy = node.folder() + "/policy.json";
  ASSERT_TRUE(replace_file(policy, R"({"reservedCores": "0"})"));
  EXPECT_EQ(node.run({"hobbesd", "--check", "--config", policy}).wait_status, 0);
  EXPECT_EQ(node.run({"hobbesd", "--check", "--config",
                      HOBBES_SOURCE_DIR "/packaging/hobbesd.json.sample"})
                .wait_status,
            0)
      << "comments and all";
  ASSERT_TRUE(replace_file(policy, R"({"reservedCors": "0"})"));
  Outcome wrong = node.run({"hobbesd", "--check", "--config", policy});
  EXPECT_NE(wrong.wait_status, 0);
  EXPECT_NE(wrong.err.find("reservedCors"), std::string::npos) << wrong.err;
  EXPECT_EQ(node.daemon(), 0);
}

TEST(Events, NameAnEnclaveThatIsGoneAndSayHowItEnded) {
  Node node;
  node.wake_daemon();
  std::string bundle = node.bundle("b", "exit 7", {{"hobbes", {{"cores", nullptr}}}});
  EXPECT_EQ(
      exit_code_of(node.run({"hobbes-run", "run", "--bundle", bundle, "short-lived"}).wait_status),
      7);
  std::string said = node.good({"hobbes", "events"});
  std::size_t gone = said.find("gone");
  ASSERT_NE(gone, std::string::npos) << said;
  EXPECT_NE(said.find("short-lived", gone), std::string::npos) << "what is gone is named: " << said;
  EXPECT_NE(said.find("exit code 7"), std::string::npos) << said;
}

TEST(Events, AnEnclaveWhoseMemoryRanOutSaysSo) {
  Node node;
  std::string bundle =
      node.bundle("b", "x=$(head -c 200M /dev/zero | tr '\\0' x); echo ${#x}",
                  {{"hobbes", {{"cores", nullptr}, {"memory", {{"size", "32MiB"}}}}}});
  Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, "hungry"});
  EXPECT_EQ(exit_code_of(outcome.wait_status), 137) << outcome.err;
  EXPECT_NE(outcome.err.find("ran out"), std::string::npos) << outcome.err;
  node.good({"hobbes-run", "run", "--detach", "--bundle", bundle, "detached"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("detached"), "state") == "crashed"; }))
      << to_text(node.enclave("detached"));
  node.good({"hobbes-run", "delete", "detached"});
}

TEST(Top, ShowsWhatEnclavesAndTheirProcessesUse) {
  Node node;
  for (const auto& [id, script] :
       {std::pair{"busy", "while :; do :; done"}, std::pair{"idle", "exec sleep 1000"}}) {
    ASSERT_EQ(
        node.create(id, node.bundle(id, script, {{"hobbes", {{"cores", nullptr}}}})).wait_status,
        0);
    node.good({"hobbes-run", "start", id});
  }
  const Json seen = *parse_json(node.good({"hobbes", "top", "--json", "-d", "1"}), "top");
  ASSERT_EQ(seen["enclaves"].size(), 2U) << seen;
  const Json &busy = seen["enclaves"][0], &idle = seen["enclaves"][1];
  EXPECT_EQ(busy["id"], "busy") << "the busier one comes first";
  EXPECT_GT(busy["cpuPercent"], 20.0);
  EXPECT_LT(idle["cpuPercent"], 10.0);
  for (const Json& enclave : {busy, idle}) {
    EXPECT_GT(enclave["memory"], 0) << enclave;
    EXPECT_EQ(enclave["memoryLimit"], 256 << 20) << enclave;
    EXPECT_GE(enclave["processes"], 1) << enclave;
    EXPECT_TRUE(enclave.contains("faultsPerSecond")) << enclave;
  }
  ASSERT_EQ(seen["processes"].size(), 2U) << seen;
  EXPECT_EQ(seen["processes"][0]["enclave"], "busy");
  EXPECT_GT(seen["processes"][0]["cpuPercent"], 20.0);
  const std::string table = node.good({"hobbes", "top", "-n", "2", "-d", "0.2"});
  EXPECT_EQ(table.find("ENCLAVE"), 0U) << table;
  EXPECT_NE(table.find("GLOBAL ID"), table.rfind("GLOBAL ID")) << "two rounds: " << table;
}

TEST(Interference, NamesWhoTakesTimeFromAnEnclaveOnItsCores) {
  Node node;
  const Json one_core = {{"hobbes", {{"cores", {{"list", "1"}, {"count", nullptr}}}}}};
  Outcome made = node.create("a", node.bundle("a", "while :; do :; done", one_core));
  ASSERT_EQ(made.wait_status, 0) << made.err;
  node.good({"hobbes-run", "start", "a"});
  auto watched = [&](const std::string& seconds) {
    return *parse_json(node.good({"hobbes", "interference", "a", "-s", seconds, "--json"}),
                       "interference");
  };
  auto taken_by = [](const Json& found, const std::string& name) -> std::int64_t {
    for (const Json& one : found["programs"])
      if (one["name"] == name) return one["ns"];
    return 0;
  };
  // Nobody else is on the core, but for the kernel's own threads.
  const Json quiet = watched("1");
  EXPECT_EQ(quiet["cpus"], "1");
  EXPECT_GT(quiet["ranNs"], 500'000'000);
  const Json& interrupts = quiet["interrupts"];
  EXPECT_TRUE(std::any_of(interrupts.begin(), interrupts.end(), [](const Json& one) {
    return text_at(one, "name").find("timer") != std::string::npos;
  })) << interrupts;
  // A program of the node's that is bound to the same core.
  const std::string taker = node.folder() + "/taker";
  node.good({"cp", "/usr/bin/yes", taker});
  node.good({"sh", "-c",
             "timeout 20 taskset -c 1 " + taker + " >/dev/null 2>&1 & echo $! >" + node.folder() +
                 "/pid; sleep 0.3"});
  const Json loud = watched("2");
  EXPECT_GT(taken_by(loud, "taker"), 300'000'000) << loud;
  EXPECT_GT(loud["waitedNs"], 300'000'000) << loud;
  const std::string table = node.good({"hobbes", "interference", "a", "-s", "0.5"});
  EXPECT_NE(table.find("other programs"), std::string::npos) << table;
  EXPECT_NE(table.find("taker "), std::string::npos) << table;
  node.good({"sh", "-c", "kill $(cat " + node.folder() + "/pid)"});

  node.good({"hobbes-run", "kill", "a", "KILL"});
  EXPECT_TRUE(eventually([&] {
    return node.run({"hobbes", "interference", "a", "-s", "0.1"}).err.find("it does not run") !=
           std::string::npos;
  }));
  EXPECT_NE(node.run({"hobbes", "interference", "none"}).err.find("does not exist"),
            std::string::npos);
  node.good({"hobbes-run", "delete", "a"});
  node.expect_clean();
}

// Wake-ups disturb programs beside. The time of sleep is real, the count is the kernel's.
TEST(Manager, RestsWhenNothingHappens) {
  Node node;
  node.wake_daemon();
  std::string pid = std::to_string(node.daemon());
  auto waits = [&] {
    long sum = 0;
    for (const std::string& thread :
         Files::system().list("/proc/" + pid + "/task").value_or(std::vector<std::string>())) {
      std::string status =
          Files::system().read("/proc/" + pid + "/task/" + thread + "/status").value_or("");
      std::size_t at = status.find("\nvoluntary_ctxt_switches:");
      if (at != std::string::npos) sum += std::atol(status.c_str() + at + 25);
    }
    return sum;
  };
  ::usleep(1'500'000);  // what its start has left is done
  long before = waits();
  for (int i = 0; i < 40;
       ++i) {  // other processes of the node are born and end, which is not its concern
    if (::fork() == 0) ::_exit(0);
    ::usleep(100'000);
  }
  while (::waitpid(-1, nullptr, WNOHANG) > 0) continue;
  EXPECT_LE(waits() - before, 20) << "in some 4 s";
  std::size_t threads =
      Files::system().list("/proc/" + pid + "/task").value_or(std::vector<std::string>()).size();
  EXPECT_LE(threads, 8U);
}

// From what the build has made of the programs' own help.
TEST(Manuals, HaveEveryCommandAndNoPathOfTheBuild) {
  Node node;
  std::string folder = HOBBES_BUILD_DIR "/packaging/manuals";
  for (const char* page : {"hobbes.1", "hobbes-run.1", "remora.1", "hobbesd.8"}) {
    std::string text = Files::system().read(folder + "/man/" + page).value_or("");
    EXPECT_EQ(text.find(HOBBES_BUILD_DIR), std::string::npos) << page;
    EXPECT_EQ(text.find("@OPTIONS@"), std::string::npos) << page;
    for (const char* section : {".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS",
                                ".SH EXIT STATUS", ".SH SEE ALSO"})
      EXPECT_NE(text.find(section), std::string::npos) << page << " " << section;
  }
  EXPECT_NE(Files::system().read(folder + "/man/hobbes-run.1").value_or("").find(".SS update ID"),
            std::string::npos);
  // The shell itself says what it would complete.
  auto completed = [&](const std::string& program, const std::string& words) {
    return node.good({"bash", "-c",
                      "source " + folder + "/completions/" + program + "; COMP_WORDS=(" + program +
                          " " + words + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _" +
                          (program == "hobbes-run" ? std::string("hobbes_run") : program) +
                          "; echo \" ${COMPREPLY[*]} \""});
  };
  EXPECT_NE(completed("hobbes-run", "l").find(" list ls "), std::string::npos)
      << completed("hobbes-run", "l");
  EXPECT_NE(completed("hobbes-run", "update --cpu-").find(" --cpu-burst "), std::string::npos);
  EXPECT_NE(completed("remora", "run --out").find(" --output-filename "), std::string::npos);
}

}  // namespace
}  // namespace hobbes::test
