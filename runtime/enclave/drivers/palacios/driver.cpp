#include "enclave/drivers/palacios/driver.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "bundle/mount_options.h"
#include "core/file.h"
#include "core/paths.h"
#include "core/size.h"
#include "enclave/drivers/linux/console.h"
#include "enclave/drivers/linux/rootfs.h"
#include "enclave/drivers/linux/user_database.h"
#include "enclave/drivers/palacios/agent_connection.h"
#include "enclave/drivers/palacios/plan.h"
#include "enclave/drivers/palacios/shares.h"
#include "enclave/drivers/palacios/trial_guest.h"
#include "enclave/drivers/service.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

constexpr const char* kvm_path = "/dev/kvm";

std::string monitor_socket(const EnclaveRecord& record) {
  return record.folder() + "/palacios.sock";
}

Json process_for_agent(const oci::Process& process, const std::string& hostname,
                       const std::vector<std::string>& extra_environment) {
  Json out = {{"args", process.args},    {"env", process.env},
              {"cwd", process.cwd},      {"uid", process.user.uid},
              {"gid", process.user.gid}, {"groups", process.user.additional_gids},
              {"hostname", hostname},    {"terminal", process.terminal},
              {"rlimits", Json::array()}};
  for (const std::string& entry : extra_environment) out["env"].push_back(entry);
  if (process.user.umask) out["umask"] = *process.user.umask;
  if (process.console_size)
    out["consoleSize"] = {{"height", process.console_size->height},
                          {"width", process.console_size->width}};
  for (const oci::Rlimit& limit : process.rlimits)
    out["rlimits"].push_back({limit.resource, limit.soft, limit.hard});
  return out;
}

// Room for more memory: KVM keeps two bytes for each page of it, which `vm_overhead` has to hold;
// and no guest can get more than the node has.
std::uint64_t room_beyond(std::uint64_t memory) {
  constexpr std::uint64_t gib = 1ULL << 30U;
  std::uint64_t node = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * 4096;
  return (std::min(node, std::max(8 * gib, 4 * memory)) + gib - 1) / gib * gib;
}

// The addresses at which a guest maps files of a shared folder. Its kernel keeps 1/64 of them as a
// table in the guest's memory.
std::uint64_t window_within(std::uint64_t memory) {
  constexpr std::uint64_t unit = 2U << 20U, least = 64U << 20U, most = 1U << 30U;
  return std::clamp(memory / 4, least, most) / unit * unit;
}

Result<Fd> open_image(const Bundle& bundle, const std::string& path, const std::string& what,
                      int flags = O_RDONLY) {
  std::string whole = path.front() == '/' ? path : bundle.path + "/" + path;
  Fd out(::open(whole.c_str(), flags | O_CLOEXEC));
  if (!out)
    return os_error("open the " + what + " " + whole, errno,
                    "see hobbes.image and vm in the bundle");
  return out;
}

std::string command_line_of(const Bundle& bundle, bool disk_root) {
  // A panicking guest reboots at once, which the monitor tells from a reboot; both by the register
  // that ACPI names.
  std::string out = "panic=-1 reboot=acpi pci=off memhp_default_state=online_movable";
  auto add = [&](const std::string& word) {
    if (!word.empty()) out += " " + word;
  };
  if (disk_root) add("hobbes.root=/dev/vda");
  add(bundle.hobbes.image.cmdline);
  if (bundle.oci.vm)
    for (const std::string& word : bundle.oci.vm->kernel_parameters) add(word);
  return out;
}

// The agent's own words are those of mount(2).
unsigned long flags_of(const MountOptions& options) {
  unsigned long out = options.read_only() ? static_cast<unsigned long>(MS_RDONLY) : 0UL;
  for (const auto& [attribute, flag] :
       {std::pair{MOUNT_ATTR_NOSUID, MS_NOSUID}, std::pair{MOUNT_ATTR_NODEV, MS_NODEV},
        std::pair{MOUNT_ATTR_NOEXEC, MS_NOEXEC}, std::pair{MOUNT_ATTR_NOATIME, MS_NOATIME},
        std::pair{MOUNT_ATTR_NODIRATIME, MS_NODIRATIME}})
    if (((options.set | options.recursive_set) & static_cast<std::uint64_t>(attribute)) != 0)
      out |= static_cast<unsigned long>(flag);
  return out;
}

