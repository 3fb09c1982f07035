// hobbesd: the node manager's process.
#include <fcntl.h>
#include <signal.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <future>
#include <memory>

#include "api/server.h"
#include "core/file.h"
#include "core/paths.h"
#include "hobbesd/control.h"
#include "hobbesd/keeper.h"
#include "hobbesd/loop.h"
#include "hobbesd/manager.h"
#include "topology/discover.h"

namespace hobbes {
namespace {

constexpr const char* standard_config = "/etc/hobbes/hobbesd.json";

struct Options {
  std::string topology, config, reserve;
  std::string listen, certificate, key;
  int ready_fd = -1;
  bool foreground = false, check = false, keep_segments = false;
};

// systemd's socket activation (sd_listen_fds(3)): the control socket is descriptor 3, the API
// socket 4.
Result<Fd> listening_socket(int index, const std::string& path, mode_t mode, int type) {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (pid != nullptr && count != nullptr && std::atoi(pid) == ::getpid() &&
      std::atoi(count) > index) {
    ::fcntl(3 + index, F_SETFD, FD_CLOEXEC);
    ::fcntl(3 + index, F_SETFL, O_NONBLOCK);
    return Fd(3 + index);
  }
  return listen_at(path, mode, type);
}

// The log names users and their enclaves; it is for root and its group.
void set_up_log(const Options& options) {
  mode_t before = ::umask(0027);
  if (options.foreground) {
    spdlog::set_default_logger(spdlog::stderr_logger_mt("hobbesd"));
  } else {
    spdlog::set_default_logger(
        spdlog::rotating_logger_mt("hobbesd", run_directory() + "/hobbesd.log", 1 << 20, 3));
  }
  ::umask(before);
  spdlog::flush_on(spdlog::level::info);
}

// A configuration that was named must be there; the standard one need not.
Result<Policies> policies_of(const Options& options) {
  HOBBES_TRY(policies, Policies::load(options.config.empty() ? standard_config : options.config,
                                      !options.config.empty()));
  if (!options.reserve.empty()) {
    HOBBES_TRY(reserved, CpuSet::parse(options.reserve));
    policies.reserved = reserved;
  }
  return std::move(policies);
}

Result<void> check(const Options& options) {
  HOBBES_TRY(policies, policies_of(options));
  HOBBES_TRY(inventory, discover(options.topology));
  return policies.check(inventory.all_cpus());
}

// SIGHUP: what cannot be used leaves the old rules in force.
void reload(const Options& options, Manager& manager, ApiServer& api) {
  auto policies = policies_of(options);
  auto tokens = policies ? policies->tokens : std::map<std::string, uid_t>();
  auto set = policies ? manager.set_policies(std::move(*policies)) : Result<void>(policies.error());
  if (!set) {
    spdlog::error("the policy stays as it was: {}", set.error().text());
    return;
  }
  api.set_tokens(std::move(tokens));
  spdlog::info("policy read again");
}

// From the API's threads: the manager lives in the loop.
Result<Message> ask_in_loop(Loop& loop, Manager& manager, const Peer& peer, Json request) {
  const std::string attempt = "ask hobbesd";
  auto promise = std::make_shared<std::promise<Result<Message>>>();
  auto answer = promise->get_future();
  loop.post([promise = std::move(promise), &manager, peer, request = std::move(request)] {
    Session session;
    session.peer = peer;
    auto reply = manager.handle(session, request);
    promise->set_value(reply ? Result<Message>({std::move(reply->body), std::move(reply->fds)})
                             : Result<Message>(reply.error()));
    manager.leave(session);
  });
  try {
    if (answer.wait_for(std::chrono::seconds(10)) == std::future_status::ready) return answer.get();
  } catch (const std::future_error&) {
    return Error{Code::unavailable, attempt, "it is stopping",
                 "try again when it has been started"};
  }
  return Error{Code::timeout, attempt, "it has not answered within 10 s", "see hobbesd.log"};
}

Result<void> serve(const Options& options) {
  HOBBES_CHECK(make_directories(run_directory(), 0755));
  try {
    set_up_log(options);
  } catch (const spdlog::spdlog_ex& e) {
    return Error{Code::os, "open the log", e.what(), ""};
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);

  HOBBES_TRY(policies, policies_of(options));
  HOBBES_TRY(inventory, discover(options.topology));
  HOBBES_CHECK(policies.check(inventory.all_cpus()));
  // Sockets first: another hobbesd that serves here is found before the database is touched.
  HOBBES_TRY(control_socket, listening_socket(0, control_socket_path(), 0666, SOCK_SEQPACKET));
  HOBBES_TRY(api_socket, listening_socket(1, api_socket_path(), 0666, SOCK_STREAM));
  HOBBES_TRY(nis, Nis::open(state_directory(), run_directory()));
  HOBBES_TRY(loop, Loop::make());
  Manager manager(*loop, std::move(nis), std::move(inventory), policies, default_root());
  HOBBES_CHECK(manager.adopt());
  HOBBES_TRY(control, ControlServer::make(*loop, manager, std::move(control_socket)));
  (void)control;
  HOBBES_CHECK(loop->on_tick([&manager] { manager.tick(); }));
  manager.tick();

  ApiOptions api_options;
  api_options.tcp_address = options.listen;
  api_options.certificate = options.certificate;
  api_options.key = options.key;
  api_options.tokens = policies.tokens;
  api_options.dispatch = [&loop, &manager](const Peer& peer, Json request) {
    return ask_in_loop(*loop, manager, peer, std::move(request));
  };
  HOBBES_TRY(api, ApiServer::start(std::move(api_socket), api_options));

  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  HOBBES_CHECK(loop->watch(signal_fd.get(), [&] {
    signalfd_siginfo received{};
    if (::read(signal_fd.get(), &received, sizeof received) != sizeof received) return;
    if (received.ssi_signo == SIGHUP)
      reload(options, manager, *api);
    else
      loop->stop();
  }));
  if (options.ready_fd >= 0) {
    (void)!::write(options.ready_fd, "r", 1);
    ::close(options.ready_fd);
  }
  spdlog::info("serving at {}", control_socket_path());
  loop->run();
  spdlog::info("stopping; enclaves keep running");
  api->stop();
  return {};
}

}  // namespace
}  // namespace hobbes

