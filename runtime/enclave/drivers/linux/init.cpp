#include "enclave/drivers/linux/init.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <set>

#include "core/beneath.h"
#include "core/file.h"
#include "enclave/drivers/linux/console.h"
#include "enclave/drivers/linux/credentials.h"
#include "enclave/drivers/linux/scheduling.h"
#include "enclave/drivers/linux/seccomp_agent.h"
#include "enclave/drivers/linux/security_label.h"
#include "enclave/drivers/linux/user_database.h"
#include "enclave/hooks.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

constexpr std::chrono::hours for_ever(24 * 365);

// Says one thing to the parent and waits for its "go on".
Result<Json> tell(MessageSocket& parent, const char* stage) {
  HOBBES_CHECK(parent.send({{"stage", stage}}));
  HOBBES_TRY(answer, parent.receive(for_ever));
  return std::move(answer.body);
}

[[noreturn]] void fail(MessageSocket& listener, const Error& error) {
  (void)listener.send({{"error", to_json(error)}});
  ::_exit(error.code == Code::not_found ? 127 : error.code == Code::denied ? 126 : 1);
}

// The descriptors of the new process: the streams, those that its program gets (from 3 on), and our
// own, which move out of their way. All others are closed before anything of the enclave is looked
// at: a folder that a caller has forgotten to close would be a way out of it. `own` are moved in
// place; `passed` become 3, 4, ...
Result<int> arrange_descriptors(const std::vector<Fd*>& own, const std::vector<int>& passed,
                                int preserved) {
  const int count = std::max(preserved, static_cast<int>(passed.size())), free = 3 + count;
  std::vector<Fd> copies;  // their numbers may overlap
  for (int fd : passed) {
    copies.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, free));
    if (!copies.back())
      return os_error("pass descriptor " + std::to_string(fd), errno,
                      "raise the limit of open files (ulimit -n)");
  }
  std::set<int> kept;
  for (Fd* fd : own) {
    if (!*fd) continue;
    Fd moved(::fcntl(fd->get(), F_DUPFD_CLOEXEC, free));
    if (!moved)
      return os_error("make room for the program's descriptors", errno,
                      "raise the limit of open files (ulimit -n)");
    kept.insert(moved.get());
    *fd = std::move(moved);
  }
  for (std::size_t i = 0; i < copies.size(); ++i)
    if (::dup2(copies[i].get(), static_cast<int>(3 + i)) < 0)
      return os_error("pass a descriptor", errno);
  copies.clear();
  unsigned from = static_cast<unsigned>(free);
  for (int number : kept) {
    auto next = static_cast<unsigned>(number);
    if (next > from) (void)::syscall(SYS_close_range, from, next - 1, 0);
    from = next + 1;
  }
  (void)::syscall(SYS_close_range, from, ~0U, 0);
  return count;
}

// The working directory, made where it is missing. What is outside of the root has no path in it
// (CVE-2024-21626).
Result<void> enter_directory(const std::string& path) {
  const std::string attempt = "enter working directory " + path;
  if (::chdir(path.c_str()) != 0) {
    if (errno != ENOENT) return os_error(attempt, errno);
    HOBBES_TRY(made, open_target("/", path, false));
    if (::fchdir(made.get()) != 0) return os_error(attempt, errno);
  }
  char where[PATH_MAX];
  if (::syscall(SYS_getcwd, where, sizeof where) < 0 || where[0] != '/')
    return Error{Code::denied, attempt, "it is outside of the enclave's root",
                 "name a folder of the enclave"};
  return {};
}

// Nobody in the namespaces that are joined may trace or look into this process (CVE-2016-9962); its
// program's execve ends that.
void hide() { (void)::prctl(PR_SET_DUMPABLE, 0); }

Result<void> bring_up_loopback() {
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (!socket || ::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0)
    return os_error("find the loopback interface", errno);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0)
    return os_error("bring up the loopback interface", errno);
  return {};
}

Result<void> bind_to(const std::string& list) {
  if (list.empty()) return {};
  HOBBES_TRY(cpus, CpuSet::parse(list));
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (unsigned cpu : cpus.members()) CPU_SET(cpu, &mask);
  if (::sched_setaffinity(0, sizeof mask, &mask) != 0)
    return os_error("bind to CPUs " + list, errno, "name CPUs of the enclave");
  return {};
}

