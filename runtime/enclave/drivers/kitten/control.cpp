// The control process of a co-kernel: the enclave process of kind `kitten`. hobbes-run has taken
// cores and memory and loaded the image; this boots it, passes its console on, answers requests
// about it, watches its heartbeat, and ends when it ends. Descriptors:
// enclave/drivers/kitten/plan.h. Exit: 0 after an orderly shutdown, by SIGABRT when the kernel
// crashed.
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <list>

#include "abi/nis.h"
#include "core/file.h"
#include "core/paths.h"
#include "enclave/drivers/kitten/cokernel.h"
#include "enclave/drivers/service.h"
#include "ipc/client.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

void print(const std::string& text) {
  append_to_console(kitten_console, text);
  (void)show_creator(text);
}

[[noreturn]] void crash(const KittenPlan& plan, const std::string& why) {
  print("kitten crashed: " + why + "\n");
  tell_manager(plan.handle, {{"event", "crashed"}, {"cause", why}});
  // As a program that met a fault: the process that waits for this one sees a signal.
  ::signal(SIGABRT, SIG_DFL);
  ::prctl(PR_SET_DUMPABLE, 0);
  std::abort();
}

class Control {
 public:
  explicit Control(Cokernel kernel) : kernel_(std::move(kernel)) {}

  [[noreturn]] void run() {
    sigset_t signals;
    sigemptyset(&signals);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&signals, number);
    ::sigprocmask(SIG_BLOCK, &signals, nullptr);
    Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    itimerspec every{{1, 0}, {1, 0}};
    ::timerfd_settime(timer.get(), 0, &every, nullptr);

