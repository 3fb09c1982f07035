#include "shell/doctor.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/file.h"
#include "core/json.h"
#include "core/paths.h"
#include "core/process.h"
#include "core/size.h"
#include "enclave/driver.h"
#include "enclave/record.h"
#include "ipc/client.h"
#include "partition/cgroup.h"

namespace hobbes {
namespace {

using Level = Finding::Level;

const char* name_of(Level level) {
  switch (level) {
    case Level::good:
      return "ok";
    case Level::limited:
      return "limited";
    default:
      return "wrong";
  }
}

void look_at_kinds(std::vector<Finding>& out) {
  for (Kind kind : {Kind::linux_, Kind::kitten, Kind::palacios}) {
    std::string topic = std::string("kind ") + hobbes::name_of(kind);
    if (auto obstacle = driver_for(kind).obstacle())
      out.push_back({kind == Kind::linux_ ? Level::wrong : Level::limited, topic, obstacle->cause,
                     obstacle->remedy});
    else
      out.push_back({Level::good, topic, "can be hosted", ""});
  }
}

void look_at_control_groups(std::vector<Finding>& out) {
  auto layout = CgroupLayout::detect();
  if (!layout) {
    out.push_back(
        {Level::wrong, "control groups", layout.error().text(), "mount cgroup2 at /sys/fs/cgroup"});
    return;
  }
  std::string missing;
  if (layout->v2.empty()) {
    for (const char* name : {"cpuset", "memory", "pids", "freezer", "devices"})
      if (layout->v1.count(name) == 0) missing += (missing.empty() ? "" : ", ") + std::string(name);
  } else {
    std::string has = " " + Files::system().read(layout->v2 + "/cgroup.controllers").value_or("");
    std::replace(has.begin(), has.end(), '\n', ' ');
    for (const char* name : {"cpuset", "memory", "pids"})
      if (has.find(" " + std::string(name) + " ") == std::string::npos)
        missing += (missing.empty() ? "" : ", ") + std::string(name);
  }
  if (missing.empty())
    out.push_back({Level::good, "control groups",
                   std::string(layout->mode()) + " with the controllers that leases need", ""});
  else
    out.push_back(
        {Level::wrong, "control groups", std::string(layout->mode()) + " without " + missing,
         "mount them, or enable them on the kernel's command line (cgroup_enable=" + missing +
             ")"});
}

void look_at_manager(std::vector<Finding>& out) {
  struct stat info {};
  std::string folder = run_directory();
  if (::stat(folder.c_str(), &info) != 0) {
    out.push_back({Level::good, "hobbesd",
                   "it has not run since the node booted; the first command of root starts it",
                   ""});
    return;
  }
  if (info.st_uid != 0 || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    out.push_back({Level::wrong, "run directory", folder + " can be written by others than root",
                   "chown root " + folder + "; chmod 0755 " + folder});
  struct statvfs space {};
  if (::statvfs(folder.c_str(), &space) == 0) {
    std::uint64_t left = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
    constexpr std::uint64_t enough = 64U << 20;
    if (left < enough)
      out.push_back({Level::wrong, "run directory",
                     folder + " has only " + format_size(left) + " left",
                     "remove what fills it, or enlarge it: mount -o remount,size=... " + folder});
    else
      out.push_back({Level::good, "run directory", format_size(left) + " left at " + folder, ""});
  }
  // A question first: with socket activation it is what starts hobbesd.
  constexpr std::chrono::seconds patience(5);
  auto client = Client::connect(false);
  bool answers = client && client->call("ping", {}, {}, patience);
  auto nis = NisReader::open(mirror_path());
  if (client && !answers) {
    out.push_back({Level::wrong, "hobbesd", "it accepts connections and does not answer",
                   "read " + folder + "/hobbesd.log"});
  } else if (!client) {
    out.push_back(
        {Level::limited, "hobbesd",
         "it does not run; enclaves keep running, and the first command of root starts it",
         "systemctl enable --now hobbesd.socket"});
  } else if (!nis || (*nis)->writer_silence_ns() > 3'000'000'000U) {
    out.push_back({Level::wrong, "hobbesd", "it accepts connections and does not write its mirror",
                   "read " + folder + "/hobbesd.log"});
  } else {
    out.push_back({Level::good, "hobbesd", "runs and answers", ""});
  }
}

// hobbesd itself judges the policy: what it refuses would keep it from starting.
void look_at_policy(std::vector<Finding>& out) {
  const std::string path = "/etc/hobbes/hobbesd.json";
  Command command;
  command.argv = {sibling_program("hobbesd"), "--check"};
  auto outcome = run(command);
  if (!outcome)
    out.push_back(
        {Level::wrong, "policy", outcome.error().text(), "install hobbesd beside this program"});
  else if (!outcome->good() && ::geteuid() != 0 && ::access(path.c_str(), F_OK) == 0 &&
           ::access(path.c_str(), R_OK) != 0)
    out.push_back({Level::limited, "policy", "only root may read " + path, "ask root to run this"});
  else if (!outcome->good())
    out.push_back({Level::wrong, "policy",
                   outcome->err.substr(0, outcome->err.find_last_not_of('\n') + 1),
                   "mend " + path});
  else
    out.push_back({Level::good, "policy",
                   Files::system().exists(path) ? path + " is valid"
                                                : "none is configured; the defaults hold",
                   ""});
}

void look_at_leftovers(std::vector<Finding>& out) {
  std::string stopped;
  for (const EnclaveRecord& record : EnclaveRecord::list(default_root()))
    if (record.status() == Status::stopped) stopped += (stopped.empty() ? "" : " ") + record.id;
  if (!stopped.empty())
    out.push_back({Level::limited, "leftovers",
                   "enclaves that have ended still hold their ids: " + stopped,
                   "hobbes-run delete ID"});
}

void look_at_users(std::vector<Finding>& out) {
  for (const char* file :
       {"/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"})
    if (auto text = Files::system().read(file); text && *text == "0\n") {
      out.push_back({Level::limited, "users",
                     std::string(file) + " is 0: only root can have enclaves",
                     std::string("echo 1 >") + file});
      return;
    }
  out.push_back({Level::good, "users", "may have enclaves of their own, by user namespaces", ""});
}

void look_at_peers(std::vector<Finding>& out) {
  std::string missing;
  for (const auto& [program, needed_by] :
       {std::pair{"mpirun", "Open MPI's programs in compositions"},
        std::pair{"newuidmap", "users that map several ids"},
        std::pair{"skopeo", "bundles from images"}, std::pair{"umoci", "bundles from images"}})
    if (!find_in_path(program))
      missing += (missing.empty() ? "" : "; ") + std::string(program) + " (" + needed_by + ")";
  if (missing.empty())
    out.push_back(
        {Level::good, "other programs", "all that Hobbes can work with are installed", ""});
  else
    out.push_back({Level::limited, "other programs", "not installed: " + missing,
                   "install them if that is wanted"});
}

}  // namespace

std::vector<Finding> examine_node() {
  std::vector<Finding> out;
  look_at_kinds(out);
  look_at_control_groups(out);
  look_at_manager(out);
  look_at_policy(out);
  look_at_users(out);
  look_at_leftovers(out);
  look_at_peers(out);
  return out;
}

std::string findings_view(const std::vector<Finding>& findings, const Style& style) {
  if (style.json) {
    Json out = Json::array();
    for (const Finding& one : findings)
      out.push_back({{"level", name_of(one.level)},
                     {"topic", one.topic},
                     {"text", one.text},
                     {"remedy", one.remedy}});
    return to_text(out, 2) + "\n";
  }
  std::size_t width = 0;
  for (const Finding& one : findings) width = std::max(width, one.topic.size());
  std::string out;
  for (const Finding& one : findings) {
    std::string level = name_of(one.level);
    level.resize(7, ' ');
    const char* colour = one.level == Level::good      ? "\033[32m"
                         : one.level == Level::limited ? "\033[33m"
                                                       : "\033[31m";
    out += (style.colour ? colour + level + "\033[0m" : level) + "  " + one.topic +
           std::string(width - one.topic.size() + 2, ' ') + one.text + "\n";
    if (!one.remedy.empty()) out += std::string(9 + width + 2, ' ') + "to do: " + one.remedy + "\n";
  }
  return out;
}

}  // namespace hobbes
