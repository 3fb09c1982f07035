#include "enclave/drivers/linux/container.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/file.h"
#include "core/identity.h"
#include "core/log.h"
#include "core/pidfd.h"
#include "core/process.h"
#include "enclave/drivers/linux/console.h"
#include "enclave/drivers/linux/credentials.h"
#include "enclave/drivers/linux/group.h"
#include "enclave/drivers/linux/id_mapping.h"
#include "enclave/drivers/linux/init.h"
#include "enclave/drivers/linux/network_device.h"
#include "enclave/drivers/linux/seccomp_agent.h"
#include "enclave/drivers/linux/security_label.h"
#include "enclave/drivers/linux/user_database.h"
#include "enclave/hooks.h"
#include "ipc/message_socket.h"
#include "partition/cgroup.h"
#include "partition/device_filter.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds step_deadline(60'000);

// The name of a namespace's file in /proc/PID/ns.
std::string namespace_file(const std::string& type) { return type == "network" ? "net" : type; }

Result<std::pair<Fd, Fd>> socket_pair() {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return os_error("make a socket pair", errno);
  return std::pair{Fd(pair[0]), Fd(pair[1])};
}

// The limits that go into the control group: the bundle's own, with the lease on top.
oci::Resources effective_resources(const CreateRequest& request) {
  oci::Resources out = request.bundle.oci.linux_.resources;
  if (!request.cpus.empty()) out.cpus = request.cpus;
  if (!request.mems.empty()) out.mems = request.mems;
  auto lease = static_cast<std::int64_t>(request.memory);
  if (lease > 0 && (!out.memory_limit || *out.memory_limit < 0 || *out.memory_limit > lease))
    out.memory_limit = lease;
  out.devices = device_rules(out.devices);
  return out;
}

// A systemd-style "slice:prefix:name" names a scope; without talking to systemd it is made where
// systemd would make it.
std::string cgroup_path_of(const Bundle& bundle, const EnclaveRecord& record) {
  std::string path = bundle.oci.linux_.cgroups_path;
  if (path.empty()) return default_cgroup(record.root, record.id);
  std::size_t first = path.find(':');
  std::size_t second = first == std::string::npos ? first : path.find(':', first + 1);
  if (second != std::string::npos && path.front() != '/') {
    std::string slice = path.substr(0, first), prefix = path.substr(first + 1, second - first - 1);
    return "/" + (slice.empty() ? std::string("system.slice") : slice) + "/" +
           (prefix.empty() ? "" : prefix + "-") + path.substr(second + 1) + ".scope";
  }
  return absolute(path.front() == '/' ? path : "/" + path);
}

// Receives the child's next word. Errors: what the child reported, or that it died.
Result<void> expect(MessageSocket& child, const std::string& stage) {
  auto message = child.receive(step_deadline);
  if (!message)
    return Error{Code::os, "prepare the enclave process", "it ended before it was " + stage,
                 "see the kernel log for an out-of-memory kill"};
  if (auto error = message->body.find("error"); error != message->body.end())
    return error_from(*error);
  if (text_at(message->body, "stage") != stage)
    return Error{Code::corrupt, "prepare the enclave process", "it spoke out of turn", ""};
  return {};
}

Result<void> go_on(MessageSocket& channel, pid_t child) {
  if (channel.send({{"go", true}, {"pid", child}})) return {};
  return Error{Code::os, "prepare the enclave process", "it ended before it was told to go on",
               "see the kernel log for an out-of-memory kill"};
}

std::optional<oci::Seccomp> profile_of(const Bundle& bundle) {
  if (bundle.oci.linux_.seccomp) return bundle.oci.linux_.seccomp;
  if (bundle.hobbes.host_root) return default_seccomp();
  return std::nullopt;
}

Result<std::optional<SeccompProgram>> program_of(const std::optional<oci::Seccomp>& profile) {
  if (!profile) return std::optional<SeccompProgram>();
  HOBBES_TRY(program, compile_seccomp(*profile));
  return std::optional(std::move(program));
}