Result<void> limit_memory(const LinuxDriver& service, const EnclaveRecord& record,
                          std::uint64_t memory, std::uint64_t segment_room) {
  oci::Resources limit;
  limit.memory_limit = static_cast<std::int64_t>(memory + vm_overhead(memory) + segment_room);
  return service.update(record, {limit, true, {}, {}});
}

// What the guest has once it has come to `wanted`, or has stopped getting there.
Result<std::uint64_t> await_memory(const EnclaveRecord& record, std::uint64_t wanted, int tenths) {
  for (int i = 0;; ++i) {
    HOBBES_TRY(now, ask_monitor(record, {{"op", "ping"}}));
    auto has = static_cast<std::uint64_t>(number_at(now, "memory"));
    if (has == wanted || i == tenths) return has;
    ::usleep(100'000);
  }
}

// The guest's kernel does it, block by block, or does not; what it has not done after a while is
// taken back. The limit of the control group holds whatever the guest does: it is raised before,
// lowered after, and never below what the guest has.
Result<void> resize_memory(const LinuxDriver& service, const EnclaveRecord& record, const Json& now,
                           std::uint64_t wanted) {
  constexpr std::uint64_t block = 2U << 20U;
  const std::string attempt =
      "change the memory of enclave '" + record.id + "' to " + format_size(wanted);
  auto has = static_cast<std::uint64_t>(number_at(now, "memory")),
       least = static_cast<std::uint64_t>(number_at(now, "bootMemory")),
       room = static_cast<std::uint64_t>(number_at(now, "segmentRoom"));
  if (wanted >= least && (wanted - least) % block != 0)
    return Error{Code::invalid, attempt,
                 "a guest's memory changes in steps of " + format_size(block),
                 "choose " + format_size(wanted - (wanted - least) % block)};
  if (wanted > has) HOBBES_CHECK(limit_memory(service, record, wanted, room));
  auto asked = ask_monitor(record, {{"op", "memory"}, {"size", wanted}});
  if (!asked) {
    (void)limit_memory(service, record, has, room);
    return std::move(asked).error();
  }
  HOBBES_TRY(reached, await_memory(record, wanted, 200));
  if (reached == wanted) return limit_memory(service, record, wanted, room);
  (void)ask_monitor(record, {{"op", "memory"}, {"size", has}});
  auto left = await_memory(record, has, 100);
  (void)limit_memory(service, record, std::max(has, left ? *left : std::max(wanted, reached)),
                     room);
  return Error{
      Code::busy, attempt,
      "after 20 s its guest has come to " + format_size(reached) +
          (reached < wanted ? "" : ", and uses the rest") + ", so it keeps what it had",
      reached < wanted
          ? "its kernel needs a driver for virtio-mem and memhp_default_state=online_movable"
          : "end programs in it, or choose more"};
}

Result<AgentConnection> connect_to_agent(const EnclaveRecord& record, const std::string& attempt) {
  std::vector<Fd> fds;
  HOBBES_CHECK(ask_monitor(record, {{"op", "stream"}}, std::chrono::seconds(10), &fds));
  if (fds.size() != 1) return Error{Code::corrupt, attempt, "the monitor gave no stream", ""};
  return AgentConnection(std::move(fds[0]));
}

// The guest's numbers of the vCPUs that are bound to CPUs of the node.
Result<Json> vcpus_on(const EnclaveRecord& record, const std::string& list) {
  HOBBES_TRY(wanted, CpuSet::parse(list));
  HOBBES_TRY(machine, ask_monitor(record, {{"op", "ping"}}));
  Json out = Json::array();
  const Json bound = machine.value("cpus", Json::array());
  for (std::size_t i = 0; i < bound.size(); ++i)
    if (bound[i].is_number_unsigned() && wanted.has(bound[i].get<unsigned>())) out.push_back(i);
  if (out.empty())
    return Error{Code::invalid, "bind a program to CPUs " + list, "no vCPU runs on them",
                 "name CPUs of the enclave"};
  return out;
}

// A program of the guest, as a process of ours: it carries the streams and ends as the program
// ends.
[[noreturn]] void stand_in(AgentConnection program, const ExecRequest& request) {
  if (request.die_with_parent) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t passed_on;
  sigemptyset(&passed_on);
  for (int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2})
    sigaddset(&passed_on, number);
  ::sigprocmask(SIG_SETMASK, &passed_on, nullptr);
  Fd signals(::signalfd(-1, &passed_on, SFD_CLOEXEC));
  auto status =
      relay_stdio(program, {request.stdio[0], request.stdio[1], request.stdio[2], signals.get()});
  sigemptyset(&passed_on);
  ::sigprocmask(SIG_SETMASK, &passed_on, nullptr);
  if (!status) {
    std::string text = "hobbes-run: " + status.error().text() + "\n";
    (void)!::write(request.stdio[2], text.data(), text.size());
    ::_exit(1);
  }
  if (WIFSIGNALED(*status) && ends_processes(WTERMSIG(*status))) {
    ::signal(WTERMSIG(*status), SIG_DFL);
    ::prctl(PR_SET_DUMPABLE, 0);
    ::raise(WTERMSIG(*status));
  }
  ::_exit(exit_code_of(*status));
}

}  // namespace