// The file that execve will be given. Engines tell 126 from 127 by the phrases in these errors.
Result<std::string> find_program(const oci::Process& process) {
  const std::string& name = process.args[0];
  auto usable = [](const std::string& path) -> Result<void> {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return os_error("execute " + path, errno);
    if (S_ISDIR(info.st_mode))
      return Error{Code::denied, "execute " + path, "is a directory: permission denied", ""};
    if ((info.st_mode & 0111) == 0)
      return os_error("execute " + path, EACCES, "make it executable");
    return {};
  };
  if (name.find('/') != std::string::npos) {
    HOBBES_CHECK(usable(name));
    return name;
  }
  std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  for (const std::string& entry : process.env)
    if (entry.rfind("PATH=", 0) == 0) path = entry.substr(5);
  std::optional<Error> denied;
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t end = std::min(path.find(':', begin), path.size());
    std::string folder = path.substr(begin, end - begin);
    begin = end + 1;
    std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    auto found = usable(candidate);
    if (found) return candidate;
    if (found.error().code == Code::denied) denied = std::move(found).error();
  }
  if (denied) return *denied;
  return Error{Code::not_found, "execute '" + name + "'",
               "executable file not found in $PATH: no such file or directory",
               "give its absolute path, or add it to the image"};
}

// The last steps of every program: from here on only execve follows.
Result<void> finish(const ProcFs& proc, const oci::Process& process,
                    const std::optional<SeccompProgram>& seccomp, SeccompAgent agent,
                    const Json& state) {
  give_streams(process);
  HOBBES_CHECK(label_next_program(proc, process));
  auto load = [&]() -> Result<void> {
    HOBBES_TRY(listener, load_seccomp(*seccomp));
    return listener ? give_seccomp_listener(agent.socket, listener, state, agent.metadata)
                    : Result<void>();
  };
  // Without no_new_privs only a privileged thread may load a filter, so it comes before the
  // privileges go.
  if (seccomp && !process.no_new_privileges) HOBBES_CHECK(load());
  HOBBES_CHECK(become(process));
  if (process.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return os_error("set no_new_privs", errno);
  if (seccomp && process.no_new_privileges) HOBBES_CHECK(load());
  return {};
}

Error execute(const std::string& program, const oci::Process& process,
              const std::vector<std::string>& extra_environment,
              const std::optional<Interpreter>& interpreter, int preserve_fds, int passed_fds) {
  std::vector<std::string> environment = process.env;
  auto set = [&](const std::string& entry, bool replace) {
    std::string prefix = entry.substr(0, entry.find('=') + 1);
    for (std::string& old : environment)
      if (old.rfind(prefix, 0) == 0) {
        if (replace) old = entry;
        return;
      }
    environment.push_back(entry);
  };
  for (const std::string& entry : extra_environment) set(entry, true);
  Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  set("HOME=" + UserDatabase(root).home_of(process.user.uid).value_or("/"), false);
  // sd_listen_fds(3): descriptors are for the process that this number names.
  bool listens = preserve_fds > 0 &&
                 std::any_of(environment.begin(), environment.end(),
                             [](const std::string& e) { return e.rfind("LISTEN_FDS=", 0) == 0; });
  if (listens) set("LISTEN_PID=" + std::to_string(::getpid()), true);
  std::vector<char*> argv, envp;
  if (interpreter) {
    for (const std::string& arg : interpreter->arguments)
      argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(const_cast<char*>(program.c_str()));
  }
  for (const std::string& arg : process.args) argv.push_back(const_cast<char*>(arg.c_str()));
  for (const std::string& entry : environment) envp.push_back(const_cast<char*>(entry.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  ::syscall(SYS_close_range, 3 + passed_fds, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
  // Dispositions and masks of the runtime must not leak into the program.
  for (int number = 1; number < NSIG; ++number)
    if (number != SIGKILL && number != SIGSTOP) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (interpreter)
    ::syscall(SYS_execveat, interpreter->descriptor, "", argv.data(), envp.data(), AT_EMPTY_PATH);
  else
    ::execve(program.c_str(), argv.data(), envp.data());
  return os_error("execute " + program, errno);
}

Result<void> join(const std::vector<oci::Namespace>& namespaces) {
  // The user namespace first: it gives the right to enter those it owns. The mount namespace last:
  // paths change with it.
  for (int pass = 0; pass < 3; ++pass)
    for (const oci::Namespace& space : namespaces) {
      int order = space.type == "user" ? 0 : space.type == "mount" ? 2 : 1;
      if (order != pass) continue;
      Fd fd(::open(space.path.c_str(), O_RDONLY | O_CLOEXEC));
      if (!fd || ::setns(fd.get(), static_cast<int>(namespace_flag(space.type))) != 0)
        return os_error("join the " + space.type + " namespace " + space.path, errno);
    }
  return {};
}

Result<void> set_names(const oci::Config& oci) {
  if (!oci.hostname.empty() && ::sethostname(oci.hostname.c_str(), oci.hostname.size()) != 0)
    return os_error("set the host name to " + oci.hostname, errno, "add a uts namespace");
  if (!oci.domainname.empty() &&
      ::setdomainname(oci.domainname.c_str(), oci.domainname.size()) != 0)
    return os_error("set the domain name to " + oci.domainname, errno, "add a uts namespace");
  return {};
}

// Whom the namespace's ids allow: its root, else the first that is mapped, who keeps the rights of
// the namespace's maker until `become`.
Result<void> become_first(const InitPlan& plan) {
  if (::prctl(PR_SET_KEEPCAPS, 1) != 0)
    return os_error("keep capabilities over the change of user", errno);
  if ((plan.first_group &&
       ::setresgid(*plan.first_group, *plan.first_group, *plan.first_group) != 0) ||
      (plan.first_user && ::setresuid(*plan.first_user, *plan.first_user, *plan.first_user) != 0))
    return os_error("become the first user of the user namespace", errno,
                    "see uidMappings and gidMappings");
  return plan.first_user.value_or(0) != 0 ? raise_permitted() : Result<void>();
}

// Up to "ready": everything that can fail before the program is asked to run.
Result<std::string> prepare(const ProcFs& proc, InitPlan& plan, MessageSocket& parent) {
  const Bundle& bundle = plan.request->bundle;
  const oci::Process& process = *bundle.oci.process;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  HOBBES_TRY(answer,
             tell(parent, "born"));  // the parent maps ids and enters the control group meanwhile
  plan.state["pid"] = answer["pid"];
  hide();
  HOBBES_CHECK(join(plan.joined));
  if (plan.own_time) HOBBES_CHECK(enter_time_namespace(proc, bundle.oci.linux_.time_offsets));
  HOBBES_CHECK(become_first(plan));
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user has cleared it
  (void)::setsid();
  HOBBES_CHECK(label_new_keyrings(proc, process));
  if (!plan.request->no_new_keyring)
    (void)::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
  if (plan.late_namespaces != 0 && ::unshare(static_cast<int>(plan.late_namespaces)) != 0)
    return os_error("make the control group namespace", errno);
  for (const oci::Namespace& space : bundle.oci.linux_.namespaces)
    if (space.type == "network" && space.path.empty()) HOBBES_CHECK(bring_up_loopback());
  HOBBES_CHECK(set_names(bundle.oci));

  HOBBES_CHECK(set_parameters(proc, bundle.oci));
  HOBBES_TRY(root, Rootfs::build(plan.rootfs));
  HOBBES_CHECK(tell(parent, "mounted"));  // prestart and createRuntime hooks run in the parent
  HOBBES_CHECK(root.enter_folder());      // where hooks of the field expect to be
  HOBBES_CHECK(run_hooks(bundle.oci.hooks.create_container, "createContainer", plan.state));
  HOBBES_CHECK(root.seal());
  HOBBES_CHECK(root.enter(plan.request->no_pivot));
  if (process.terminal)
    HOBBES_CHECK(take_console(plan.console, process.console_size, process.user.uid,
                              !bundle.hobbes.host_root));
  HOBBES_CHECK(enter_directory(process.cwd));
  HOBBES_CHECK(root.finish());
  HOBBES_CHECK(apply_limits(process));
  HOBBES_CHECK(apply_memory_and_personality(bundle.oci.linux_));
  HOBBES_CHECK(apply_scheduling(process));
  HOBBES_TRY(program, find_program(process));
  ::prctl(PR_SET_PDEATHSIG, 0);
  // Its owner enters by this process, who in a user namespace has no other right to.
  if (plan.first_user) (void)::prctl(PR_SET_DUMPABLE, 1);
  return program;
}

}  // namespace

unsigned long namespace_flag(const std::string& type) {
  if (type == "pid") return CLONE_NEWPID;
  if (type == "network") return CLONE_NEWNET;
  if (type == "mount") return CLONE_NEWNS;
  if (type == "ipc") return CLONE_NEWIPC;
  if (type == "uts") return CLONE_NEWUTS;
  if (type == "user") return CLONE_NEWUSER;
  if (type == "cgroup") return CLONE_NEWCGROUP;
  return CLONE_NEWTIME;
}

void run_init(InitPlan& plan) {
  const oci::Process& process = *plan.request->bundle.oci.process;
  std::vector<Fd*> own = {&plan.start, &plan.console, &plan.sync, &plan.agent.socket};
  for (auto& [number, mount] : plan.rootfs.cloned) own.push_back(&mount.descriptor());
  if (plan.rootfs.devices) own.push_back(&plan.rootfs.devices->descriptor());
  auto passed = arrange_descriptors(own, plan.request->passed_fds, plan.request->preserve_fds);
  MessageSocket parent(std::move(plan.sync));
  if (!passed) fail(parent, passed.error());
  auto proc = ProcFs::open();  // the node's own, which no mount of the bundle stands for
  if (!proc) fail(parent, proc.error());
  auto program = prepare(*proc, plan, parent);
  if (!program) fail(parent, program.error());
  if (auto told = parent.send({{"stage", "ready"}}); !told) ::_exit(1);

  int connection = -1;
  do {
    connection = ::accept4(plan.start.get(), nullptr, nullptr, SOCK_CLOEXEC);
  } while (connection < 0 && errno == EINTR);
  if (connection < 0) ::_exit(1);
  MessageSocket starter((Fd(connection)));
  plan.state["status"] = "created";
  if (auto finished = finish(*proc, process, plan.seccomp, std::move(plan.agent), plan.state);
      !finished)
    fail(starter, finished.error());
  // These hooks are files of the enclave: they get the rights of its program and no others.
  auto hooked =
      run_hooks(plan.request->bundle.oci.hooks.start_container, "startContainer", plan.state);
  if (!hooked) fail(starter, hooked.error());
  fail(starter, execute(*program, process, plan.request->extra_environment,
                        plan.request->interpreter, plan.request->preserve_fds, *passed));
}

void run_exec(ExecPlan& plan) {
  const ExecRequest& request = *plan.request;
  const oci::Process& process = request.process;
  for (int stream = 0; stream < 3; ++stream)
    if (request.stdio[stream] != stream) (void)::dup2(request.stdio[stream], stream);
  auto passed = arrange_descriptors({&plan.target, &plan.console, &plan.sync, &plan.agent.socket},
                                    request.passed_fds, request.preserve_fds);
  MessageSocket parent(std::move(plan.sync));
  if (!passed) fail(parent, passed.error());
  auto proc = ProcFs::open();
  if (!proc) fail(parent, proc.error());
  auto prepare_exec = [&]() -> Result<std::string> {
    HOBBES_TRY(answer, tell(parent, "born"));
    plan.state["pid"] = answer["pid"];
    hide();
    HOBBES_CHECK(bind_to(process.cpu_affinity_initial));
    // One call joins them all, in the kernel's own order.
    if (plan.namespaces != 0 && ::setns(plan.target.get(), static_cast<int>(plan.namespaces)) != 0)
      return os_error("join the enclave's namespaces", errno);
    // Where ids include a root, become it; where they do not, the namespace's maker is privileged
    // in it as he is.
    if (plan.become_root && ((::setresgid(0, 0, 0) != 0 && errno != EINVAL) ||
                             (::setresuid(0, 0, 0) != 0 && errno != EINVAL)))
      return os_error("become root of the enclave's user namespace", errno);
    (void)::setsid();
    // The caller's keys stay the caller's.
    HOBBES_CHECK(label_new_keyrings(*proc, process));
    (void)::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
    if (process.terminal)
      HOBBES_CHECK(take_console(plan.console, process.console_size, process.user.uid, false));
    HOBBES_CHECK(apply_limits(process));
    HOBBES_CHECK(apply_scheduling(process));
    HOBBES_CHECK(bind_to(request.cpus));
    HOBBES_CHECK(bind_to(process.cpu_affinity_final));
    HOBBES_CHECK(enter_directory(process.cwd));
    return find_program(process);
  };
  auto program = prepare_exec();
  if (!program) fail(parent, program.error());
  if (auto finished = finish(*proc, process, plan.seccomp, std::move(plan.agent), plan.state);
      !finished)
    fail(parent, finished.error());
  // After the change of user, which clears it.
  if (request.die_with_parent) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  fail(parent, execute(*program, process, {}, request.interpreter, request.preserve_fds, *passed));
}

}  // namespace hobbes