Result<SeccompAgent> agent_of(const Bundle& bundle, const std::optional<SeccompProgram>& program) {
  SeccompAgent agent;
  if (!program || (program->flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) == 0) return agent;
  HOBBES_TRY(socket, connect_seccomp_agent(bundle.oci.linux_.seccomp->listener_path));
  agent.socket = std::move(socket);
  agent.metadata = bundle.oci.linux_.seccomp->listener_metadata;
  return agent;
}

// The caller in another namespace (in the case of a pid namespace only the children it makes
// meanwhile), and back.
class NamespaceVisit {
 public:
  static Result<NamespaceVisit> enter(const oci::Namespace& space) {
    NamespaceVisit out;
    out.kind_ = static_cast<int>(namespace_flag(space.type));
    out.own_.reset(
        ::open(("/proc/self/ns/" + namespace_file(space.type)).c_str(), O_RDONLY | O_CLOEXEC));
    Fd wanted(::open(space.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!wanted || !out.own_ || ::setns(wanted.get(), out.kind_) != 0)
      return os_error("join the " + space.type + " namespace " + space.path, errno);
    return out;
  }
  NamespaceVisit(NamespaceVisit&&) = default;
  NamespaceVisit& operator=(NamespaceVisit&&) = delete;
  ~NamespaceVisit() { (void)leave(); }
  /// The process that was born here does not go back.
  void stay() { own_.reset(); }
  Result<void> leave() {
    Fd own = std::move(own_);
    if (own && ::setns(own.get(), kind_) != 0)
      return os_error("return from a namespace of the enclave's", errno);
    return {};
  }

 private:
  NamespaceVisit() = default;
  Fd own_;
  int kind_ = 0;  // CLONE_NEW*
};

pid_t clone_with(unsigned long flags) {
  clone_args args{};
  args.flags = flags;
  args.exit_signal = SIGCHLD;
  return static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
}

// A process that is born in namespaces of others; 0 in it.
Result<pid_t> clone_into(const std::vector<oci::Namespace>& spaces, unsigned long flags) {
  std::vector<NamespaceVisit> visits;
  for (const oci::Namespace& space : spaces) {
    HOBBES_TRY(visit, NamespaceVisit::enter(space));
    visits.push_back(std::move(visit));
  }
  const pid_t child = clone_with(flags);
  const int error = errno;
  if (child == 0) {
    for (NamespaceVisit& visit : visits) visit.stay();
    return child;
  }
  Result<void> left;
  for (; !visits.empty(); visits.pop_back())
    if (auto done = visits.back().leave(); !done) left = std::move(done);
  if (child > 0 && left) return child;
  if (child < 0) return os_error("make the enclave process", error, "see `hobbes-run features`");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return std::move(left).error();
}

// fork() into namespaces of a running process, with a chosen pid there if wanted. The caller may
// have threads, whose locks a raw clone would copy, so an intermediate process made by fork() does
// it; CLONE_PARENT makes the result our own child all the same.
pid_t fork_into(const Fd& target, unsigned long namespaces, pid_t inner_pid) {
  int answer[2];
  if (::pipe2(answer, O_CLOEXEC) != 0) return -1;
  Fd read_end(answer[0]), write_end(answer[1]);
  struct Made {
    pid_t pid;
    int error;
  } made{-1, EIO};
  pid_t between = ::fork();
  if (between == 0) {
    clone_args args{};
    args.flags = CLONE_PARENT;
    args.set_tid = inner_pid != 0 ? reinterpret_cast<__u64>(&inner_pid) : 0;
    args.set_tid_size = inner_pid != 0 ? 1 : 0;
    if (namespaces == 0 || ::setns(target.get(), static_cast<int>(namespaces)) == 0)
      made.pid = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    if (made.pid == 0) return 0;
    made.error = errno;
    (void)!::write(write_end.get(), &made, sizeof made);
    ::_exit(0);
  }
  write_end.reset();
  if (between < 0) return -1;
  (void)!::read(read_end.get(), &made, sizeof made);
  ::waitpid(between, nullptr, 0);
  errno = made.error;
  return made.pid;
}

bool same_namespace(pid_t pid, const char* name) {
  struct stat mine {
  }, theirs{};
  std::string path = std::string("/ns/") + name;
  return ::stat(("/proc/self" + path).c_str(), &mine) == 0 &&
         ::stat(("/proc/" + std::to_string(pid) + path).c_str(), &theirs) == 0 &&
         mine.st_ino == theirs.st_ino;
}

// A namespace that is joined may be the node's own: what the bundle changes in it would be changed
// for everybody.
Result<void> check_joined(const std::vector<oci::Namespace>& joined, const oci::Config& oci,
                          const std::string& id) {
  for (const oci::Namespace& space : joined) {
    struct stat ours {
    }, theirs{};
    if (::stat(("/proc/self/ns/" + namespace_file(space.type)).c_str(), &ours) != 0 ||
        ::stat(space.path.c_str(), &theirs) != 0 || ours.st_ino != theirs.st_ino ||
        ours.st_dev != theirs.st_dev)
      continue;
    std::string changes = space.type == "uts" && !oci.hostname.empty()     ? "hostname"
                          : space.type == "uts" && !oci.domainname.empty() ? "domainname"
                                                                           : "";
    for (const auto& [key, unused] : oci.linux_.sysctl)
      if (namespace_of_parameter(sysctl_path(key)) == space.type) changes = "sysctl " + key;
    if (!changes.empty())
      return Error{
          Code::denied, "create enclave '" + id + "'",
          "its " + changes + " would change the host, whose " + space.type + " namespace it joins",
          "give it a " + space.type + " namespace of its own"};
  }
  return {};
}

void warn_of_capabilities(const oci::Process& process) {
  if (std::string names = unknown_capabilities(process.capabilities); !names.empty())
    log(LogLevel::warning, "capabilities that this system does not know are ignored: " + names);
}

// The network namespace of a new process: its own, or the one it will join.
std::string network_namespace_of(const oci::Config& oci, pid_t process) {
  for (const oci::Namespace& space : oci.linux_.namespaces)
    if (space.type == "network" && !space.path.empty()) return space.path;
  return "/proc/" + std::to_string(process) + "/ns/net";
}

// The user namespace whose ids a mount's files have.
Result<Fd> user_namespace_of(const oci::Mount& mount, const oci::Linux& linux_) {
  if (!mount.uid_mappings.empty())
    return make_user_namespace(mount.uid_mappings, mount.gid_mappings);
  for (const oci::Namespace& space : linux_.namespaces)
    if (space.type == "user" && !space.path.empty()) {
      Fd joined(::open(space.path.c_str(), O_RDONLY | O_CLOEXEC));
      if (!joined) return os_error("open the user namespace " + space.path, errno);
      return joined;
    }
  return make_user_namespace(linux_.uid_mappings, linux_.gid_mappings);
}

// Bind mounts that need the caller's rights: sources that a mapped user could not reach, trees that
// a user namespace would not let be taken apart, and mounts whose ids are mapped.
Result<void> clone_sources(const Bundle& bundle, bool own_users,
                           std::map<std::size_t, Mount>& out) {
  for (std::size_t i = 0; i < bundle.oci.mounts.size(); ++i) {
    const oci::Mount& mount = bundle.oci.mounts[i];
    const MountOptions options = parse_mount_options(mount.options);
    const bool mapped = is_id_mapped(mount);
    if (!mapped && !(own_users && is_bind(mount) && ::geteuid() == 0)) continue;
    HOBBES_TRY(cloned, Mount::clone(AT_FDCWD, bundle.source_of(mount), options.recursive));
    if (mapped) {
      HOBBES_TRY(users, user_namespace_of(mount, bundle.oci.linux_));
      HOBBES_CHECK(cloned.map_ids(users, options.recursive_id_map,
                                  mount.source + " at " + mount.destination));
    }
    out.emplace(i, std::move(cloned));
  }
  return {};
}

Result<Bundle> bundle_of(const EnclaveRecord& record) {
  HOBBES_TRY(text, Files::system().read(record.folder() + "/config.json", json_size_limit));
  HOBBES_TRY(json, parse_json(text, record.folder() + "/config.json"));
  Validation validation = validate_config(record.bundle, json);
  if (!validation.bundle)
    return Error{Code::corrupt, "read the saved bundle", report(validation.problems), ""};
  return std::move(*validation.bundle);
}

}  // namespace

