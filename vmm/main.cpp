// Palacios: the monitor of one virtual machine, and the enclave process of kind `palacios`.
// hobbes-run has opened what it needs; this boots the guest, talks with its agent, carries the
// bundle's program's streams, answers requests, and ends when the guest ends. Exit: the program's
// own status, 128 and the signal's number when it ended by one; 0 after power-off; 75 when the
// guest asks for a reboot; 134 when it crashed.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <list>

#include "core/file.h"
#include "core/paths.h"
#include "core/process.h"
#include "enclave/drivers/palacios/conversation.h"
#include "enclave/drivers/palacios/plan.h"
#include "enclave/drivers/service.h"
#include "ipc/channel.h"
#include "ipc/client.h"
#include "vmm/bells.h"
#include "vmm/confinement.h"
#include "vmm/frames.h"
#include "vmm/machine.h"
#include "xemem/segment.h"

namespace hobbes::vmm {
namespace {

constexpr std::chrono::milliseconds heartbeat(
    4000);  // hobbesd's shortest patience is 10 s; each costs an idle guest five exits

using std::chrono::milliseconds;

constexpr milliseconds terminal_patience(
    100);  // once, with a reader that does not read; what it misses is in the console log

std::uint64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(t.tv_nsec);
}

void log_text(std::string_view text) { append_to_console(vm_console, text); }

[[noreturn]] void crash(const VmPlan& plan, const std::string& why) {
  log_text("palacios: the guest crashed: " + why + "\n");
  tell_manager(plan.handle, {{"event", "crashed"}, {"cause", why}});
  // As a program that met a fault; in a pid namespace of its own it cannot die by a signal of its
  // own.
  std::_Exit(128 + SIGABRT);
}

// The program inside ended by a signal: so do we.
[[noreturn]] void end_as(int wait_status) {
  if (WIFEXITED(wait_status)) std::_Exit(WEXITSTATUS(wait_status));
  if (::getpid() == 1 || !ends_processes(WTERMSIG(wait_status)))
    std::_Exit(128 + WTERMSIG(wait_status));  // 1 is immune to its own signals
  sigset_t all;
  sigemptyset(&all);
  ::signal(WTERMSIG(wait_status), SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::raise(WTERMSIG(wait_status));
  std::_Exit(128 + WTERMSIG(wait_status));
}

// The terminal is the guest's to interpret; ours hands on bytes.
void make_terminal_raw() {
  termios settings{};
  if (::tcgetattr(STDIN_FILENO, &settings) != 0) return;
  ::cfmakeraw(&settings);
  (void)::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

winsize terminal_window() {
  winsize window{};
  (void)::ioctl(STDIN_FILENO, TIOCGWINSZ, &window);
  return window;
}

Json window_size() {
  winsize window = terminal_window();
  return {{"height", window.ws_row}, {"width", window.ws_col}};
}

class Monitor {
 public:
  Monitor(VmPlan plan, EventLoop loop) : plan_(std::move(plan)), loop_(std::move(loop)) {}

  [[noreturn]] void run() {
    begun_ns_ = now_ns();
    auto ready = set_up();
    if (!ready) fail(ready.error());
    for (;;) loop_.run_once(-1);
  }

 private:
  Result<void> set_up() {
    sigset_t signals;
    sigemptyset(&signals);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT})
      sigaddset(&signals, number);
    sigaddset(&signals, kick_signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    sigdelset(&signals, kick_signal);
    struct sigaction nothing {};
    nothing.sa_handler = [](int) {};
    ::sigaction(kick_signal, &nothing, nullptr);

    signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    HOBBES_CHECK(loop_.watch(signals_.get(), EPOLLIN, [this](auto) { take_signals(); }));
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    set_timer(milliseconds(20));
    HOBBES_CHECK(loop_.watch(timer_.get(), EPOLLIN, [this](auto) { tick(); }));
    HOBBES_CHECK(loop_.watch(vm_socket, EPOLLIN, [this](auto) { accept_one(); }));
    program_ended_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    HOBBES_CHECK(loop_.watch(program_ended_.get(), EPOLLIN, [this](auto) { end_with_program(); }));

    MachineConfig config;
    config.cpus = plan_.cpus;
    config.memory = plan_.memory;
    config.page_size = plan_.page_size;
    config.spare = plan_.spare;
    config.enclave = static_cast<std::uint32_t>(plan_.handle);
    config.image = {vm_kernel, plan_.initrd, plan_.command_line};
    config.kvm.reset(::fcntl(vm_kvm, F_DUPFD_CLOEXEC, 64));
    if (plan_.disk >= 0) config.disk.reset(::fcntl(plan_.disk, F_DUPFD_CLOEXEC, 64));
    config.disk_read_only = plan_.disk_read_only;
    for (const VmPlan::Folder& folder : plan_.folders)
      config.folders.push_back({Fd(folder.descriptor), folder.tag});
    HOBBES_TRY(machine, Machine::make(std::move(config), loop_,
                                      [this](std::string_view text) { print(text); }));
    machine_ = std::move(machine);
    for (int fd : {static_cast<int>(vm_kernel), plan_.initrd, plan_.disk, static_cast<int>(vm_kvm)})
      if (fd >= 0) ::close(fd);
    if (plan_.terminal) HOBBES_CHECK(connect_terminal());
    machine_->vsock().listen(HOBBES_MONITOR_PORT,
                             [this](Fd stream) { hear_guest(std::move(stream)); });
    HOBBES_CHECK(loop_.watch(machine_->ended_fd(), EPOLLIN, [this](auto) { end_with_guest(); }));
    // Made now: this thread may make none once it is confined.
    carrier_ = std::thread([this, program = to_carrier_.get_future()]() mutable {
      if (auto confined = confine(Role::serve); !confined) return;
      Conversation conversation(program.get());
      auto status = carry(conversation, {});
      program_status_ = status ? *status : -1;
      std::uint64_t one = 1;
      (void)!::write(program_ended_.get(), &one, sizeof one);
    });
    carrier_.detach();
    HOBBES_CHECK(machine_->start());
    HOBBES_CHECK(confine(Role::serve));
    phase("machine");
    if (!plan_.agent) answer_starters({});
    return {};
  }

  // Keys go to the guest as fast as it takes them.
  Result<void> connect_terminal() {
    make_terminal_raw();
    tell_window_size();
    room_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    machine_->on_room([room = room_.get()] {
      std::uint64_t one = 1;
      (void)!::write(room, &one, sizeof one);
    });
    HOBBES_CHECK(loop_.watch(room_.get(), EPOLLIN, [this](auto) {
      std::uint64_t count = 0;
      (void)!::read(room_.get(), &count, sizeof count);
      hand_on_keys();
    }));
    return loop_.watch(STDIN_FILENO, EPOLLIN, [this](auto) { take_keys(); });
  }

  void tell_window_size() {
    winsize window = terminal_window();
    machine_->resize(window.ws_col, window.ws_row);
  }

  void take_keys() {
    char keys[4096];
    ssize_t n = ::read(STDIN_FILENO, keys, sizeof keys);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) return loop_.unwatch(STDIN_FILENO);  // nobody is there any more
    typed_.append(keys, static_cast<std::size_t>(n));
    hand_on_keys();
  }

  void hand_on_keys() {
    typed_.erase(0, machine_->type(typed_));
    (void)loop_.change(STDIN_FILENO, typed_.empty() ? std::uint32_t{EPOLLIN} : 0U);
  }

  // The phases of a start, timed for people and benchmarks.
  void phase(const char* name) {
    phases_[name] = (now_ns() - begun_ns_) / 1000;
    log_text("palacios: " + std::string(name) + " after " +
             std::to_string((now_ns() - begun_ns_) / 1'000'000) + " ms\n");
  }

  void print(std::string_view text) {
    std::scoped_lock guard(print_lock_);
    for (const char& c : text) {
      // One by one: a terminal with room for one may not have it for more, and nobody waits for it
      // here.
      if (plan_.terminal)
        terminal_reads_ =
            show_creator({&c, 1}, terminal_reads_ ? terminal_patience : milliseconds(0));
      printed_ += c;
      if (c != '\n' && printed_.size() < 256) continue;
      log_text(printed_);
      // Without an agent a guest has only its consoles to speak to people.
      if (!plan_.agent && !plan_.terminal) (void)show_creator(printed_);
      printed_.clear();
    }
  }

  void set_timer(milliseconds every) const {
    itimerspec when{};
    when.it_interval.tv_sec = every.count() / 1000;
    when.it_interval.tv_nsec = every.count() % 1000 * 1'000'000;
    when.it_value = when.it_interval;
    ::timerfd_settime(timer_.get(), 0, &when, nullptr);
  }

  // ---- the end ----

  // Before anything runs, or in a state that nothing can be made of.
  [[noreturn]] void fail(const Error& error) {
    answer_starters(error);
    for (int i = 0; i < 100 && !answered_failure_;
         ++i) {  // whoever asked for the start connects about now
      pollfd waiting{vm_socket, POLLIN, 0};
      if (::poll(&waiting, 1, 10) == 1) accept_one();
      for (auto client = clients_.begin(); client != clients_.end();) client = serve(client, error);
    }
    crash(plan_, error.text());
  }

  std::list<Channel>::iterator serve(std::list<Channel>::iterator client, const Error& error) {
    auto request = client->receive(milliseconds(10));
    if (!request && request.error().code == Code::timeout) return std::next(client);
    if (request) {
      (void)client->send({{"ok", false}, {"error", to_json(error)}});
      answered_failure_ = true;
    }
    loop_.unwatch(client->fd());
    return clients_.erase(client);
  }

  [[noreturn]] void end_with_guest() {
    Machine::End end = machine_->end();
    std::string what =
        std::string(name_of(end.how)) + (end.detail.empty() ? "" : ": " + end.detail);
    if (end.how == Ending::powered_off || end.how == Ending::rebooted) {
      log_text("palacios: the guest " + what + "\n");
      if (!started_ && plan_.agent)
        fail(Error{Code::unavailable, "start the guest",
                   "it " + what + " before its agent answered", "see its console"});
      std::_Exit(end.how == Ending::rebooted ? vm_rebooted_status : 0);
    }
    if (!started_ && plan_.agent) fail(Error{Code::os, "start the guest", what, "see its console"});
    crash(plan_, what);
  }

  void end_with_program() {
    int status = program_status_;
    if (status < 0) return miss_agent();
    end_as(status);
  }

  // The guest itself may be ending, which takes a moment and says better why.
  void miss_agent() {
    loop_.unwatch(program_ended_.get());
    if (missed_ns_ == 0) missed_ns_ = now_ns();
    set_timer(milliseconds(200));
  }

  void take_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
      auto number = static_cast<int>(info.ssi_signo);
      if (number == SIGCONT) continue;
      if (agent_ && started_ && !plan_.process.is_null()) {
        Json request = {{"op", "signal"}, {"number", number}};
        if (number == SIGWINCH) {
          request = window_size();
          request["op"] = "resize";
        }
        (void)agent_->send(request);
      } else if (number == SIGWINCH) {
        if (plan_.terminal) tell_window_size();
      } else if (number == SIGTERM && !plan_.agent && !std::exchange(power_button_pressed_, true)) {
        log_text("palacios: the guest is asked to power off; the next TERM ends it\n");
        machine_->press_power_button();
      } else {
        end_as(number);  // nobody inside to be told
      }
    }
  }

  // ---- the agent ----

  void tick() {
    std::uint64_t ticks = 0;
    (void)!::read(timer_.get(), &ticks, sizeof ticks);
    if (!plan_.agent) {
      set_timer(heartbeat);
      return beat();
    }
    if (!started_ && (now_ns() - begun_ns_) / 1'000'000'000U > plan_.boot_seconds)
      fail(Error{Code::timeout, "start the guest",
                 agent_answered_ ? "its agent did not start the program within " +
                                       std::to_string(plan_.boot_seconds) + " s"
                                 : "its agent did not answer within " +
                                       std::to_string(plan_.boot_seconds) + " s",
                 "see its console; hobbes.image.bootSeconds changes the limit"});
    if (missed_ns_ != 0) {
      if (now_ns() - missed_ns_ > 10'000'000'000U) crash(plan_, "the guest's agent is gone");
      return;
    }
    if (!agent_answered_) return reach_agent();
    if (machine_->paused()) return;
    if (!asked_) {
      asked_ = static_cast<bool>(agent_->send({{"op", "ping"}}));
    }
    show_mirror();
  }

  void reach_agent() {
    if (agent_) return;
    auto stream = machine_->vsock().connect(HOBBES_AGENT_PORT);
    if (!stream) return;  // its driver is not there yet
    agent_.emplace(std::move(*stream));
    if (!agent_->send({{"op", "hello"}, {"mounts", plan_.mounts}}) ||
        !loop_.watch(agent_->fd(), EPOLLIN | EPOLLRDHUP, [this](auto) { hear_agent(); }))
      agent_.reset();
  }

  void hear_agent() {
    auto words = agent_->receive();
    if (!words) {
      loop_.unwatch(agent_->fd());
      agent_.reset();
      if (agent_answered_) miss_agent();
      return;  // nobody listens yet
    }
    for (const Json& word : *words) {
      if (!agent_answered_) {
        if (word.contains("error")) fail(error_from(word["error"]));
        if (!plan_.mounts.empty() && number_at(word, "version") < 4)
          fail(Error{Code::unsupported, "start the guest", "its agent is too old to mount anything",
                     "make its initial RAM disk anew, with this Hobbes' agent"});
        agent_answered_ = true;
        phase("agent");
        set_timer(heartbeat);
        show_mirror();
        begin_program();
      } else if (asked_ && text_at(word, "op") == "ping") {
        asked_ = false;
        beat();
      }
    }
  }

  static void beat() {
    if (auto client = Client::connect(false))
      (void)client->call("enclave.beat", Json::object(), {}, milliseconds(1000));
  }

  void begin_program() {
    if (plan_.process.is_null()) {  // programs come by exec
      started_ = true;
      return answer_starters({});
    }
    Json process = plan_.process;
    if (process.value("terminal", false)) {
      process["consoleSize"] = window_size();
      make_terminal_raw();
    }
    auto stream = machine_->vsock().connect(HOBBES_AGENT_PORT);
    if (!stream) fail(stream.error());
    program_.emplace(std::move(*stream));
    if (!program_->send({{"op", "run"}, {"main", true}, {"process", process}}))
      fail(Error{Code::invalid, "start the guest",
                 "its program's arguments and environment are too long", "make them shorter"});
    auto watched = loop_.watch(program_->fd(), EPOLLIN | EPOLLRDHUP, [this](auto) {
      auto words = program_->receive_one();
      if (!words)
        fail(Error{Code::unavailable, "start the guest", "its agent has gone", "see its console"});
      if (words->empty()) return;
      const Json& word = words->front();
      if (word.contains("error")) fail(error_from(word["error"]));
      loop_.unwatch(program_->fd());
      phase("program");
      started_ = true;
      answer_starters({});
      to_carrier_.set_value(std::move(*program_).release());
    });
    if (!watched) fail(watched.error());
  }

  // ---- the fabric ----

  // The mirror is slot 0 of the window: read-only, and shown again when hobbesd has made a new one.
  void show_mirror() {
    Fd fd(::open(mirror_path().c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0 || info.st_size == 0) return;
    auto size = (static_cast<std::uint64_t>(info.st_size) + 4095) & ~4095ULL;
    if (mirror_ != MAP_FAILED && info.st_ino == mirror_inode_ && size == mirror_size_) return;
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (mapped == MAP_FAILED) return;
    if (mirror_ != MAP_FAILED) {
      (void)machine_->hide(Machine::first_free_slot);
      ::munmap(mirror_, mirror_size_);
    }
    mirror_ = mapped;
    mirror_inode_ = info.st_ino;
    mirror_size_ = size;
    if (auto shown = machine_->show(Machine::first_free_slot, window_at, size, mapped, true);
        !shown)
      log_text("palacios: the guest sees no mirror: " + shown.error().text() + "\n");
    else if (agent_)
      (void)agent_->send({{"op", "mirror"}, {"address", window_at}, {"size", size}});
  }

  struct Shown {
    SegmentAccess access;
    unsigned slot = 0;
    void* host = nullptr;
    std::uint64_t size = 0;  // bytes mapped
    std::uint64_t uses = 0;  // how often it was attached
    [[nodiscard]] Gpa address() const {
      return window_at + (slot - Machine::first_free_slot) * window_stride;
    }
  };
  using Shelf =
      std::map<std::pair<std::string, bool>, Shown>;  // by name and whether it is writable

  [[nodiscard]] Result<void> check_listed(const std::string& name, bool writable,
                                          const std::string& attempt) const {
    auto listed = plan_.segments.find(name);
    if (listed == plan_.segments.end())
      return Error{Code::denied, attempt, "the enclave's bundle does not list it",
                   "add it to hobbes.segments"};
    if (writable && *listed != true)
      return Error{Code::denied, attempt, "the bundle lists it as \"ro\"", "list it as \"rw\""};
    return {};
  }

  // Segments that the bundle lists, asked for by programs inside: the memory of each is a slot of
  // its own.
  Result<Json> attach(const Json& request) {
    std::string name = text_at(request, "name"), attempt = "attach segment '" + name + "'";
    bool writable = text_at(request, "access") == "rw";
    HOBBES_CHECK(check_listed(name, writable, attempt));
    auto at = shown_.find({name, writable});
    if (at == shown_.end()) {
      HOBBES_TRY(fresh, show_segment(name, writable, attempt));
      at = shown_.emplace(std::pair{name, writable}, std::move(fresh)).first;
    }
    ++at->second.uses;
    return Json{{"address", at->second.address()}, {"size", at->second.access.size()}};
  }

  Result<Shown> show_segment(const std::string& name, bool writable, const std::string& attempt) {
    unsigned slot = Machine::first_free_slot + 1;
    auto taken = [&] {
      return std::any_of(shown_.begin(), shown_.end(),
                         [&](const auto& one) { return one.second.slot == slot; });
    };
    while (taken()) ++slot;
    if (slot >= Machine::slot_limit)
      return Error{Code::exhausted, attempt, "too many segments are shown to the guest", ""};
    HOBBES_TRY(access, SegmentAccess::get(name, writable, milliseconds(2000)));
    std::uint64_t size = (access.size() + 4095) & ~4095ULL;
    if (size > window_stride) return Error{Code::exhausted, attempt, "it is larger than 4 GiB", ""};
    HOBBES_TRY(host, access.map(0, size));
    Shown out{std::move(access), slot, host, size};
    if (auto shown = machine_->show(slot, out.address(), size, host, !writable); !shown) {
      ::munmap(host, size);
      return std::move(shown).error();
    }
    return out;
  }

  static Json place_of(const Shelf::value_type& one) {
    const auto& [key, shown] = one;
    return {{"name", key.first},
            {"writable", key.second},
            {"address", shown.address()},
            {"size", shown.size},
            {"uses", shown.uses}};
  }

  // Asked for by the guest's agent, which looks who uses what; a guest that lies takes memory from
  // itself.
  Result<Json> hide(const Json& request) {
    auto at = std::find_if(shown_.begin(), shown_.end(), [&](const auto& one) {
      return place_of(one) == request.value("place", Json());
    });
    if (at == shown_.end())
      return Error{Code::busy, "hide a segment", "it is not shown, or was attached again", ""};
    HOBBES_CHECK(machine_->hide(at->second.slot));
    ::munmap(at->second.host, at->second.size);
    shown_.erase(at);
    return Json::object();
  }

  Result<Json> answer_guest(const Json& request) {
    std::string op = text_at(request, "op");
    if (op == "attach") return attach(request);
    if (op == "hide") return hide(request);
    if (op != "shown")
      return Error{Code::invalid, "answer a guest", "the operation is unknown", ""};
    Json places = Json::array();
    for (const auto& one : shown_) places.push_back(place_of(one));
    return Json{{"places", places}};
  }

  // The stream the request came by becomes the doorbell's.
  void connect_bell(const Json& request, Fd stream) {
    std::string name = text_at(request, "name");
    bool writable = text_at(request, "access") == "rw";
    FrameStream asker(Fd(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0)));
    auto done = check_listed(name, writable, "use the doorbell of segment '" + name + "'");
    if (done)
      done = bells_.connect(name, writable, std::move(stream), number_at(request, "pid"),
                            request.value("listens", false));
    (void)asker.send(done ? Json::object() : Json{{"error", to_json(done.error())}});
  }

  void hear_guest(Fd stream) {
    guests_.emplace_back(std::move(stream));
    auto guest = std::prev(guests_.end());
    auto forget = [this, guest] {
      loop_.unwatch(guest->fd());
      guests_.erase(guest);
    };
    auto hear = [this, guest, forget](std::uint32_t) {
      auto requests = guest->receive();
      if (!requests) return forget();
      for (const Json& request : *requests) {
        if (text_at(request, "op") == "bell") {
          loop_.unwatch(guest->fd());
          Fd bell = std::move(*guest).release();
          guests_.erase(guest);
          return connect_bell(request, std::move(bell));
        }
        auto done = answer_guest(request);
        if (!guest->send(done ? *done : Json{{"error", to_json(done.error())}})) return forget();
      }
    };
    if (guests_.size() > 64 || !loop_.watch(guest->fd(), EPOLLIN | EPOLLRDHUP, hear))
      guests_.erase(guest);
  }

  // ---- requests ----

  void accept_one() {
    int connection = ::accept4(vm_socket, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return;
    if (clients_.size() >= 64) {
      ::close(connection);
      return;
    }
    clients_.emplace_back(Fd(connection));
    auto client = std::prev(clients_.end());
    (void)loop_.watch(connection, EPOLLIN | EPOLLRDHUP, [this, client](auto) {
      auto request = client->receive(milliseconds(100));
      bool kept = request && answer(*client, *request);
      if (kept) return;
      loop_.unwatch(client->fd());
      starters_.remove(&*client);
      clients_.erase(client);
    });
  }

  // False when the client is not worth keeping.
  bool answer(Channel& client, const Message& request) {
    if (text_at(request.body, "op") == "started" && !started_ && plan_.agent) {
      starters_.push_back(&client);  // heard when it has
      return true;
    }
    std::vector<Fd> out;
    auto done = act(request, out);
    Json body = done ? *done : Json{{"error", to_json(done.error())}};
    body["ok"] = static_cast<bool>(done);
    std::vector<int> fds;
    for (const Fd& fd : out) fds.push_back(fd.get());
    return static_cast<bool>(client.send(body, fds));
  }

  void answer_starters(const std::optional<Error>& error) {
    for (Channel* client : starters_) {
      Json body = {{"ok", !error}};
      if (error) body["error"] = to_json(*error);
      (void)client->send(body);
      answered_failure_ = answered_failure_ || error;
    }
    starters_.clear();
  }

  Result<Json> act(const Message& request, std::vector<Fd>& fds) {
    std::string op = text_at(request.body, "op");
    if (op == "started") return Json::object();
    if (op == "ping")
      return Json{{"vcpus", plan_.cpus.size()},
                  {"memory", memory()},
                  {"bootMemory", plan_.memory},
                  {"paused", machine_->paused()},
                  {"phases", phases_}};
    if (op == "statistics") return statistics();
    if (op == "pause") {
      machine_->pause();
      return Json::object();
    }
    if (op == "resume") {
      machine_->resume();
      return Json::object();
    }
    if (op == "memory") {  // asks the guest; what it has done is in the answer to a ping
      auto wanted = static_cast<std::uint64_t>(number_at(request.body, "size"));
      if (machine_->pluggable() == nullptr || wanted < plan_.memory)
        return Error{Code::unsupported, "change the guest's memory",
                     wanted < plan_.memory ? "a guest keeps the memory it booted with"
                                           : "it was made without room for more (of huge pages, or "
                                             "where memory is not overcommitted)",
                     "delete it and make it anew with another memory.size"};
      machine_->pluggable()->request(wanted - plan_.memory);
      return Json::object();
    }
    if (op == "pin") {
      std::vector<unsigned> cpus;
      for (const Json& cpu : request.body.value("cpus", Json::array()))
        if (cpu.is_number_unsigned()) cpus.push_back(cpu.get<unsigned>());
      HOBBES_CHECK(machine_->pin(cpus));
      return Json::object();
    }
    if (op == "stream") {  // to the agent, for another program
      if (!started_)
        return Error{Code::unavailable, "talk to the guest's agent",
                     "it does not answer yet, or there is none", ""};
      HOBBES_TRY(stream, machine_->vsock().connect(HOBBES_AGENT_PORT));
      fds.push_back(std::move(stream));
      return Json::object();
    }
    return Error{Code::invalid, "ask the monitor", "the operation '" + op + "' is unknown", ""};
  }

  [[nodiscard]] std::uint64_t memory() const {
    return plan_.memory + (machine_->pluggable() != nullptr ? machine_->pluggable()->plugged() : 0);
  }

  [[nodiscard]] Json statistics() const {
    Json out = Json::object();
    for (std::size_t i = 0; i < machine_->exits().size(); ++i) {
      const Machine::Exits& exits = *machine_->exits()[i];
      std::string vcpu = "vcpu" + std::to_string(i) + ".";
      out[vcpu + "exits"] = exits.all.load();
      out[vcpu + "exits.port"] = exits.port.load();
      out[vcpu + "exits.memory"] = exits.memory.load();
      out[vcpu + "exits.interrupted"] = exits.interrupted.load();
    }
    out["segments"] = shown_.size();
    for (const auto& [name, micros] : phases_.items()) out["start." + name + "_us"] = micros;
    return out;
  }

  VmPlan plan_;
  EventLoop loop_;
  std::unique_ptr<Machine> machine_;
  Fd signals_, timer_, program_ended_, room_;
  bool terminal_reads_ = true, power_button_pressed_ = false;
  std::string typed_;  // what the guest has no room for yet
  std::uint64_t begun_ns_ = 0, missed_ns_ = 0;
  Json phases_ = Json::object();
  std::list<Channel> clients_;
  std::list<Channel*> starters_;
  bool answered_failure_ = false, started_ = false, agent_answered_ = false, asked_ = false;
  std::optional<FrameStream> agent_, program_;
  std::promise<Fd> to_carrier_;
  std::thread carrier_;
  std::atomic<int> program_status_{-1};
  std::mutex print_lock_;
  std::string printed_;
  void* mirror_ = MAP_FAILED;
  std::uint64_t mirror_size_ = 0;
  ino_t mirror_inode_ = 0;
  Shelf shown_;
  Bells bells_{loop_};
  std::list<FrameStream> guests_;
};

int run(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  (void)argv;
  auto words = argc == 1 ? Files::system().read("/proc/self/fd/" + std::to_string(vm_plan), 4 << 20)
                         : Result<std::string>(std::string());
  auto plan = VmPlan::parse(words ? *words : "");
  if (!plan) {
    std::fprintf(stderr, "palacios: %s\n", plan.error().text().c_str());
    return 2;
  }
  auto loop = EventLoop::make();
  if (!loop) crash(*plan, loop.error().text());
  Monitor(std::move(*plan), std::move(*loop)).run();
}

}  // namespace
}  // namespace hobbes::vmm

int main(int argc, char** argv) { return hobbes::vmm::run(argc, argv); }