Result<ForwardedPort> forward_port(const EnclaveRecord& record) {
  const std::string attempt = "forward a port of enclave '" + record.id + "'";
  HOBBES_TRY(agent, connect_to_agent(record, attempt));
  auto answer = agent.ask({{"op", "forward"}}, std::chrono::seconds(30));
  if (!answer) return std::move(answer.error()).within(attempt);
  const std::int64_t port = number_at(*answer, "port");
  if (port <= 0 || port > 0xffff)
    return Error{Code::corrupt, attempt, "the guest's agent has named no port", ""};
  return ForwardedPort{std::move(agent).release(), static_cast<std::uint16_t>(port)};
}

Result<Json> ask_monitor(const EnclaveRecord& record, const Json& request, milliseconds deadline,
                         std::vector<Fd>* out) {
  return ask_service(monitor_socket(record), "ask the monitor of enclave '" + record.id + "'",
                     request, deadline, {}, out);
}

std::optional<Error> PalaciosDriver::obstacle() const {
  const std::string attempt = "host enclaves of kind palacios";
  Fd kvm(::open(kvm_path, O_RDWR | O_CLOEXEC));
  if (!kvm && (errno == EACCES || errno == EPERM))
    return Error{Code::denied, attempt, "this user may not open /dev/kvm",
                 "join the group that owns it"};
  if (!kvm)
    return Error{
        Code::unavailable, attempt, "there is no /dev/kvm",
        "enable virtualisation in the firmware and load kvm-intel or kvm-amd, or use kind linux"};
  if (auto program = open_service_program("palacios"); !program)
    return std::move(program.error()).within(attempt);
  auto tried = remembered_trial(kvm, run_directory() + "/kvm-trial.json");
  if (!tried) return std::move(tried.error()).within(attempt);
  if (*tried)
    return Error{
        Code::unavailable, attempt, "/dev/kvm cannot run guests: " + **tried,
        "use a machine whose processor virtualises (svm or vmx in /proc/cpuinfo), or kind linux"};
  return std::nullopt;
}

