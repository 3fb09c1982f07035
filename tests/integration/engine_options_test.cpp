// The options that engines and people know from other runtimes do what they say, or are refused by
// name.
#include "partition/cgroup.h"
#include "security/attacker.h"

namespace hobbes::test {
namespace {

class EngineOptions : public ::testing::Test {
 protected:
  EngineOptions() {
    node.good({"hobbes-run", "run", "--detach", "--bundle",
               node.bundle("b", "exec sleep 1000",
                           {{"hobbes", {{"cores", nullptr}}}, {"linux", {{"cgroupsPath", path}}}}),
               "a"});
  }
  ~EngineOptions() override { (void)node.run({"hobbes-run", "delete", "--force", "a"}); }
  [[nodiscard]] Outcome exec(std::vector<std::string> options,
                             const std::vector<std::string>& command) const {
    options.insert(options.begin(), {"hobbes-run", "exec"});
    options.emplace_back("a");
    options.insert(options.end(), command.begin(), command.end());
    return node.run(options);
  }
  [[nodiscard]] Outcome update(std::vector<std::string> options) const {
    options.insert(options.begin(), {"hobbes-run", "update"});
    options.emplace_back("a");
    return node.run(options);
  }
  [[nodiscard]] bool unified() const { return !layout.v2.empty(); }
  [[nodiscard]] std::string folder(const std::string& controller) const {
    auto v1 = layout.v1.find(controller);
    return (unified() ? layout.v2 : v1 == layout.v1.end() ? std::string() : v1->second) + path;
  }
  // What the kernel has as the limit; empty when this node has no such file.
  [[nodiscard]] std::string limit(const std::string& controller, const std::string& v1,
                                  const std::string& v2) const {
    std::string text =
        Files::system().read(folder(controller) + "/" + (unified() ? v2 : v1)).value_or("");
    return text.substr(0, text.find('\n'));
  }
  Node node;
  std::string path = "/engine-options-" + std::to_string(::getpid());
  CgroupLayout layout = CgroupLayout::detect().value_or(CgroupLayout{});
};

TEST_F(EngineOptions, AdditionalGroupsOfExecAreThoseOfTheProgram) {
  EXPECT_EQ(
      exec({"--additional-gids", "123", "-g", "456", "--user", "1000:1000"}, {"id", "-G"}).out,
      "1000 123 456\n");
  std::string named = exec({"--additional-gids", "4321", "--user", "nobody"}, {"id", "-G"}).out;
  EXPECT_NE(named.find(" 4321"), std::string::npos) << "beside those of a user by name: " << named;
  EXPECT_NE(exec({"--additional-gids", "wheel"}, {"id", "-G"}).wait_status, 0);
  EXPECT_NE(exec({"--additional-gids", "4294967296"}, {"id", "-G"}).wait_status, 0);
}

TEST_F(EngineOptions, AProgramOfExecMayFollowTwoDashes) {
  EXPECT_EQ(exec({}, {"--", "echo", "--", "-e"}).out, "-- -e\n");
  EXPECT_EQ(node.good({"hobbes-run", "exec", "--cwd", "/tmp", "--", "a", "pwd"}), "/tmp\n");
}

TEST_F(EngineOptions, LabelsOfModulesThatAreNotThereAreRefusedByName) {
  Outcome apparmor = exec({"--apparmor", "some-profile"}, {"true"});
  EXPECT_NE(apparmor.wait_status, 0);
  EXPECT_NE(apparmor.err.find("AppArmor"), std::string::npos) << apparmor.err;
  Outcome label = exec({"--process-label", "a:b:c:s0"}, {"true"});
  EXPECT_NE(label.wait_status, 0);
  EXPECT_NE(label.err.find("SELinux"), std::string::npos) << label.err;
}

TEST_F(EngineOptions, DeleteTakesEveryEnclaveWhoseIdMatches) {
  for (const char* id : {"one-1", "one-2", "other"})
    node.good({"hobbes-run", "run", "--detach", "--bundle",
               node.bundle(id, "exec sleep 1000", {{"hobbes", {{"cores", nullptr}}}}), id});
  EXPECT_NE(node.run({"hobbes-run", "delete", "--regex", "^one-[0-9]$"}).wait_status, 0)
      << "they run";
  node.good({"hobbes-run", "delete", "--force", "--regex", "^one-[0-9]$"});
  EXPECT_EQ(node.good({"hobbes-run", "list", "-q"}), "a\nother\n");
  Outcome wrong = node.run({"hobbes-run", "delete", "--force", "--regex", "one-["});
  EXPECT_NE(wrong.wait_status, 0) << "no expression";
  node.good({"hobbes-run", "delete", "--force", "other"});
}

TEST_F(EngineOptions, TheCallersGroupsStayWhereItsAnnotationAsksForThem) {
  const std::string runtime = std::string(HOBBES_BUILD_DIR) + "/bin/hobbes-run";
  for (const auto& [id, annotations, expected] :
       {std::tuple{"kept", Json{{"run.oci.keep_original_groups", "1"}}, "0 11 12\n"},
        std::tuple{"dropped", Json::object(), "0\n"}})
    EXPECT_EQ(
        node.good({"setpriv", "--groups", "0,11,12", runtime, "run", "--bundle",
                   node.bundle(id, "id -G",
                               {{"hobbes", {{"cores", nullptr}}}, {"annotations", annotations}}),
                   id}),
        expected);
}

TEST_F(EngineOptions, SocketsOfAServiceManagerReachTheProgram) {
  const std::string script = "echo $LISTEN_FDS $LISTEN_PID $$; read line <&3; echo $line";
  const std::string bundle = node.bundle("b2", script, {{"hobbes", {{"cores", nullptr}}}});
  const std::string runtime = std::string(HOBBES_BUILD_DIR) + "/bin/hobbes-run";
  auto under = [&](const std::string& id, const std::string& setting) {
    return node.run({"sh", "-c",
                     "echo inherited >" + node.folder() + "/given; " + setting + " exec " +
                         runtime + " run --bundle " + bundle + " " + id + " 3<" + node.folder() +
                         "/given"});
  };
  EXPECT_EQ(under("l1", "LISTEN_FDS=1").out, "1 1 1\ninherited\n");
  EXPECT_EQ(under("l2", "LISTEN_FDS=1 LISTEN_PID=$$").out, "1 1 1\ninherited\n");
  EXPECT_EQ(under("l3", "LISTEN_FDS=1 LISTEN_PID=12345678").out.find("inherited"),
            std::string::npos)
      << "they are for another process";
  EXPECT_EQ(under("l4", "LISTEN_FDS=many").out.find("inherited"), std::string::npos);
}

TEST_F(EngineOptions, ExecEntersAGroupBelowTheEnclavesAndNoOther) {
  auto below = Cgroup(layout, path).make_subgroup("below");
  ASSERT_TRUE(below);
  EXPECT_NE(exec({"--cgroup", "below"}, {"cat", "/proc/self/cgroup"}).out.find("/below"),
            std::string::npos);
  for (const char* wrong : {"nosuch", "../..", "/../", "nosuch:below", ":below"}) {
    Outcome outcome = exec({"--cgroup", wrong}, {"true"});
    EXPECT_NE(outcome.wait_status, 0) << wrong;
    EXPECT_NE(outcome.err.find(wrong), std::string::npos) << outcome.err;
  }
  if (!unified()) {
    std::string said = exec({"--cgroup", "pids:below"}, {"grep", "below", "/proc/self/cgroup"}).out;
    EXPECT_NE(said.find("pids"), std::string::npos) << said;
    EXPECT_EQ(said.find("memory"), std::string::npos) << said;
  }
}

TEST_F(EngineOptions, ExecInAPausedEnclaveWaitsForItsResumeOnlyWhenAsked) {
  node.good({"hobbes-run", "pause", "a"});
  Outcome refused = exec({}, {"echo", "ran"});
  EXPECT_NE(refused.wait_status, 0);
  EXPECT_NE(refused.err.find("--ignore-paused"), std::string::npos) << refused.err;
  Outcome wrong = exec({"--ignore-paused", "--cgroup", "nosuch"}, {"true"});
  EXPECT_NE(wrong.wait_status, 0);
  EXPECT_FALSE(wrong.timed_out) << "what cannot be done is refused before anything is frozen";
  std::string note = node.folder() + "/ran";
  Background waiting(
      node, "waiting",
      {"sh", "-c",
       std::string(HOBBES_BUILD_DIR) + "/bin/hobbes-run exec --ignore-paused a echo ran >" + note});
  ::usleep(300'000);
  EXPECT_EQ(Files::system().read(note).value_or(""), "");
  node.good({"hobbes-run", "resume", "a"});
  EXPECT_TRUE(eventually([&] { return Files::system().read(note).value_or("") == "ran\n"; }));
}

TEST_F(EngineOptions, UpdateWritesEveryLimitThatTheKernelHas) {
  ASSERT_EQ(update({"--memory", "256MiB", "--memory-reservation", "64MiB"}).wait_status, 0);
  EXPECT_EQ(limit("memory", "memory.limit_in_bytes", "memory.max"), std::to_string(256 << 20));
  EXPECT_EQ(limit("memory", "memory.soft_limit_in_bytes", "memory.low"), std::to_string(64 << 20));
  ASSERT_EQ(
      update({"--cpu-period", "50000", "--cpu-quota", "25000", "--cpu-share", "512"}).wait_status,
      0);
  EXPECT_EQ(limit("cpu", "cpu.cfs_quota_us", "cpu.max"), unified() ? "25000 50000" : "25000");
  EXPECT_EQ(limit("cpu", "cpu.shares", "cpu.weight"), unified() ? "20" : "512");
  ASSERT_EQ(update({"--pids-limit", "77"}).wait_status, 0);
  EXPECT_EQ(limit("pids", "pids.max", "pids.max"), "77");
  for (const auto& [option, value, controller, v1, v2] :
       {std::tuple{"--cpu-burst", "1000", "cpu", "cpu.cfs_burst_us", "cpu.max.burst"},
        std::tuple{"--cpu-idle", "1", "cpu", "cpu.idle", "cpu.idle"},
        std::tuple{"--blkio-weight", "500", "blkio", "blkio.bfq.weight", "io.bfq.weight"},
        std::tuple{"--memory-swap", "536870912", "memory", "memory.memsw.limit_in_bytes",
                   "memory.swap.max"}}) {
    std::string before = limit(controller, v1, v2);
    if (before.empty() && controller == std::string("blkio") &&
        !limit("io", "", "io.weight").empty()) {  // 10 .. 1000 as 1 .. 10000
      EXPECT_EQ(update({option, value}).wait_status, 0);
      EXPECT_EQ(limit("io", "", "io.weight"), "default 4950");
      continue;
    }
    Outcome outcome = update({option, value});
    if (before.empty()) {
      EXPECT_NE(outcome.wait_status, 0)
          << option << " has no effect on this node and says that all is well";
      continue;
    }
    EXPECT_EQ(outcome.wait_status, 0) << option << ": " << outcome.err;
    bool swap_alone = unified() && std::string(option) == "--memory-swap";
    EXPECT_EQ(limit(controller, v1, v2).substr(0, 9),
              swap_alone ? std::to_string(256 << 20) : std::string(value))
        << option;
  }
  ASSERT_EQ(update({"--memory-reservation", "-1"}).wait_status, 0);
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--blkio-weight", "5000"},
                                                {"--cpu-idle", "7"},
                                                {"--memory", "-2"},
                                                {"--memory-swap", "lots"},
                                                {"--cpu-period", "-1"}})
    EXPECT_NE(update(wrong).wait_status, 0) << wrong[0] << " " << wrong[1];
}

TEST_F(EngineOptions, EventsComeAsOftenAsAskedAndTellOfMemoryThatRanOut) {
  std::string note = node.folder() + "/events";
  Background watching(node, "watching",
                      {"sh", "-c",
                       "exec " + std::string(HOBBES_BUILD_DIR) +
                           "/bin/hobbes-run events --interval 100ms a >" + note});
  EXPECT_TRUE(eventually([&] {
    std::string text = Files::system().read(note).value_or("");
    return std::count(text.begin(), text.end(), '\n') >= 5;
  }));
  ASSERT_EQ(update({"--memory", "16MiB"}).wait_status, 0);
  (void)exec({}, {"sh", "-c", "x=$(head -c 64M /dev/zero | tr '\\0' x); echo ${#x}"});
  EXPECT_TRUE(eventually([&] {
    return Files::system().read(note).value_or("").find(R"("type":"oom")") != std::string::npos;
  })) << Files::system().read(note).value_or("");
  for (const char* wrong : {"0", "-1s", "5 parsecs", "1e3", "1ms", "25h", ""})
    EXPECT_EQ(
        exit_code_of(node.run({"hobbes-run", "events", "--interval", wrong, "a"}, 5).wait_status),
        2)
        << wrong;
}

TEST_F(EngineOptions, OptionsAfterTheIdOfPsAreThoseOfThePsProgram) {
  std::string said = node.good({"hobbes-run", "ps", "a", "-e", "-o", "pid,comm"});
  EXPECT_NE(said.find("COMMAND"), std::string::npos) << said;
  EXPECT_NE(said.find("sleep"), std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 2)
      << "only its own processes are listed: " << said;
  EXPECT_NE(node.good({"hobbes-run", "ps", "a", "-o", "pid,comm"}).find("sleep"), std::string::npos)
      << "of another session";
  EXPECT_NE(node.run({"hobbes-run", "ps", "a", "-o", "comm"}).wait_status, 0)
      << "without a pid nobody knows whose line it is";
  EXPECT_NE(node.run({"hobbes-run", "ps", "a", "--no-such-option"}).wait_status, 0);
}

TEST_F(EngineOptions, AListSaysWhoMadeAnEnclaveAndWhen) {
  std::string said = node.good({"hobbes-run", "list"});
  EXPECT_NE(said.find("CREATED"), std::string::npos) << said;
  EXPECT_NE(said.find("T"), std::string::npos);
  EXPECT_NE(said.find(" root "), std::string::npos) << said;
}

TEST_F(EngineOptions, AnotherFileThanConfigJsonMayDescribeABundle) {
  std::string bundle = node.bundle("c", "echo the usual", {{"hobbes", {{"cores", nullptr}}}});
  Json other =
      *parse_json(Files::system().read(bundle + "/config.json").value_or("{}"), "config.json");
  other["process"]["args"] = {"echo", "the other"};
  ASSERT_TRUE(replace_file(node.folder() + "/other.json", to_text(other)));
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "--config",
                       node.folder() + "/other.json", "c"}),
            "the other\n");
  Outcome missing = node.run({"hobbes-run", "create", "--bundle", bundle, "--config",
                              node.folder() + "/nosuch.json", "c"});
  EXPECT_NE(missing.wait_status, 0);
  EXPECT_NE(missing.err.find("nosuch.json"), std::string::npos) << missing.err;
}

