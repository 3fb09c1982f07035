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
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

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

struct Options {
  std::string topology, config = "/etc/hobbes/hobbesd.json", reserve;
  std::string listen, certificate, key;
  int ready_fd = -1;
  bool foreground = false, keep_segments = false;
};

// systemd's socket activation (sd_listen_fds(3)): the control socket is descriptor 3, the API socket 4.
Result<Fd> listening_socket(int index, const std::string& path, mode_t mode, int type) {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (pid != nullptr && count != nullptr && std::atoi(pid) == ::getpid() && std::atoi(count) > index) {
    ::fcntl(3 + index, F_SETFD, FD_CLOEXEC);
    ::fcntl(3 + index, F_SETFL, O_NONBLOCK);
    return Fd(3 + index);
  }
  return listen_at(path, mode, type);
}

void set_up_log(const Options& options) {
  if (options.foreground) {
    spdlog::set_default_logger(spdlog::stderr_logger_mt("hobbesd"));
  } else {
    spdlog::set_default_logger(spdlog::rotating_logger_mt("hobbesd", run_directory() + "/hobbesd.log", 1 << 20, 3));
  }
  spdlog::flush_on(spdlog::level::info);
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

  HOBBES_TRY(policies, Policies::load(options.config));
  if (!options.reserve.empty()) {
    HOBBES_TRY(reserved, CpuSet::parse(options.reserve));
    policies.reserved = reserved;
  }
  HOBBES_TRY(inventory, discover(options.topology));
  // Sockets first: whoever else serves here is found before the database is touched.
  HOBBES_TRY(control_socket, listening_socket(0, control_socket_path(), 0666, SOCK_SEQPACKET));
  HOBBES_TRY(api_socket, listening_socket(1, api_socket_path(), 0666, SOCK_STREAM));
  HOBBES_TRY(nis, Nis::open(state_directory(), run_directory()));
  HOBBES_TRY(loop, Loop::make());
  Manager manager(*loop, std::move(nis), std::move(inventory), policies, default_root());
  HOBBES_CHECK(manager.adopt());
  HOBBES_TRY(control, ControlServer::make(*loop, manager, std::move(control_socket)));
  (void)control;
  HOBBES_CHECK(loop->every(std::chrono::milliseconds(200), [&manager] { manager.tick(); }));

  ApiOptions api_options;
  api_options.tcp_address = options.listen;
  api_options.certificate = options.certificate;
  api_options.key = options.key;
  api_options.tokens = policies.tokens;
  HOBBES_TRY(api, ApiServer::start(std::move(api_socket), api_options));

  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  HOBBES_CHECK(loop->watch(signal_fd.get(), [&loop] { loop->stop(); }));
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
  CLI::App app("hobbesd: the Hobbes node manager. It owns the inventory, the leases and the node's state.");
  app.add_flag("--foreground", options.foreground, "log to standard error");
  app.add_option("--topology", options.topology, "synthetic:DESCRIPTION or xml:FILE instead of this machine (for trying out)");
  app.add_option("--config", options.config, "site policy: reserved cores, quotas, tokens")->capture_default_str();
  app.add_option("--reserve-cores", options.reserve, "CPUs never given to enclaves, such as 0,1");
  app.add_option("--listen", options.listen, "also serve REST at HOST:PORT, with TLS and tokens only");
  app.add_option("--tls-certificate", options.certificate, "PEM file for --listen");
  app.add_option("--tls-key", options.key, "PEM file for --listen");
  app.add_option("--ready-fd", options.ready_fd, "write a byte there when serving");
  app.footer("Files: $HOBBES_RUN_DIR (/run/hobbes), $HOBBES_STATE_DIR (/var/lib/hobbes). Exit codes: 0 asked to stop, 1 could not serve.");
  app.add_flag("--keep-segments", options.keep_segments, "used by hobbesd itself: hold the memory of persistent segments");
  CLI11_PARSE(app, argc, argv);
  if (options.keep_segments) return hobbes::run_keeper();
  auto served = hobbes::serve(options);
  if (served) return 0;
  std::fprintf(stderr, "hobbesd: %s\n", served.error().text().c_str());
  spdlog::error("{}", served.error().text());
  return 1;
}