Result<void> PalaciosDriver::create(const CreateRequest& request, EnclaveRecord& record) const {
  const Bundle& bundle = request.bundle;
  const HobbesSection& wishes = bundle.hobbes;
  std::string attempt = "create enclave '" + record.id + "'";
  HOBBES_TRY(cpus, CpuSet::parse(request.cpus));
  VmPlan plan;
  plan.name = record.id;
  plan.handle = record.handle;
  plan.cpus = cpus.members();
  plan.memory = request.memory;
  plan.page_size = wishes.memory.page_size;
  if (plan.page_size <= 4096) plan.spare = room_beyond(plan.memory);
  plan.boot_seconds = wishes.image.boot_seconds;
  plan.agent = bundle.oci.process || wishes.image.agent;
  plan.terminal = wishes.image.terminal;
  if (bundle.oci.process)
    plan.process =
        process_for_agent(*bundle.oci.process, bundle.oci.hostname, request.extra_environment);

  for (const SegmentRequest& segment : wishes.segments)
    plan.segments.push_back(
        {segment.name, segment.composition, segment.size != 0 || segment.writable});
  plan.segment_room = wishes.memory.segments;

  const auto& vm = bundle.oci.vm;
  std::vector<Fd> held;
  auto pass = [&](Fd fd) {
    held.push_back(std::move(fd));
    return static_cast<int>(2 + held.size());
  };
  Fd kvm(::open(kvm_path, O_RDWR | O_CLOEXEC));
  if (!kvm) return os_error("open /dev/kvm", errno);
  HOBBES_TRY(program, open_service_program("palacios"));
  HOBBES_TRY(socket, listen_at(monitor_socket(record), 0600, SOCK_SEQPACKET));
  Fd console(::open((record.folder() + "/console.log").c_str(),
                    O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640));
  if (!console) return os_error("open the console log", errno);
  std::string kernel_path = !wishes.image.kernel.empty() ? wishes.image.kernel : vm->kernel_path;
  HOBBES_TRY(kernel, open_image(bundle, kernel_path, "kernel"));
  for (Fd* fd : {&kvm, &program, &socket, &console, &kernel}) pass(std::move(*fd));
  pass(Fd());  // the plan, when it is made
  std::string initrd_path = !wishes.image.initrd.empty() ? wishes.image.initrd
                            : vm                         ? vm->initrd
                                                         : "";
  if (!initrd_path.empty()) {
    HOBBES_TRY(initrd, open_image(bundle, initrd_path, "initial RAM disk"));
    plan.initrd = pass(std::move(initrd));
  }
  // A folder becomes a device of the guest, which mounts it as `destination`.
  auto share = [&](Result<Fd> folder, const std::string& tag, bool read_only,
                   std::uint64_t window) -> Result<Json> {
    if (!folder) return std::move(folder.error()).within(attempt);
    plan.folders.push_back({pass(std::move(*folder)), tag, read_only, window});
    return Json{{"type", "virtiofs"},
                {"source", tag},
                {"flags", read_only ? static_cast<unsigned long>(MS_RDONLY) : 0UL},
                {"data", ""}};
  };
  const bool shared_root = wishes.host_root || !bundle.oci.root_path.empty();
  if (shared_root) {
    if (!wishes.host_root) HOBBES_CHECK(make_mount_points(bundle));
    const bool read_only = wishes.host_root || bundle.oci.root_readonly;
    HOBBES_TRY(root, share(wishes.host_root ? open_host_root()
                                            : open_folder(bundle.rootfs(), true, read_only),
                           "root", read_only, 0));
    root["destination"] = "/";
    plan.mounts.push_back(root);
  }
  unsigned mounted = 0;  // folders beside the root
  std::vector<SharedFile> files;
  for (const oci::Mount& mount : bundle.oci.mounts) {
    MountOptions options = parse_mount_options(mount.options);
    bool shared = is_bind(mount), read_only = options.read_only();
    if (is_the_guests(mount.destination) || (!shared && !plan.agent)) continue;
    std::string data;
    for (const std::string& option : options.data) data += (data.empty() ? "" : ",") + option;
    Json one = {{"type", mount.type}, {"source", mount.source}, {"data", data}};
    if (shared) {
      std::string path = bundle.source_of(mount);
      auto folder = is_folder(path);
      if (!folder) return std::move(folder.error()).within(attempt);
      if (*folder) {
        HOBBES_TRY(whole, share(open_folder(path, options.recursive, read_only),
                                "mount" + std::to_string(mounted++), read_only,
                                window_within(plan.memory)));
        one = std::move(whole);
      } else {
        one = {{"type", "file"}, {"source", std::to_string(files.size())}, {"data", ""}};
        files.push_back({path, read_only});
      }
    }
    one["destination"] = mount.destination;
    one["flags"] = flags_of(options);
    plan.mounts.push_back(one);
  }
  if (!files.empty()) {
    auto folder = open_files(files, record.folder());
    if (!folder) return std::move(folder.error()).within(attempt);
    plan.folders.push_back({pass(std::move(*folder)), HOBBES_FILES_TAG, false, 0});
  }
  if (plan.folders.size() > vm_folder_limit)
    return Error{Code::exhausted, attempt,
                 "it has more than " + std::to_string(vm_folder_limit) + " folders to share",
                 "share the one they are in"};
  bool disk_root = vm && !vm->image_path.empty();
  if (disk_root) {
    if (!vm->image_format.empty() && vm->image_format != "raw")
      return Error{Code::unsupported, attempt, "its disk image has the format " + vm->image_format,
                   "convert it: qemu-img convert -O raw"};
    plan.disk_read_only = bundle.oci.root_readonly;
    HOBBES_TRY(disk, open_image(bundle, vm->image_path, "disk image",
                                plan.disk_read_only ? O_RDONLY : O_RDWR));
    plan.disk = pass(std::move(disk));
  }
  plan.command_line = command_line_of(bundle, disk_root && !shared_root);

  // In memory, not in an argument: those are for everybody to read, and a program's environment is
  // not.
  Fd words(static_cast<int>(::memfd_create("plan", MFD_CLOEXEC)));
  if (!words) return os_error(attempt, errno);
  HOBBES_CHECK(write_all(words.get(), to_text(plan.json()), "the plan"));
  held[vm_plan - 3] = std::move(words);
  ServiceProgram monitor{
      vm_program, {}, {}, {"mount", "ipc", "uts", "network", "pid"}, bundle.terminal()};
  if (!plan.folders.empty()) {
    monitor.capabilities = {"CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_DAC_OVERRIDE",
                            "CAP_FOWNER"};  // of the threads that serve folders
    monitor.open_files =
        1U << 17U;  // more than a node could spare for one guest, and fewer than it has
  }
  HOBBES_TRY(inner, service_bundle(bundle, monitor));
  CreateRequest service;
  service.bundle = std::move(inner);
  service.cpus = wishes.service_cores ? (cpus | *wishes.service_cores).text() : request.cpus;
  service.mems = request.mems;
  service.memory = request.memory + vm_overhead(request.memory) + wishes.memory.segments;
  service.delegated_cgroup = request.delegated_cgroup;
  service.console_socket = request.console_socket;
  service.no_pivot = request.no_pivot;
  service.no_new_keyring = request.no_new_keyring;
  for (const Fd& fd : held) service.passed_fds.push_back(fd.get());
  auto made = service_.create(service, record);
  // What later programs start from is the bundle's own word, not the monitor's.
  if (made) made = replace_file(record.folder() + "/config.json", to_text(bundle.config), 0600);
  if (!made) (void)destroy(record, milliseconds(5000));
  return made;
}