int main(int argc, char** argv) {
  hobbes::Options options;
  CLI::App app(
      "hobbesd: the Hobbes node manager. It owns the inventory, the leases and the node's state.",
      "hobbesd");
  app.add_flag("--foreground", options.foreground, "log to standard error");
  app.add_option("--topology", options.topology,
                 "synthetic:DESCRIPTION or xml:FILE instead of this machine (for trying out)");
  app.add_option("--config", options.config,
                 "site policy: reserved cores, quotas, tokens (/etc/hobbes/hobbesd.json, if it is "
                 "there); read again on SIGHUP");
  app.add_option("--reserve-cores", options.reserve, "CPUs never given to enclaves, such as 0,1");
  app.add_option("--listen", options.listen,
                 "also serve REST at HOST:PORT, with TLS and tokens only");
  app.add_option("--tls-certificate", options.certificate, "PEM file for --listen");
  app.add_option("--tls-key", options.key, "PEM file for --listen");
  app.add_flag("--check", options.check, "say whether the policy can be used, and serve nothing");
  app.add_option("--ready-fd", options.ready_fd, "write a byte there when serving");
  app.footer(
      "Files: $HOBBES_RUN_DIR (/run/hobbes), $HOBBES_STATE_DIR (/var/lib/hobbes). Exit codes: 0 "
      "asked to stop, 1 could not serve.");
  app.add_flag("--keep-segments", options.keep_segments,
               "used by hobbesd itself: hold the memory of persistent segments");
  CLI11_PARSE(app, argc, argv);
  if (options.check) {
    auto checked = hobbes::check(options);
    if (checked) return 0;
    std::fprintf(stderr, "hobbesd: %s\n", checked.error().text().c_str());
    return 1;
  }
  if (options.keep_segments) return hobbes::run_keeper();
  auto served = hobbes::serve(options);
  if (served) return 0;
  std::fprintf(stderr, "hobbesd: %s\n", served.error().text().c_str());
  spdlog::error("{}", served.error().text());
  return 1;
}
