// The agent: process 1 of a Linux guest. Makes it a system, loads the modules its image carries,
// and holds conversations with the monitor over vsock (abi/agent.h), each in a process of its own.
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <sstream>

#include "core/beneath.h"
#include "core/file.h"
#include "core/paths.h"
#include "core/window.h"
#include "ipc/message_socket.h"
#include "vmm/agent/channels.h"
#include "vmm/agent/monitor.h"
#include "vmm/agent/places.h"
#include "vmm/agent/port_forward.h"
#include "vmm/agent/program.h"
#include "vmm/agent/segments.h"

namespace hobbes::agent {
namespace {

using std::chrono::milliseconds;

void say(const std::string& text) {
  Fd log(::open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
  if (log) (void)!::write(log.get(), text.data(), text.size());
}

void mount_system() {
  struct Standard {
    const char *type, *at;
    unsigned long flags;
    const char* data;
  };
  static constexpr Standard mounts[] = {
      {"proc", "/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, ""},
      {"sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV, ""},
      {"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
      {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666"},
      {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
      {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"},
      {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"}};
  for (const Standard& m : mounts) {
    (void)::mkdir(m.at, 0755);
    (void)::mount(m.type, m.at, m.type, m.flags, m.data);
  }
  (void)::mkdir("/run/hobbes", 0755);
}

// In the order the image says: its maker resolved the dependencies.
void load_modules(const std::string& list) {
  auto order = Files::system().read("/modules/" + list);
  if (!order) return;
  std::istringstream names(*order);
  for (std::string name; std::getline(names, name);) {
    Fd module(::open(("/modules/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!module || (::syscall(SYS_finit_module, module.get(), "", 0) != 0 && errno != EEXIST))
      say("agent: module " + name + " does not load: " + std::strerror(errno) + "\n");
  }
}

std::string kernel_argument(const std::string& name) {
  std::istringstream words(Files::system().read("/proc/cmdline").value_or(""));
  for (std::string word; words >> word;)
    if (word.rfind(name + "=", 0) == 0) return word.substr(name.size() + 1);
  return {};
}

// What of the guest's own is seen in its programs' root, too.
void complete_root() {
  struct stat info {};
  if (::stat(program_root, &info) != 0) return;
  for (const char* name : {"/proc", "/sys", "/dev", "/run", "/tmp"}) {
    std::string at = std::string(program_root) + name;
    (void)::mkdir(at.c_str(), 0755);
    (void)::mount(name, at.c_str(), nullptr, MS_BIND | MS_REC, nullptr);
  }
}

// Programs see the image's root: a disk, a folder of the node (which comes with the bundle's
// mounts), or the agent's own small system.
void mount_disk() {
  std::string disk = kernel_argument("hobbes.root");
  if (disk.empty()) return;
  (void)::mkdir(program_root, 0755);
  bool mounted = false;
  for (const char* type : {"ext4", "ext3", "ext2", "squashfs", "iso9660"})
    for (unsigned long flags : {0UL, static_cast<unsigned long>(MS_RDONLY)})
      mounted = mounted || ::mount(disk.c_str(), program_root, type, flags, nullptr) == 0;
  if (!mounted) {
    say("agent: " + disk + " holds no file system that can be mounted\n");
    (void)::rmdir(program_root);
    (void)replace_file(
        "/run/no-root",
        "its disk holds no file system that can be mounted (ext4, squashfs, iso9660)");
  }
  complete_root();
}

// Where the agent has the node's single files, of which programs see those that the bundle mounts.
constexpr const char* files_folder = "/files";
constexpr const char* drivers_needed =
    "its initial RAM disk needs the drivers fuse and virtiofs; bundles/linux-vm/build brings them";

Result<void> mount_files() {
  if (::mkdir(files_folder, 0700) != 0)
    return errno == EEXIST ? Result<void>() : os_error("share single files in the guest", errno);
  if (::mount(HOBBES_FILES_TAG, files_folder, "virtiofs", MS_NOSUID | MS_NODEV, "") != 0)
    return os_error("share single files in the guest", errno, drivers_needed);
  return {};
}

// What the bundle wants to see, where its program will look for it. Drivers of shared folders are
// loaded for those who have one.
Result<void> mount_for_bundle(const Json& mounts) {
  for (const Json& one : mounts) {
    std::string type = text_at(one, "type"), destination = text_at(one, "destination"),
                source = text_at(one, "source");
    auto flags = static_cast<unsigned long>(number_at(one, "flags"));
    const bool file = type == "file";
    if (type == "virtiofs" || file) load_modules("order.folders");
    if (file) {
      HOBBES_CHECK(mount_files());
      source = std::string(files_folder) + "/" + source;
      flags = MS_BIND;  // whether it may be written the node has said
    }
    if (destination == "/") (void)::mkdir(program_root, 0755);
    // By the program's own links, which may be absolute.
    HOBBES_TRY(
        at, open_target(::access(program_root, F_OK) == 0 ? program_root : "/", destination, file));
    if (::mount(source.c_str(), ("/proc/self/fd/" + std::to_string(at.get())).c_str(), type.c_str(),
                flags, text_at(one, "data").c_str()) != 0)
      return os_error("mount " + type + " at " + destination + " in the guest", errno,
                      type == "virtiofs" ? drivers_needed : "");
    if (destination == "/") complete_root();
  }
  return {};
}

void bring_up_loopback() {
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (socket) (void)::ioctl(socket.get(), SIOCSIFFLAGS, &request);
}

void signal_program(pid_t program, const Json& word) {
  auto number = static_cast<int>(number_at(word, "number"));
  if (program <= 1 || number <= 0 || number >= NSIG) return;
  (void)::kill(program, number);
}

void converse(AgentConnection monitor, Shared& shared) {
  for (;;) {
    auto frame = monitor.receive(std::chrono::hours(24 * 365));
    if (!frame || frame->type != HOBBES_FRAME_JSON) return;
    auto word = parse_json(frame->content, "the monitor's word");
    if (!word || !word->is_object()) return;
    std::string op = text_at(*word, "op");
    if (op == "hello") {
      Json answer = {{"op", "hello"}, {"version", HOBBES_AGENT_VERSION}};
      if (auto mounted = mount_for_bundle(word->value("mounts", Json::array())); !mounted)
        answer["error"] = to_json(mounted.error());
      (void)monitor.send(answer);
    } else if (op == "ping") {
      (void)monitor.send({{"op", "ping"}});
    } else if (op == "signal") {
      signal_program(shared.main_program, *word);
    } else if (op == "resize" && shared.main_program > 1) {
      Fd terminal(::open(("/proc/" + std::to_string(shared.main_program) + "/fd/0").c_str(),
                         O_RDWR | O_NOCTTY | O_CLOEXEC));
      winsize window{};
      window.ws_row = static_cast<unsigned short>(number_at(*word, "height"));
      window.ws_col = static_cast<unsigned short>(number_at(*word, "width"));
      if (terminal) (void)::ioctl(terminal.get(), TIOCSWINSZ, &window);
    } else if (op == "mirror") {
      (void)note_mirror_window({static_cast<std::uint64_t>(number_at(*word, "address")),
                                static_cast<std::uint64_t>(number_at(*word, "size"))});
    } else if (op == "run") {
      return run_program(monitor, *word, shared);
    } else if (op == "forward") {
      return forward_port(std::move(monitor));
    } else {
      (void)monitor.send({{"error", to_json(Error{Code::unsupported, "ask the guest's agent",
                                                  "it does not know the operation '" + op + "'",
                                                  "make its initial RAM disk anew, with this "
                                                  "Hobbes' agent"})}});
    }
  }
}

// hobbesd's place in the guest: libhobbes asks here as it does on the node.
Result<Message> answer_program(const Json& request, pid_t program, int attached) {
  std::string op = text_at(request, "op");
  // The end of what a name was published for withdraws it.
  if (op == "segment.detach" || op == "enclave.beat" || op == "name.withdraw")
    return Message{Json::object(), {}};
  if (op == "channel.connect") return open_channel(request);
  if (op == "name.publish") return publish_service(request);
  if (op == "segment.attach") return attach_segment(request, attached);
  if (op == "segment.listen" || op == "segment.listeners")
    return connect_doorbell(request, program);
  if (op == "segment.make") return make_segment(request, program);
  if (op == "self" || op == "segment.remove") {
    Json passed_on = {{"op", op}};
    if (request.contains("handle")) passed_on["handle"] = request["handle"];
    HOBBES_TRY(answer, ask_monitor(passed_on));
    return Message{std::move(answer), {}};
  }
  return Error{Code::unsupported, "ask for " + op,
               "a virtual machine's programs may make and attach segments, listen and connect, no "
               "more",
               "ask from outside of it"};
}

[[noreturn]] void serve_programs() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto listening = listen_at(control_socket_path(), 0666, SOCK_SEQPACKET);
  if (!listening) say("agent: " + listening.error().text() + "\n");
  ::signal(SIGCHLD, SIG_IGN);
  Fd attached(::eventfd(0, EFD_CLOEXEC));
  if (::fork() == 0) give_back_places(attached.get());
  for (;;) {
    pollfd ready{listening ? listening->get() : -1, POLLIN, 0};
    (void)::poll(&ready, 1, -1);
    Fd connection(::accept4(ready.fd, nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection || ::fork() != 0) continue;
    MessageSocket program(std::move(connection));
    auto peer = program.peer();
    while (auto request = program.receive(std::chrono::hours(24 * 365))) {
      // What is handed out reaches all of the guest's memory.
      auto done = peer && peer->uid == 0
                      ? answer_program(request->body, peer->pid, attached.get())
                      : Error{Code::denied, "ask the agent",
                              "only root of a virtual machine may attach segments", ""};
      Json body = done ? done->body : Json{{"error", to_json(done.error())}};
      body["ok"] = static_cast<bool>(done);
      std::vector<int> fds;
      if (done)
        for (const Fd& fd : done->fds) fds.push_back(fd.get());
      if (!program.send(body, fds)) break;
    }
    ::_exit(0);
  }
}

[[noreturn]] void serve() {
  if (::fork() == 0) serve_programs();
  auto* shared = static_cast<Shared*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Fd listening(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = HOBBES_AGENT_PORT;
  if (!listening ||
      ::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listening.get(), 64) != 0)
    say(std::string("agent: cannot listen: ") + std::strerror(errno) + "\n");
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &children, nullptr);
  Fd ended(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  for (;;) {
    pollfd watched[2] = {{listening.get(), POLLIN, 0}, {ended.get(), POLLIN, 0}};
    (void)::poll(watched, 2, -1);
    signalfd_siginfo info{};
    (void)!::read(ended.get(), &info, sizeof info);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {  // conversations, and orphans of programs
    }
    if ((watched[0].revents & POLLIN) == 0) continue;
    sockaddr_vm peer{};
    socklen_t size = sizeof peer;
    Fd stream(::accept4(listening.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
    if (!stream || peer.svm_cid != VMADDR_CID_HOST)
      continue;  // a program inside has nothing to ask here
    pid_t child = ::fork();
    if (child < 0)
      say(std::string("agent: no process for a conversation: ") + std::strerror(errno) + "\n");
    if (child != 0) continue;
    listening.reset();
    ended.reset();
    converse(AgentConnection(std::move(stream)), *shared);
    ::_exit(0);
  }
}

}  // namespace
}  // namespace hobbes::agent

int main() {
  if (::getpid() != 1) {
    std::fprintf(stderr, "this is the process 1 of virtual machines; see docs/PALACIOS.md\n");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  hobbes::agent::mount_system();
  hobbes::agent::load_modules("order");
  hobbes::agent::mount_disk();
  hobbes::agent::bring_up_loopback();
  hobbes::agent::serve();
}