std::optional<Error> LinuxDriver::obstacle() const {
  if (::geteuid() == 0) return std::nullopt;
  for (const char* file :
       {"/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"})
    if (auto limit = Files::system().read(file); limit && std::atoll(limit->c_str()) == 0)
      return Error{Code::denied, "host enclaves of users without privilege",
                   std::string(file) + " is 0, so they have no user namespaces",
                   "run as root, or ask the administrator to set it"};
  return std::nullopt;
}

Result<void> LinuxDriver::create(const CreateRequest& request, EnclaveRecord& record) const {
  const Bundle& bundle = request.bundle;
  const oci::Config& oci = bundle.oci;
  warn_of_capabilities(*oci.process);
  HOBBES_CHECK(check_security_labels(*oci.process, oci.linux_.mount_label));
  HOBBES_TRY(layout, CgroupLayout::detect());
  std::string path =
      request.delegated_cgroup.empty() ? cgroup_path_of(bundle, record) : request.delegated_cgroup;
  // Before the record names it: a cleaner kills everything in the group a record names.
  if (auto inside = Cgroup(layout, path).processes(); inside && !inside->empty())
    return Error{Code::exists, "create enclave '" + record.id + "'",
                 "control group " + path + " already holds processes",
                 "choose another cgroupsPath"};
  record.cgroup = path;
  record.cgroup_delegated = !request.delegated_cgroup.empty();
  HOBBES_TRY(group, EnclaveGroup::of(record));

  InitPlan plan;
  plan.request = &request;
  unsigned long flags = 0;
  for (const oci::Namespace& space : oci.linux_.namespaces) {
    unsigned long flag = namespace_flag(space.type);
    if (!space.path.empty()) {
      plan.joined.push_back(space);
    } else if (space.type == "time") {
      plan.own_time = true;
    } else if (space.type == "cgroup") {
      plan.late_namespaces |= flag;
    } else {
      flags |= flag;
    }
  }
  bool own_mounts =
      (flags & CLONE_NEWNS) != 0 || std::any_of(plan.joined.begin(), plan.joined.end(),
                                                [](const auto& s) { return s.type == "mount"; });
  if (!own_mounts)
    return Error{Code::invalid, "create enclave '" + record.id + "'",
                 "the bundle asks for no mount namespace",
                 "add {\"type\": \"mount\"} to linux.namespaces"};
  HOBBES_CHECK(check_joined(plan.joined, oci, record.id));
  IdMaps uids = oci.linux_.uid_mappings, gids = oci.linux_.gid_mappings;
  bool joins_users = std::any_of(plan.joined.begin(), plan.joined.end(),
                                 [](const auto& s) { return s.type == "user"; });
  if (::geteuid() != 0 && !joins_users) {
    // What only root may do, its owner may do in a user namespace of the enclave's own, where he is
    // whom the bundle names.
    flags |= CLONE_NEWUSER;
    if (uids.empty()) uids = {{oci.process->user.uid, ::geteuid(), 1}};
    if (gids.empty()) gids = {{oci.process->user.gid, ::getegid(), 1}};
  }
  bool own_users = (flags & CLONE_NEWUSER) != 0;
  // What the caller joins before the process is born: its pid namespace, which it could not enter
  // later, and namespaces that are not of its new user namespace and would not let it in.
  auto first_to_join = std::stable_partition(
      plan.joined.begin(), plan.joined.end(), [&](const oci::Namespace& space) {
        bool foreign = space.type == "network" || space.type == "ipc" || space.type == "uts" ||
                       space.type == "cgroup";
        return space.type != "pid" && !(foreign && own_users && ::geteuid() == 0);
      });
  std::vector<oci::Namespace> born_in(first_to_join, plan.joined.end());
  plan.joined.erase(first_to_join, plan.joined.end());
  if (own_users) {
    plan.first_user = first_id(uids);
    plan.first_group = first_id(gids);
  }
  plan.rootfs = {&bundle,
                 record.folder(),
                 record.folder() + "/rootfs",
                 "",
                 &group.cgroup(),
                 &layout,
                 own_users,
                 (flags & CLONE_NEWPID) != 0,
                 plan.late_namespaces != 0,
                 bundle.hobbes.present,
                 {},
                 std::nullopt};
  if (own_users && ::geteuid() == 0 && !oci.linux_.devices.empty()) {
    HOBBES_TRY(devices, make_listed_devices(oci.linux_));
    plan.rootfs.devices = std::move(devices);
  }
  HOBBES_CHECK(clone_sources(bundle, own_users, plan.rootfs.cloned));
  if (oci.process->terminal) {
    HOBBES_TRY(console, connect_console(request.console_socket));
    plan.console = std::move(console);
  }
  HOBBES_TRY(program, program_of(profile_of(bundle)));
  plan.seccomp = std::move(program);
  HOBBES_TRY(agent, agent_of(bundle, plan.seccomp));
  plan.agent = std::move(agent);

  HOBBES_CHECK(replace_file(record.folder() + "/config.json", to_text(bundle.config), 0600));
  if (bundle.hobbes.host_root) HOBBES_CHECK(make_directories(plan.rootfs.staging, 0755));
  HOBBES_CHECK(record.save());  // names the control group before it exists
  // From here on every failure ends in destroy(), which knows only the record.
  pid_t child = -1;
  auto undone = [&](Error error) {
    if (child > 0) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    if (auto cleaned = destroy(record, milliseconds(5000)); !cleaned)
      error.remedy += (error.remedy.empty() ? "" : "; ") + ("and " + cleaned.error().text());
    return error;
  };

  if (auto made = group.create(effective_resources(request)); !made)
    return undone(std::move(made).error());
  auto listening = listen_at(record.start_socket(), 0600, SOCK_SEQPACKET);
  if (!listening) return undone(std::move(listening).error());
  ::fcntl(listening->get(), F_SETFL, 0);  // the enclave process blocks in accept
  plan.start = std::move(*listening);
  auto pair = socket_pair();
  if (!pair) return undone(std::move(pair).error());
  plan.sync = std::move(pair->second);

  auto born = clone_into(born_in, flags);
  if (!born) return undone(std::move(born).error());
  child = *born;
  if (child == 0) {
    pair->first.reset();
    plan.state = record.state();
    run_init(plan);
  }
  plan.sync.reset();
  plan.start.reset();
  plan.agent.socket.reset();
  MessageSocket init(std::move(pair->first));

  std::optional<MovedDevices> devices;
  auto drive = [&]() -> Result<void> {
    HOBBES_CHECK(expect(init, "born"));
    HOBBES_TRY(identity, ProcessId::of(child));
    record.process = identity;
    HOBBES_CHECK(record.save());
    if (own_users) HOBBES_CHECK(write_id_maps(child, uids, gids));
    if (group.frozen())
      return Error{Code::busy, "enter control group " + record.cgroup,
                   "it is frozen, and so would be everything that enters it",
                   "thaw it, or name another one in linux.cgroupsPath"};
    HOBBES_CHECK(group.enter(child));
    HOBBES_CHECK(set_oom_score(*oci.process, std::to_string(child)));
    if (!oci.linux_.net_devices.empty()) {
      HOBBES_TRY(moved,
                 MovedDevices::move(oci.linux_.net_devices, network_namespace_of(oci, child)));
      devices.emplace(std::move(moved));
    }
    HOBBES_CHECK(go_on(init, child));
    HOBBES_CHECK(expect(init, "mounted"));
    Json state = record.state();
    HOBBES_CHECK(run_hooks(oci.hooks.prestart, "prestart", record.state(Status::created)));
    HOBBES_CHECK(run_hooks(oci.hooks.create_runtime, "createRuntime", state));
    HOBBES_CHECK(go_on(init, child));
    HOBBES_CHECK(expect(init, "ready"));
    record.prepared = true;
    return record.save();
  };
  if (auto driven = drive(); !driven) return undone(std::move(driven).error());
  if (devices) devices->keep();
  return {};
}