    if (auto booted = kernel_.boot(); !booted) {
      kernel_.drain();
      answer_starter(booted.error());
      crash(kernel_.plan(), booted.error().text());
    }
    show_mirror();
    for (;;) {
      std::vector<pollfd> watched = {
          {kernel_.doorbell(), POLLIN, 0},
          {signal_fd.get(), POLLIN, 0},
          {timer.get(), POLLIN, 0},
          {kitten_socket, POLLIN, 0},
          {kernel_.plan().programs ? kitten_first_program : -1, POLLIN, 0}};
      for (const MessageSocket& client : clients_) watched.push_back({client.fd(), POLLIN, 0});
      (void)::poll(watched.data(), watched.size(), -1);
      kernel_.drain();
      end_if_dead();
      signalfd_siginfo info{};
      if (::read(signal_fd.get(), &info, sizeof info) == sizeof info) shut_down();
      std::uint64_t ticks = 0;
      if (::read(timer.get(), &ticks, sizeof ticks) == sizeof ticks) tick();
      serve(watched);
      if (watched[4].revents != 0) shut_down();  // its program has ended
    }
  }

 private:
  void end_if_dead() {
    if (kernel_.shut_down()) {
      kernel_.drain();
      std::exit(0);
    }
    if (std::string why = kernel_.death(); !why.empty()) {
      kernel_.drain();
      crash(kernel_.plan(), why);
    }
  }

  void shut_down() {
    auto asked = kernel_.call(HOBBES_KITTEN_SHUT_DOWN, {});
    if (!asked) print("kitten does not shut down: " + asked.error().text() + "\n");
    for (int i = 0; i < 100 && !kernel_.shut_down(); ++i) ::usleep(10'000);
    end_if_dead();
  }

  void tick() {
    if (auto why = kernel_.check_heartbeat()) crash(kernel_.plan(), *why);
    if (++ticks_ % 2 != 0) return;
    if (auto client = Client::connect(false))
      (void)client->call("enclave.beat", {{"handle", kernel_.plan().handle}}, {},
                         milliseconds(1000));
    show_mirror();
  }

  // Without hobbesd there is no mirror; the kernel runs all the same and sees it when it is there.
  void show_mirror() {
    auto shown = kernel_.show_mirror(mirror_path());
    std::string problem = shown ? "" : shown.error().text();
    if (problem != mirror_problem_ && !problem.empty())
      print("kitten sees no mirror: " + problem + "\n");
    mirror_problem_ = problem;
  }

  void answer_starter(const Error& error) {
    for (int i = 0; i < 100; ++i) {  // the caller of the start connects about now
      int connection = ::accept4(kitten_socket, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) {
        MessageSocket starter((Fd(connection)));
        (void)starter.receive(milliseconds(500));
        (void)starter.send({{"ok", false}, {"error", to_json(error)}});
        return;
      }
      ::usleep(10'000);
    }
  }

  void serve(const std::vector<pollfd>& watched) {
    std::size_t i = 5;
    for (auto client = clients_.begin(); client != clients_.end() && i < watched.size(); ++i) {
      bool gone = false;
      if (watched[i].revents != 0) {
        auto request = client->receive(milliseconds(100));
        gone = !request;
        if (request) gone = !client->send(answer(request->body));
      }
      client = gone ? clients_.erase(client) : std::next(client);
    }
    if ((watched[3].revents & POLLIN) != 0) {
      int connection = ::accept4(kitten_socket, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0 && clients_.size() < 64)
        clients_.emplace_back(Fd(connection));
      else if (connection >= 0)
        ::close(connection);
    }
  }

  Json answer(const Json& request) {
    auto done = act(request);
    if (!done) return {{"ok", false}, {"error", to_json(done.error())}};
    Json out = *done;
    out["ok"] = true;
    return out;
  }

  Result<Json> act(const Json& request) {
    std::string op = text_at(request, "op");
    auto number = [&](const char* key) {
      return static_cast<std::uint64_t>(number_at(request, key));
    };
    if (op == "started") return Json::object();
    if (op == "statistics") {
      Json out = kernel_.statistics();
      out["calls"] = Json::object();
      HOBBES_TRY(calls, kernel_.forwarded_calls());
      for (const auto& [call, count] : calls) out["calls"][std::to_string(call)] = count;
      return out;
    }
    if (op == "ping") {
      HOBBES_TRY(facts, kernel_.query());
      return Json{{"cores", facts.cores},
                  {"memory", facts.memory},
                  {"memoryFree", facts.memory_free},
                  {"uptimeNs", facts.uptime_ns},
                  {"wallNs", facts.wall_ns}};
    }
    if (op == "addCore") {
      HOBBES_CHECK(kernel_.add_core(
          {static_cast<unsigned>(number("cpu")), static_cast<unsigned>(number("apicId"))}));
      return Json::object();
    }
    if (op == "removeCore") {
      HOBBES_CHECK(kernel_.remove_core(static_cast<unsigned>(number("cpu"))));
      return Json::object();
    }
    if (op == "addMemory") {
      HOBBES_CHECK(kernel_.add_memory({number("address"), number("size"),
                                       static_cast<unsigned>(number("node")),
                                       static_cast<unsigned>(number("slot"))}));
      return Json::object();
    }
    if (op == "removeMemory") {
      HOBBES_CHECK(kernel_.remove_memory(static_cast<unsigned>(number("slot"))));
      return Json::object();
    }
    if (op == "layout") return kernel_.plan().json();
    if (op == "call") return call(request);
    return Error{Code::invalid, "ask the control process", "the operation '" + op + "' is unknown",
                 ""};
  }

  // The command channel as it is, for tools: operation and payload in, payload out, both as
  // hexadecimal digits.
  Result<Json> call(const Json& request) {
    std::string payload, digits = text_at(request, "payload");
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
      payload += static_cast<char>(std::strtol(digits.substr(i, 2).c_str(), nullptr, 16));
    HOBBES_TRY(reply,
               kernel_.call(static_cast<unsigned>(number_at(request, "operation")), payload));
    std::string out;
    for (unsigned char byte : reply) {
      char two[3];
      std::snprintf(two, sizeof two, "%02x", byte);
      out += two;
    }
    return Json{{"payload", out}};
  }

  Cokernel kernel_;
  std::list<MessageSocket> clients_;
  std::string mirror_problem_;
  int ticks_ = 0;
};

int run(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  auto plan = KittenPlan::parse(argc == 2 ? argv[1] : "");
  if (!plan) {
    std::fprintf(stderr, "kitten-control: %s\n", plan.error().text().c_str());
    return 2;
  }
  auto kernel = Cokernel::attach(ModuleEnclave(Fd(kitten_device)), *plan, print);
  if (!kernel) crash(*plan, kernel.error().text());
  Control(std::move(*kernel)).run();
}

}  // namespace
}  // namespace hobbes

int main(int argc, char** argv) { return hobbes::run(argc, argv); }
