#include "node_harness.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/identity.h"
#include "partition/cgroup.h"

namespace hobbes::test {

Node::Node() {
  char name[] = "/tmp/hn.XXXXXX";
  folder_ = ::mkdtemp(name);
  ::setenv("HOBBES_RUN_DIR", run_folder().c_str(), 1);
  ::setenv("HOBBES_STATE_DIR", (folder_ + "/state").c_str(), 1);
  EXPECT_TRUE(make_directories(run_folder()));
}

namespace {

// Where a failed test's records, logs and consoles are kept. vnode names a folder that it fetches.
std::string failures_folder() {
  const char* named = ::getenv("HOBBES_FAILURES");
  return named != nullptr ? named : HOBBES_BUILD_DIR "/Testing/failures";
}

}  // namespace

void Node::keep_evidence() const {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  const std::string name =
      test != nullptr ? std::string(test->test_suite_name()) + "." + test->name() : "unknown";
  std::string folder = failures_folder() + "/" + name + folder_.substr(folder_.rfind('.'));
  for (char& c : folder)
    if (c == ' ') c = '_';
  Command keep;
  // Not the mirror and other memory, which nobody reads without its program.
  keep.argv = {"sh",
               "-c",
               "mkdir -p \"$1\" && dmesg >\"$1/kernel.log\"; cd \"$2\" && find . -type f "
               "-size -512k ! -name '*nis*' -exec cp --parents '{}' \"$1\" ';'",
               "keep",
               folder,
               folder_};
  auto kept = hobbes::run(keep);
  std::fprintf(stderr, "The records, logs and consoles of the failed test %s %s\n",
               kept && kept->good() ? "are in" : "could not all be kept in", folder.c_str());
}

Node::~Node() {
  if (::testing::Test::HasFailure()) keep_evidence();
  for (const std::string& id : Files::system().list(run_folder() + "/enclaves").value_or({}))
    (void)run({"hobbes-run", "delete", "--force", id});
  kill_daemon();
  // Control groups that it delegated to users are left to the next hobbesd of this folder, which
  // there will not be.
  std::string lent = "user-" + hex(hash_of(run_folder()), 8) + "-";
  if (auto layout = CgroupLayout::detect())
    for (const std::string& name : Cgroup(*layout, "/hobbes").subgroups())
      if (name.rfind(lent, 0) == 0) {
        Cgroup group(*layout, "/hobbes/" + name);
        (void)group.kill_all();
        (void)group.remove();
      }
  (void)remove_tree(folder_);
}

Outcome Node::run(std::vector<std::string> argv, int seconds) const {
  Command command;
  if (argv[0].find('/') == std::string::npos &&
      ::access((HOBBES_BUILD_DIR "/bin/" + argv[0]).c_str(), X_OK) == 0)
    argv[0] = HOBBES_BUILD_DIR "/bin/" + argv[0];
  command.argv = std::move(argv);
  command.deadline = std::chrono::seconds(seconds);
  auto outcome = hobbes::run(command);
  if (!outcome) {
    ADD_FAILURE() << outcome.error().text();
    return {};
  }
  EXPECT_FALSE(outcome->timed_out) << command.argv[0] << " ran longer than " << seconds << " s";
  return *std::move(outcome);
}

std::string Node::good(std::vector<std::string> argv, int seconds) const {
  std::string words;
  for (const std::string& word : argv) words += word + " ";
  Outcome outcome = run(std::move(argv), seconds);
  EXPECT_EQ(outcome.wait_status, 0) << words << "\n" << outcome.out << outcome.err;
  return outcome.out;
}

std::string Node::bundle(const std::string& name, const std::string& script,
                         const Json& patch) const {
  Json config = example_config(Kind::linux_, true);
  config["process"]["args"] = {"sh", "-c", script};
  config.merge_patch(patch.is_null() ? Json::object() : patch);
  // A build tree below /tmp is hidden by the enclave's private one.
  if (std::string(HOBBES_BUILD_DIR).rfind("/tmp/", 0) == 0 && config["hobbes"].contains("root"))
    config["mounts"].push_back({{"destination", HOBBES_BUILD_DIR},
                                {"type", "bind"},
                                {"source", HOBBES_BUILD_DIR},
                                {"options", {"bind", "ro"}}});
  std::string path = folder_ + "/" + name;
  EXPECT_TRUE(make_directories(path));
  EXPECT_TRUE(replace_file(path + "/config.json", to_text(config, 2)));
  return path;
}

Outcome Node::create(const std::string& id, const std::string& bundle_folder) const {
  return run({"sh", "-c",
              HOBBES_BUILD_DIR "/bin/hobbes-run create --bundle " + bundle_folder + " " + id +
                  " </dev/null >" + bundle_folder + "/out 2>" + bundle_folder + "/err; s=$?; cat " +
                  bundle_folder + "/err >&2; exit $s"});
}

std::string Node::busybox_bundle(const std::string& name, const std::string& script,
                                 const Json& patch) const {
  Json config = example_config(Kind::linux_, false);
  config["process"]["args"] = {"sh", "-c", script};
  config.merge_patch(patch.is_null() ? Json::object() : patch);
  std::string path = folder_ + "/" + name;
  EXPECT_TRUE(make_directories(path + "/rootfs/bin"));
  Command copy;
  copy.argv = {"sh", "-c",
               "cp /bin/busybox " + path +
                   "/rootfs/bin/ && for t in sh ls cat id sleep mount hostname nproc kill true "
                   "false touch env ps stty tty mkdir; do ln "
                   "-sf busybox " +
                   path + "/rootfs/bin/$t; done; mkdir -p " + path + "/rootfs/proc " + path +
                   "/rootfs/tmp " + path + "/rootfs/etc"};
  EXPECT_TRUE(hobbes::run(copy)->good());
  EXPECT_TRUE(replace_file(path + "/config.json", to_text(config, 2)));
  return path;
}

pid_t Node::daemon() const {
  auto json = parse_json(run({"hobbes", "node", "--json"}).out, "node");
  if (!json || !json->contains("node")) return 0;
  auto pid = static_cast<pid_t>(number_at((*json)["node"], "daemon"));
  auto command = read_link("/proc/" + std::to_string(pid) + "/exe");
  return command && command->find("hobbesd") != std::string::npos && process_state(pid) != 'Z' ? pid
                                                                                               : 0;
}

bool Node::joins_mpi() {
  return Files::system().exists(HOBBES_BUILD_DIR "/lib/remora/mca_hook_remora.so");
}

void Node::kill_daemon() const {
  pid_t pid = daemon();
  if (pid == 0) return;
  ::kill(pid, SIGKILL);
  // Its first thread may be gone before the others have let go of its files.
  auto alone = [&] {
    return Files::system().list("/proc/" + std::to_string(pid) + "/task").value_or({}).size() <= 1;
  };
  eventually([&] { return process_state(pid) == '\0' || (process_state(pid) == 'Z' && alone()); });
}

void Node::wake_daemon() const {
  std::string path = bundle("wake", "true");
  good({"hobbes-run", "create", "--dry-run", "--bundle", path, "wake"});
}

std::pair<int, Json> Node::rest(const std::string& method, const std::string& path,
                                const std::string& body, std::vector<std::string> headers) const {
  std::vector<std::string> argv = {"/usr/bin/curl",
                                   "-s",
                                   "--max-time",
                                   "20",
                                   "--unix-socket",
                                   run_folder() + "/api.sock",
                                   "-X",
                                   method,
                                   "-w",
                                   "\n%{http_code}",
                                   "http://node" + path};
  if (!body.empty()) argv.insert(argv.end(), {"-d", body});
  for (const std::string& header : headers) argv.insert(argv.end(), {"-H", header});
  std::string out = run(argv).out;
  std::size_t at = out.rfind('\n');
  if (at == std::string::npos) return {0, {}};
  auto json = parse_json(out.substr(0, at), "answer");
  return {std::atoi(out.c_str() + at + 1), json ? *json : Json(out.substr(0, at))};
}

Json Node::finished(const Json& operation) const {
  Json now;
  eventually([&] {
    now = rest("GET", "/v1/operations/" + text_at(operation, "operation")).second;
    return text_at(now, "state") != "running";
  });
  return now;
}

Json Node::enclave(const std::string& id) const {
  auto all = parse_json(run({"hobbes", "enclaves", "--json"}).out, "enclaves");
  if (all)
    for (const Json& one : *all)
      if (text_at(one, "id") == id) return one;
  return Json::object();
}

void Node::expect_clean() const {
  // What a dead program left is cleaned by hobbesd, soon.
  wake_daemon();
  std::string root = run_folder() + "/enclaves";
  EXPECT_TRUE(eventually([&] { return Files::system().list(root).value_or({}).empty(); }))
      << "folders are left in " << root;
  auto groups = [&] {
    return run({"sh", "-c",
                "find /sys/fs/cgroup -type d -name '" + hex(hash_of(root), 8) + "-*' 2>/dev/null"})
        .out;
  };
  EXPECT_TRUE(eventually([&] { return groups().empty(); }))
      << "control groups are left: " << groups();
  auto leased = [&] {
    return run({"sh", "-c",
                HOBBES_BUILD_DIR "/bin/hobbes topology --json | grep -c '\"state\": \"leased\"'"})
        .out;
  };
  EXPECT_TRUE(eventually([&] { return leased() == "0\n"; }))
      << "cores are still leased: " << leased();
  EXPECT_EQ(run({"sh", "-c", "grep -c '" + folder_ + "' /proc/self/mountinfo"}).out, "0\n")
      << "mounts are left";
  EXPECT_EQ(run({"sh", "-c", HOBBES_BUILD_DIR "/bin/hobbes enclaves --json"}).out, "[]\n")
      << "records are left";
}

}  // namespace hobbes::test