TEST_F(EngineOptions, AnExampleIsWrittenIntoAFolderThatItMakes) {
  std::string folder = node.folder() + "/new/example";
  node.good({"hobbes-run", "spec", "--host-root", "--terminal", "--bundle", folder});
  Json config =
      *parse_json(Files::system().read(folder + "/config.json").value_or("{}"), "config.json");
  EXPECT_EQ(config["process"]["terminal"], true);
  EXPECT_NE(node.run({"hobbes-run", "spec", "--bundle", folder}).wait_status, 0)
      << "it never replaces one";
}

TEST_F(EngineOptions, ATerminalMayBeAskedForWhateverTheBundleSays) {
  std::string bundle = node.bundle("d", "tty", {{"hobbes", {{"cores", nullptr}}}});
  EXPECT_NE(node.good({"sh", "-c",
                       std::string(HOBBES_BUILD_DIR) + "/bin/hobbes-run run -it --rm --bundle " +
                           bundle + " d </dev/null"})
                .find("/dev/pts/"),
            std::string::npos);
  EXPECT_EQ(
      exit_code_of(
          node.run({"hobbes-run", "run", "--rm", "--keep", "--bundle", bundle, "d"}).wait_status),
      2);
}

TEST_F(EngineOptions, TheLogHoldsWhatItsLevelSays) {
  for (const auto& [level, holds] :
       {std::pair{"error", ""}, std::pair{"warning", ""}, std::pair{"info", "level=info"},
        std::pair{"debug", "level=debug"}}) {
    std::string log = node.folder() + "/log-" + level;
    node.good({"hobbes-run", "--log", log, "--log-level", level, "state", "a"});
    std::string text = Files::system().read(log).value_or("");
    if (*holds == '\0')
      EXPECT_EQ(text, "") << level;
    else
      EXPECT_NE(text.find(holds), std::string::npos) << level << ": " << text;
  }
  EXPECT_EQ(exit_code_of(node.run({"hobbes-run", "--log-level", "loud", "state", "a"}).wait_status),
            2);
}

TEST_F(EngineOptions, UnknownCapabilitiesAreWarnedOf) {
  Outcome outcome = exec({"--cap", "CAP_NOBODY_KNOWS"}, {"echo", "ran"});
  EXPECT_EQ(outcome.out, "ran\n");
  EXPECT_NE(outcome.err.find("warning: capabilities"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("CAP_NOBODY_KNOWS"), std::string::npos) << outcome.err;
}

TEST_F(EngineOptions, ErrorsAreJsonWhereOutputIs) {
  Outcome outcome = node.run({"hobbes-run", "--json", "state", "nobody"});
  Json error = parse_json(outcome.err, "standard error").value_or(Json::object());
  EXPECT_EQ(text_at(error, "level"), "error") << outcome.err;
  EXPECT_NE(text_at(error["error"], "cause").find("does not exist"), std::string::npos)
      << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

}  // namespace
}  // namespace hobbes::test