Result<void> LinuxDriver::start(const EnclaveRecord& record) const {
  if (record.status() != Status::created)
    return Error{Code::busy, "start enclave '" + record.id + "'",
                 "its status is " + std::string(name_of(record.status())) + ", not created",
                 "create a new one with `hobbes-run create`"};
  auto starter = MessageSocket::connect(record.start_socket());
  if (!starter) {
    ::unlink(
        record.start_socket().c_str());  // it runs: an earlier start died before it could say so
    return std::move(starter.error()).within("start enclave '" + record.id + "'");
  }
  // The program's execve closes the connection; anything said before that is why it could not.
  auto answer = starter->receive(std::chrono::hours(24));
  if (answer) {
    if (auto error = answer->body.find("error"); error != answer->body.end())
      return std::move(error_from(*error)).within("start enclave '" + record.id + "'");
  }
  ::unlink(record.start_socket().c_str());
  return {};
}

Result<void> LinuxDriver::signal(const EnclaveRecord& record, int number, bool all) const {
  std::string attempt = "send signal " + std::to_string(number) + " to enclave '" + record.id + "'";
  if (all) {
    HOBBES_TRY(pids, processes(record));
    for (pid_t pid : pids)
      if (::kill(pid, number) != 0 && errno != ESRCH) return os_error(attempt, errno);
    return {};
  }
  if (!record.process.alive()) return not_running(record, "kill");
  HOBBES_TRY(process, record.process.open());
  if (signal_pidfd(process, number) != 0) return os_error(attempt, errno);
  // A frozen process would get it only when resumed.
  if (number == SIGKILL)
    if (auto group = EnclaveGroup::of(record); group && group->frozen()) (void)group->freeze(false);
  return {};
}

