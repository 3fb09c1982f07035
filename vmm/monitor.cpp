#include "vmm/monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>

#include "core/clock.h"
#include "core/paths.h"
#include "core/process.h"
#include "enclave/drivers/service.h"
#include "ipc/client.h"
#include "vmm/agent_client.h"
#include "vmm/control_server.h"
#include "vmm/machine.h"
#include "vmm/seccomp_filter.h"
#include "vmm/segment_window.h"
#include "vmm/terminal.h"

namespace hobbes::vmm {
namespace {

using std::chrono::milliseconds;

// hobbesd's shortest patience is 10 s; each costs an idle guest five exits.
constexpr milliseconds heartbeat(4000);
// How long a guest whose agent hung up may still end by itself, which says better why.
constexpr std::uint64_t end_patience_ns = 10'000'000'000U;

void log_text(std::string_view text) { append_to_console(vm_console, text); }

void beat() {
  if (auto client = Client::connect(false))
    (void)client->call("enclave.beat", Json::object(), {}, milliseconds(1000));
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

Terminal::Shown shown_by(const VmPlan& plan) {
  // Without an agent a guest has only its consoles to speak to people.
  if (plan.terminal) return Terminal::Shown::raw;
  return plan.agent ? Terminal::Shown::log : Terminal::Shown::output;
}

class Monitor final : AgentEvents {
 public:
  Monitor(VmPlan plan, EventLoop loop)
      : plan_(std::move(plan)),
        loop_(std::move(loop)),
        terminal_(loop_, shown_by(plan_)),
        control_(loop_, vm_socket, plan_.agent,
                 [this](const Json& request, std::vector<Fd>& fds) { return act(request, fds); }),
        agent_(
            loop_, plan_, [this] { return machine_->vsock().connect(HOBBES_AGENT_PORT); }, *this) {}

  [[noreturn]] void run() {
    begun_ns_ = clock_ns(CLOCK_MONOTONIC);
    auto ready = set_up();
    if (!ready) fail(ready.error());
    for (;;) loop_.run_once(-1);
  }

 private:
  Result<void> set_up() {
    HOBBES_CHECK(take_signals_by_descriptor());
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    set_timer(milliseconds(20));
    HOBBES_CHECK(loop_.watch(timer_.get(), EPOLLIN, [this](auto) { tick(); }));
    HOBBES_CHECK(control_.begin());
    HOBBES_CHECK(make_machine());
    window_.emplace(*machine_, loop_, plan_.segments, plan_.segment_room);
    if (plan_.terminal) {
      tell_window_size();
      HOBBES_CHECK(
          terminal_.connect([this](std::string_view keys) { return machine_->type(keys); }));
      machine_->on_room([this] { terminal_.room_made(); });
    }
    machine_->vsock().listen(HOBBES_MONITOR_PORT,
                             [this](Fd stream) { window_->serve(std::move(stream)); });
    HOBBES_CHECK(loop_.watch(machine_->ended_fd(), EPOLLIN, [this](auto) { end_with_guest(); }));
    HOBBES_CHECK(agent_.begin());
    HOBBES_CHECK(machine_->start());
    HOBBES_CHECK(install_seccomp_filter(ThreadKind::serve));
    phase("machine");
    return {};
  }

  Result<void> take_signals_by_descriptor() {
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
    return loop_.watch(signals_.get(), EPOLLIN, [this](auto) { take_signals(); });
  }

  Result<void> make_machine() {
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
      config.folders.push_back(
          {Fd(folder.descriptor), folder.tag, folder.read_only, folder.window});
    HOBBES_TRY(machine, Machine::make(std::move(config), loop_,
                                      [this](std::string_view text) { terminal_.print(text); }));
    machine_ = std::move(machine);
    for (int fd : {static_cast<int>(vm_kernel), plan_.initrd, plan_.disk, static_cast<int>(vm_kvm)})
      if (fd >= 0) ::close(fd);
    return {};
  }

  // The phases of a start, timed for people and benchmarks.
  void phase(const char* name) {
    const std::uint64_t passed = clock_ns(CLOCK_MONOTONIC) - begun_ns_;
    phases_[name] = passed / 1000;
    log_text("palacios: " + std::string(name) + " after " + std::to_string(passed / 1'000'000) +
             " ms\n");
  }

  void set_timer(milliseconds every) const {
    itimerspec when{};
    when.it_interval.tv_sec = every.count() / 1000;
    when.it_interval.tv_nsec = every.count() % 1000 * 1'000'000;
    when.it_value = when.it_interval;
    ::timerfd_settime(timer_.get(), 0, &when, nullptr);
  }

  void tick() {
    std::uint64_t ticks = 0;
    (void)!::read(timer_.get(), &ticks, sizeof ticks);
    if (!plan_.agent) {
      set_timer(heartbeat);
      return beat();
    }
    const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
    if (!started_ && (now - begun_ns_) / 1'000'000'000U > plan_.boot_seconds)
      fail(Error{Code::timeout, "start the guest",
                 std::string(agent_.answered() ? "its agent did not start the program within "
                                               : "its agent did not answer within ") +
                     std::to_string(plan_.boot_seconds) + " s",
                 "see its console; hobbes.image.bootSeconds changes the limit"});
    if (agent_gone_ns_ != 0) {
      if (now - agent_gone_ns_ > end_patience_ns) crash(plan_, "the guest's agent is gone");
      return;
    }
    agent_.tick(machine_->paused());
    if (agent_.answered() && !machine_->paused()) show_mirror();
  }

  void show_mirror() {
    auto place = window_->show_mirror(mirror_path());
    if (!place)
      log_text("palacios: the guest sees no mirror: " + place.error().text() + "\n");
    else if (*place)
      agent_.tell_mirror((*place)->address, (*place)->size);
  }

  void agent_answered() override {
    phase("agent");
    set_timer(heartbeat);
    show_mirror();
  }

  void agent_beat() override { beat(); }

  void program_began() override {
    if (!plan_.process.is_null()) phase("program");
    started_ = true;
    control_.started();
  }

  void program_ended(int wait_status) override { end_as(wait_status); }

  // The guest itself may be ending, which takes a moment and says better why.
  void agent_gone() override {
    if (agent_gone_ns_ == 0) agent_gone_ns_ = clock_ns(CLOCK_MONOTONIC);
    set_timer(milliseconds(200));
  }

  [[noreturn]] void cannot_start(const Error& error) override { fail(error); }

  // The guest has not started, and it cannot.
  [[noreturn]] void fail(const Error& error) {
    control_.failed(error);
    crash(plan_, error.text());
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

  void take_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
      auto number = static_cast<int>(info.ssi_signo);
      if (number == SIGCONT) continue;
      if (agent_.connected() && started_ && !plan_.process.is_null()) {
        if (number == SIGWINCH)
          agent_.resize();
        else
          agent_.signal(number);
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

  void tell_window_size() {
    winsize window = window_size();
    machine_->resize(window.ws_col, window.ws_row);
  }

  Result<Json> act(const Json& request, std::vector<Fd>& fds) {
    std::string op = text_at(request, "op");
    if (op == "started") return Json::object();
    if (op == "ping")
      return Json{{"vcpus", plan_.cpus.size()},          {"cpus", machine_->cpus()},
                  {"mapsFiles", machine_->maps_files()}, {"memory", memory()},
                  {"bootMemory", plan_.memory},          {"segmentRoom", plan_.segment_room},
                  {"paused", machine_->paused()},        {"phases", phases_}};
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
      auto wanted = static_cast<std::uint64_t>(number_at(request, "size"));
      if (machine_->virtio_mem() == nullptr || wanted < plan_.memory)
        return Error{Code::unsupported, "change the guest's memory",
                     wanted < plan_.memory ? "a guest keeps the memory it booted with"
                                           : "it was made without room for more (of huge pages, or "
                                             "where memory is not overcommitted)",
                     "delete it and make it anew with another memory.size"};
      machine_->virtio_mem()->request(wanted - plan_.memory);
      return Json::object();
    }
    if (op == "pin") {
      std::vector<unsigned> cpus;
      for (const Json& cpu : request.value("cpus", Json::array()))
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
    return plan_.memory +
           (machine_->virtio_mem() != nullptr ? machine_->virtio_mem()->plugged() : 0);
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
    out["segments"] = window_->size();
    for (const auto& [name, micros] : phases_.items()) out["start." + name + "_us"] = micros;
    return out;
  }

  VmPlan plan_;
  EventLoop loop_;
  Terminal terminal_;
  ControlServer control_;
  AgentClient agent_;
  std::unique_ptr<Machine> machine_;
  std::optional<SegmentWindow> window_;
  Fd signals_, timer_;
  bool started_ = false, power_button_pressed_ = false;
  std::uint64_t begun_ns_ = 0, agent_gone_ns_ = 0;
  Json phases_ = Json::object();
};

}  // namespace

void crash(const VmPlan& plan, const std::string& why) {
  log_text("palacios: the guest crashed: " + why + "\n");
  tell_manager(plan.handle, {{"event", "crashed"}, {"cause", why}});
  // As a program that met a fault; in a pid namespace of its own it cannot die by a signal of its
  // own.
  std::_Exit(128 + SIGABRT);
}

void run_monitor(VmPlan plan, EventLoop loop) { Monitor(std::move(plan), std::move(loop)).run(); }

}  // namespace hobbes::vmm