Result<void> PalaciosDriver::start(const EnclaveRecord& record) const {
  HOBBES_CHECK(service_.start(record));
  // The monitor has a deadline of its own, and says what happened.
  HOBBES_CHECK(ask_monitor(record, {{"op", "started"}}, std::chrono::hours(2)));
  return {};
}

Result<void> PalaciosDriver::signal(const EnclaveRecord& record, int number, bool all) const {
  return service_.signal(record, number, all);
}

// The guest stops between two instructions and learns of it when it goes on. Its control group is
// not frozen: before Linux 6.14 it holds a thread of KVM's own that does not freeze, so the kernel
// would never finish.
Result<void> PalaciosDriver::pause(const EnclaveRecord& record) const {
  if (record.status() != Status::running) return not_running(record, "pause");
  HOBBES_CHECK(replace_file(record.pause_note(), ""));
  auto paused = ask_monitor(record, {{"op", "pause"}});
  if (paused) return {};
  ::unlink(record.pause_note().c_str());
  return std::move(paused).error();
}

Result<void> PalaciosDriver::resume(const EnclaveRecord& record) const {
  if (record.status() != Status::paused)
    return Error{Code::busy, "resume enclave '" + record.id + "'", "it is not paused", ""};
  HOBBES_CHECK(ask_monitor(record, {{"op", "resume"}}));
  ::unlink(record.pause_note().c_str());
  return {};
}