Result<void> LinuxDriver::pause(const EnclaveRecord& record) const {
  Status now = record.status();
  if (now != Status::running && now != Status::created) return not_running(record, "pause");
  HOBBES_TRY(group, EnclaveGroup::of(record));
  return group.freeze(true);
}

Result<void> LinuxDriver::resume(const EnclaveRecord& record) const {
  if (record.status() != Status::paused)
    return Error{Code::busy, "resume enclave '" + record.id + "'", "it is not paused", ""};
  HOBBES_TRY(group, EnclaveGroup::of(record));
  return group.freeze(false);
}

Result<void> LinuxDriver::update(const EnclaveRecord& record, const UpdateRequest& request) const {
  if (!record.process.alive()) return not_running(record, "update");
  if (record.cgroup_delegated && request.leased)
    return {};  // hobbesd limits it as it changes the lease
  HOBBES_TRY(group, EnclaveGroup::of(record));
  return group.apply(request.resources);
}

Result<pid_t> LinuxDriver::exec(const EnclaveRecord& record, const ExecRequest& given) const {
  ExecRequest request = given;
  Status now = record.status();
  if (now == Status::paused && !request.ignore_paused)
    return Error{Code::busy, "execute a program in enclave '" + record.id + "'", "it is paused",
                 "resume it, or wait for that with --ignore-paused"};
  if (now != Status::running && now != Status::created && now != Status::paused)
    return not_running(record, "execute a program in");
  HOBBES_TRY(bundle, bundle_of(record));
  warn_of_capabilities(request.process);
  HOBBES_CHECK(check_security_labels(request.process, ""));
  request.process.keep_groups = bundle.oci.process->keep_groups;
  ExecPlan plan;
  plan.request = &request;
  HOBBES_TRY(target, record.process.open());
  plan.target = std::move(target);
  if (!request.user.empty()) {
    Fd root(::open(("/proc/" + std::to_string(record.process.pid) + "/root").c_str(),
                   O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root || !record.process.alive()) return not_running(record, "execute a program in");
    HOBBES_TRY(user, UserDatabase(root).resolve(request.user, request.process.user));
    request.process.user = std::move(user);
  }
  add_groups(request);
  HOBBES_TRY(program, program_of(profile_of(bundle)));
  plan.seccomp = std::move(program);
  HOBBES_TRY(agent, agent_of(bundle, plan.seccomp));
  plan.agent = std::move(agent);
  if (request.process.terminal) {
    HOBBES_TRY(console, connect_console(request.console_socket));
    plan.console = std::move(console);
  }
  static constexpr std::pair<const char*, unsigned long> spaces[] = {
      {"mnt", CLONE_NEWNS},  {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},
      {"net", CLONE_NEWNET}, {"user", CLONE_NEWUSER}, {"cgroup", CLONE_NEWCGROUP}};
  for (const auto& [name, flag] : spaces)
    if (!same_namespace(record.process.pid, name)) plan.namespaces |= flag;
  HOBBES_TRY(pair, socket_pair());
  plan.sync = std::move(pair.second);
  HOBBES_TRY(group, EnclaveGroup::of(record));
  // Before there is a process: one that has entered a frozen group cannot be ended.
  if (!request.cgroups.empty() && record.cgroup_delegated)
    return Error{Code::unsupported, "enter a control group of the enclave",
                 "its group is delegated by hobbesd", "leave --cgroup out"};
  for (const std::string& words : request.cgroups)
    HOBBES_CHECK(group.cgroup().subgroup_folders(words));

  // Pid namespaces take effect at birth; who has no privilege outside must enter the user namespace
  // before them.
  unsigned long at_birth =
      same_namespace(record.process.pid, "pid") ? 0UL : static_cast<unsigned long>(CLONE_NEWPID);
  if (::geteuid() != 0) at_birth |= plan.namespaces & CLONE_NEWUSER;
  plan.namespaces &= ~at_birth;
  plan.become_root = ((plan.namespaces | at_birth) & CLONE_NEWUSER) != 0;
  pid_t child = at_birth == 0 && request.inner_pid == 0
                    ? ::fork()
                    : fork_into(plan.target, at_birth, request.inner_pid);
  if (child == 0) {
    pair.first.reset();
    plan.state = record.state();
    run_exec(plan);
  }
  if (child < 0) return os_error("execute a program in enclave '" + record.id + "'", errno);
  plan.sync.reset();
  plan.agent.socket.reset();
  MessageSocket started(std::move(pair.first));
  // In a paused enclave it is frozen from the moment it enters until somebody resumes the enclave.
  milliseconds patience = now == Status::paused ? std::chrono::hours(24) : step_deadline;
  auto drive = [&]() -> Result<void> {
    HOBBES_CHECK(expect(started, "born"));
    HOBBES_CHECK(group.enter(child));
    for (const std::string& words : request.cgroups)
      HOBBES_CHECK(group.cgroup().enter_subgroup(child, words));
    if (!request.group.empty() && !record.cgroup_delegated) {
      HOBBES_TRY(own, group.cgroup().make_subgroup(request.group));
      HOBBES_CHECK(own.enter(child));
    }
    HOBBES_CHECK(set_oom_score(request.process, std::to_string(child)));
    HOBBES_CHECK(go_on(started, child));
    auto answer = started.receive(patience);
    if (!answer) return {};  // closed by its execve
    return error_from(answer->body.value("error", Json::object()));
  };
  if (auto driven = drive(); !driven) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return std::move(driven.error()).within("execute a program in enclave '" + record.id + "'");
  }
  return child;
}

Result<std::vector<pid_t>> LinuxDriver::processes(const EnclaveRecord& record) const {
  HOBBES_TRY(group, EnclaveGroup::of(record));
  return group.processes();
}

std::map<std::string, std::uint64_t> LinuxDriver::statistics(const EnclaveRecord& record) const {
  auto group = EnclaveGroup::of(record);
  return group ? group->statistics() : std::map<std::string, std::uint64_t>();
}

// Its kernel is this one: that its process exists and is not frozen is all there is to know.
Result<Json> LinuxDriver::ping(const EnclaveRecord& record) const {
  Status now = record.status();
  if (now != Status::running && now != Status::created) return not_running(record, "ping");
  HOBBES_TRY(pids, processes(record));
  return Json{{"processes", pids.size()}};
}

Result<void> LinuxDriver::destroy(const EnclaveRecord& record, milliseconds deadline) const {
  if (record.process.alive()) {
    if (auto process = record.process.open()) (void)signal_pidfd(*process, SIGKILL);
  }
  if (record.cgroup.empty()) return {};
  HOBBES_TRY(group, EnclaveGroup::of(record));
  return group.destroy(deadline);
}

}  // namespace hobbes