Result<void> PalaciosDriver::update(const EnclaveRecord& record,
                                    const UpdateRequest& request) const {
  if (!request.leased) return service_.update(record, request);
  if (record.status() != Status::running) return not_running(record, "update");
  HOBBES_TRY(now, ask_monitor(record, {{"op", "ping"}}));
  std::uint64_t wanted = 0;
  for (const auto& [node, bytes] : request.memory) wanted += bytes;
  // Memory first: the guest may refuse, and nothing else has changed then.
  UpdateRequest places = request;
  places.resources.memory_limit.reset();
  places.resources.cpus.clear();
  HOBBES_CHECK(service_.update(record, places));
  if (wanted != 0 && wanted != static_cast<std::uint64_t>(number_at(now, "memory")))
    HOBBES_CHECK(resize_memory(service_, record, now, wanted));
  if (request.cpus.empty()) return {};
  UpdateRequest cores = request;
  cores.resources.memory_limit.reset();
  HOBBES_CHECK(service_.update(record, cores));
  HOBBES_CHECK(ask_monitor(record, {{"op", "pin"}, {"cpus", request.cpus.members()}}));
  return {};
}

Result<pid_t> PalaciosDriver::exec(const EnclaveRecord& record, const ExecRequest& given) const {
  ExecRequest request = given;
  std::string attempt = "execute a program in enclave '" + record.id + "'";
  if (record.status() != Status::running) return not_running(record, "execute a program in");
  if (!request.passed_fds.empty() || request.preserve_fds != 0)
    return Error{Code::unsupported, attempt, "descriptors cannot be passed into a virtual machine",
                 "use the standard streams"};
  if (!request.cgroups.empty())
    return Error{Code::unsupported, attempt, "the control groups of its kernel are its own",
                 "leave --cgroup out"};
  if (!request.user.empty()) {
    // Names are the guest's to know; only numbers mean the same on both sides.
    HOBBES_TRY(user, UserDatabase("", "").resolve(request.user, request.process.user));
    request.process.user = std::move(user);
  }
  add_groups(request);
  Fd console;
  if (request.process.terminal) {
    HOBBES_TRY(connected, connect_console(request.console_socket));
    console = std::move(connected);
  }
  Json process = process_for_agent(request.process, "", {});
  if (!request.cpus.empty()) {
    HOBBES_TRY(vcpus, vcpus_on(record, request.cpus));
    process["vcpus"] = vcpus;
  }
  HOBBES_TRY(program, connect_to_agent(record, attempt));
  auto answer =
      program.ask({{"op", "run"}, {"process", std::move(process)}}, std::chrono::seconds(60));
  if (!answer) return std::move(answer.error()).within(attempt);
  pid_t child = ::fork();
  if (child < 0) return os_error(attempt, errno);
  if (child != 0) return child;
  if (request.process.terminal) {
    (void)::setsid();
    if (auto taken = take_console(console, request.process.console_size, ::geteuid(), false);
        !taken)
      ::_exit(1);
    // The terminal is the guest's to interpret; ours hands on bytes.
    termios settings{};
    if (::tcgetattr(STDIN_FILENO, &settings) == 0) {
      ::cfmakeraw(&settings);
      (void)::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
    }
    ExecRequest on_terminal = request;
    for (int stream = 0; stream < 3; ++stream) on_terminal.stdio[stream] = stream;
    stand_in(std::move(program), on_terminal);
  }
  stand_in(std::move(program), request);
}

Result<std::vector<pid_t>> PalaciosDriver::processes(const EnclaveRecord& record) const {
  return service_.processes(record);
}

std::map<std::string, std::uint64_t> PalaciosDriver::statistics(const EnclaveRecord& record) const {
  auto out = service_.statistics(record);
  if (record.status() != Status::running) return out;
  auto machine = ask_monitor(record, {{"op", "statistics"}}, milliseconds(2000));
  if (!machine) return out;
  for (const auto& [key, value] : machine->items())
    if (value.is_number_unsigned()) out["palacios." + key] = value.get<std::uint64_t>();
  return out;
}

Result<Json> PalaciosDriver::ping(const EnclaveRecord& record) const {
  return ask_monitor(record, {{"op", "ping"}});
}

Result<void> PalaciosDriver::destroy(const EnclaveRecord& record, milliseconds deadline) const {
  HOBBES_CHECK(service_.destroy(record, deadline));
  ::unlink(monitor_socket(record).c_str());
  return {};
}

}  // namespace hobbes
