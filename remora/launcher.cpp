#include "remora/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "core/event_loop.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/process.h"
#include "core/size.h"
#include "enclave/driver.h"
#include "ipc/client.h"
#include "ipc/membership.h"
#include "nis/reader.h"
#include "partition/cgroup.h"
#include "remora/failure_policy.h"
#include "remora/join_server.h"
#include "remora/pmix_server.h"
#include "remora/progress_file.h"
#include "remora/rank.h"
#include "remora/rank_environment.h"
#include "remora/rank_output.h"
#include "remora/session_folder.h"
#include "remora/stage.h"

namespace hobbes {
namespace {

using Clock = Rank::Clock;
using Phase = Rank::Phase;
using std::chrono::milliseconds;

constexpr milliseconds grace(2000);  // between SIGTERM and SIGKILL

class Launcher final : public JoinHandler {
 public:
  Launcher(const Composition& composition, const LaunchOptions& options, SessionFolder session,
           EventLoop& loop)
      : composition_(composition),
        options_(options),
        session_(std::move(session)),
        loop_(loop),
        output_(loop, {options.prefix, options.timestamps, options.output},
                [this](const Error& error) {
                  fail({1, error.text()});
                }) {}
  ~Launcher() override;

  Result<int> run() {
    HOBBES_CHECK(prepare());
    HOBBES_CHECK(start_ranks());
    watch();
    finish();
    return status_;
  }

 private:
  void say(const std::string& text) {
    if (!options_.quiet) output_.say("remora: " + text);
  }
  [[nodiscard]] const std::vector<Stage::Place>& places() const { return stage_->places(); }

  Result<void> prepare();
  void introduce_enclaves();
  Result<void> begin_composition();
  Result<void> start_pmix();
  Result<void> start_ranks();
  Result<void> start_rank(Rank& rank);
  Result<void> open_guests_way(Rank& rank, std::vector<std::string>& environment);
  Result<void> open_phases(Rank& rank);
  Result<std::vector<std::string>> full_environment_of(const Rank& rank) const;
  Result<void> watch_process(Rank& rank);

  Result<Json> join(const std::string& app) override;
  Result<void> arrive(const Peer& caller, const std::string& app, std::int64_t number,
                      std::int64_t pid) override;
  Result<void> leave(const std::string& app, std::int64_t number) override;
  Rank* joined(const std::string& app, std::int64_t number);

  void watch();
  void handle_pmix();
  void read_phases(Rank& rank);
  void handle_exit(Rank& rank);
  void handle_signal();
  void fail(const Failure& failure);
  void signal_all(int number);
  void set_phase(Rank& rank, Phase phase);
  void publish();
  void end_groups();
  void finish();

  const Composition& composition_;
  const LaunchOptions& options_;
  SessionFolder session_;
  EventLoop& loop_;
  RankOutput output_;
  std::optional<Stage> stage_;
  std::optional<Client> manager_;
  std::uint64_t handle_ = 0;
  std::unique_ptr<PmixServer, EndPmixServer> pmix_;
  std::vector<Rank> ranks_;
  sigset_t signals_{};
  rlimit files_{};
  Fd signal_fd_;
  Fd appended_;  // to files of phases
  std::unique_ptr<JoinServer> door_;
  std::optional<ProgressFile> progress_;
  std::optional<FailurePolicy> policy_;
  int status_ = 0;
  bool failed_ = false;
  std::size_t living_ = 0;
  Clock::time_point begun_ = Clock::now();
  std::optional<Clock::time_point> kill_at_;
  std::vector<std::size_t> unpublished_;
  Json keys_ = Json::object();
};

Launcher::~Launcher() {
  for (Rank& rank : ranks_)
    for (const Fd* fd : {&rank.pidfd, &rank.phases})
      if (*fd) loop_.unwatch(fd->get());
  for (const Fd* fd : {&signal_fd_, &appended_})
    if (*fd) loop_.unwatch(fd->get());
  if (pmix_) loop_.unwatch(pmix_->descriptor());
}

Result<void> Launcher::prepare() {
  // Before PMIx makes threads: they must not take these signals, and enclaves are made while there
  // is one thread.
  sigemptyset(&signals_);
  for (int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2})
    sigaddset(&signals_, number);
  ::sigprocmask(SIG_BLOCK, &signals_, nullptr);
  ::signal(SIGPIPE, SIG_IGN);

  // Four descriptors a rank; the ranks themselves keep the limit we were given.
  if (::getrlimit(RLIMIT_NOFILE, &files_) == 0) {
    rlimit more = files_;
    more.rlim_cur = more.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &more);
  }
  HOBBES_TRY(stage, Stage::set_up(composition_, session_.path(), session_.bundles(), options_.share,
                                  options_.folder, options_.keep));
  stage_.emplace(std::move(stage));
  introduce_enclaves();
  ranks_ = ranks_of(composition_, places());
  HOBBES_CHECK(begin_composition());
  HOBBES_TRY(progress, ProgressFile::make(session_.progress(), ranks_.size()));
  progress_.emplace(std::move(progress));
  return start_pmix();
}

void Launcher::introduce_enclaves() {
  for (std::size_t i = 0; i < composition_.enclaves.size(); ++i) {
    const Stage::Place& place = places()[i];
    if (!place.needed) continue;
    const std::string& name = composition_.enclaves[i].name;
    std::string apps;
    for (const CompositionApp& app : composition_.apps)
      if (app.enclave == i)
        apps += (apps.empty() ? "" : ", ") + app.name + " x" + std::to_string(app.ranks);
    say("enclave \"" + name + "\" (" + name_of(place.record.kind) +
        "): " + (place.cpus.empty() ? "no cores of its own" : "CPUs " + place.cpus.text()) + ", " +
        (place.memory == 0 ? "memory not limited" : format_size(place.memory)) + "; runs " + apps);
    const Crowd crowd = crowd_of(i, composition_, places());
    if (crowd.takes_turns())
      say("warning: enclave \"" + name + "\" has " + std::to_string(crowd.cpus) +
          (crowd.cpus == 1 ? " CPU" : " CPUs") + " for " + std::to_string(crowd.ranks) +
          " ranks, which take turns");
  }
}

Result<void> Launcher::begin_composition() {
  HOBBES_TRY(client, Client::connect());
  manager_.emplace(std::move(client));
  Json apps = Json::array();
  for (const CompositionApp& app : composition_.apps)
    apps.push_back({{"name", app.name},
                    {"enclave", places()[app.enclave].record.handle},
                    {"ranks", app.ranks}});
  HOBBES_TRY(begun,
             manager_->call("composition.begin", {{"name", composition_.name}, {"apps", apps}}));
  handle_ = static_cast<std::uint64_t>(number_at(begun.body, "handle"));
  for (std::size_t i = 0; i < ranks_.size() && i < begun.body["processes"].size(); ++i)
    ranks_[i].record = begun.body["processes"][i].get<std::uint64_t>();
  return {};
}

Result<void> Launcher::start_pmix() {
  std::vector<PmixRank> members;
  std::vector<std::string> apps;
  for (const Rank& rank : ranks_) {
    if (!rank.mpi) continue;
    members.push_back({static_cast<unsigned>(rank.app), rank.app_rank});
    apps.resize(rank.app + 1);
    apps.back() = rank.app_name;
  }
  if (members.empty()) return {};
  const std::string job = "remora-" + std::to_string(::getpid()) + "-" + composition_.name;
  HOBBES_TRY(server, PmixServer::start(job, session_.pmix(), members, apps));
  pmix_ = std::move(server);
  return {};
}

Result<void> Launcher::start_ranks() {
  signal_fd_.reset(::signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signal_fd_) return os_error("watch the ranks", errno);
  HOBBES_CHECK(loop_.watch(signal_fd_.get(), EPOLLIN, [this](std::uint32_t) { handle_signal(); }));
  if (pmix_)
    HOBBES_CHECK(
        loop_.watch(pmix_->descriptor(), EPOLLIN, [this](std::uint32_t) { handle_pmix(); }));
  begun_ = Clock::now();
  policy_.emplace(
      FailurePolicy::Limits{options_.timeout, options_.init_timeout, options_.peer_timeout}, begun_,
      [this](unsigned rank) { return progress_->of(rank); });
  if (options_.host) {
    HOBBES_TRY(door, JoinServer::open(composition_.name, loop_, *this));
    door_ = std::move(door);
    say("waiting for ranks to join \"" + composition_.name + "\"");
  }
  for (Rank& rank : ranks_) {
    if (rank.external) {
      ++living_;
      continue;
    }
    if (auto started = start_rank(rank); !started) {
      // Children that nobody has waited for: their numbers are theirs.
      for (Rank& other : ranks_)
        if (other.pid > 0 && !other.external) {
          (void)::kill(other.pid, SIGKILL);
          ::waitpid(other.pid, nullptr, 0);
        }
      return std::move(started.error()).within("start " + rank.name());
    }
  }
  const bool all_ranks = composition_.ranks() == ranks_.size(), one = ranks_.size() == 1;
  say(std::to_string(ranks_.size()) +
      (all_ranks ? one ? " rank of " : " ranks of "
       : one     ? " process of "
                 : " processes of ") +
      std::to_string(composition_.apps.size()) +
      (composition_.apps.size() == 1 ? " app started" : " apps started"));
  publish();
  return {};
}

Result<std::vector<std::string>> Launcher::full_environment_of(const Rank& rank) const {
  std::vector<std::string> out;
  if (rank.mpi) {
    HOBBES_TRY(pmix, pmix_->environment_of(rank.global));
    out = std::move(pmix);
  }
  for (std::string& entry : environment_of(rank, composition_, places(), session_, options_))
    out.push_back(std::move(entry));
  return out;
}

Result<void> Launcher::open_guests_way(Rank& rank, std::vector<std::string>& environment) {
  const EnclaveRecord& enclave = places()[rank.enclave].record;
  HOBBES_TRY(machine, driver_for(enclave.kind).ping(enclave));
  if (!machine.value("mapsFiles", false))
    return Error{Code::unsupported, "start a rank in enclave '" + enclave.id + "'",
                 "its guest's kernel maps copies of shared files (it has no virtio-fs with DAX by "
                 "file), so that MPI's shared memory would not be shared",
                 "use Linux 5.17 or newer with CONFIG_FUSE_DAX, such as the shipped guest"};
  HOBBES_TRY(way, GuestPmix::open(enclave, environment));
  rank.guest_pmix = std::move(way);
  return {};
}

Result<void> Launcher::start_rank(Rank& rank) {
  HOBBES_TRY(environment, full_environment_of(rank));
  const CompositionApp& app = composition_.apps[rank.app];
  const Stage::Place& place = places()[rank.enclave];
  if (rank.mpi && rank.in_guest) HOBBES_CHECK(open_guests_way(rank, environment));
  HOBBES_TRY(streams, output_.open(rank));
  HOBBES_CHECK(open_phases(rank));
  Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));

  ExecRequest request;
  request.process = place.process;
  request.process.terminal = false;
  request.process.user = {};
  request.process.user.uid = ::getuid();
  request.process.user.gid = ::getgid();
  request.process.args = {app.path};
  request.process.args.insert(request.process.args.end(), app.args.begin(), app.args.end());
  request.process.cwd = app.directory.empty() ? place.folder : app.directory;
  // The enclave's own words first, then the caller's, then ours, then what the command line and the
  // composition name: the later one wins.
  auto set = [&](const std::string& entry) {
    std::string prefix = entry.substr(0, entry.find('=') + 1);
    std::erase_if(request.process.env,
                  [&](const std::string& old) { return old.rfind(prefix, 0) == 0; });
    request.process.env.push_back(entry);
  };
  for (const std::string& entry : inherited_environment(place.host_root)) set(entry);
  for (const std::string& entry : environment) set(entry);
  for (const std::string& entry : options_.environment) set(entry);
  for (const std::string& entry : app.env) set(entry);
  request.stdio[0] = static_cast<int>(rank.global) == options_.stdin_rank ? 0 : null.get();
  request.stdio[1] = streams[0].get();
  request.stdio[2] = streams[1].get();
  request.die_with_parent = true;
  request.cpus = binding_of(rank, ranks_, composition_, places()).text();
  if (options_.report_bindings)
    say(rank.name() + " (rank " + std::to_string(rank.global) + " of the universe) is " +
        (request.cpus.empty() ? "not bound" : "bound to CPUs " + request.cpus));
  bool limited = std::any_of(request.process.rlimits.begin(), request.process.rlimits.end(),
                             [](const oci::Rlimit& l) { return l.resource == RLIMIT_NOFILE; });
  if (!limited && files_.rlim_max != 0 && place.record.kind == Kind::linux_)
    request.process.rlimits.push_back({RLIMIT_NOFILE, files_.rlim_cur, files_.rlim_max});
  // What a rank leaves behind in an enclave that stays goes with the composition.
  if (!place.made) request.group = composition_group(handle_);
  if (place.own_pid_namespace) request.inner_pid = static_cast<pid_t>(20000 + rank.global);
  HOBBES_TRY(pid, driver_for(place.record.kind).exec(place.record, request));
  rank.pid = pid;
  rank.pidfd = open_pidfd(pid);
  ++living_;
  set_phase(rank, Phase::started);
  return watch_process(rank);
}

Result<void> Launcher::watch_process(Rank& rank) {
  return loop_.watch(rank.pidfd.get(), EPOLLIN,
                     [this, &rank](std::uint32_t) { handle_exit(rank); });
}

// By name: between us and the rank may stand a wrapper that has other things at any number. A pipe,
// open for both, never ends. Pipes do not reach into other kernels, so a rank in a virtual machine
// has a file that it appends to.
Result<void> Launcher::open_phases(Rank& rank) {
  const std::string path = session_.phases(rank.global),
                    attempt = "make the phase pipe of " + rank.name();
  if (!rank.in_guest) {
    if (::mkfifo(path.c_str(), 0600) != 0) return os_error(attempt, errno);
    rank.phases.reset(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!rank.phases || ::fstat(rank.phases.get(), &info) != 0 || !S_ISFIFO(info.st_mode))
      return Error{Code::denied, attempt, "somebody has put something else at " + path, ""};
    return loop_.watch(rank.phases.get(), EPOLLIN,
                       [this, &rank](std::uint32_t) { read_phases(rank); });
  }
  if (!appended_) {
    appended_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!appended_) return os_error(attempt, errno);
    HOBBES_CHECK(loop_.watch(appended_.get(), EPOLLIN, [this](std::uint32_t) {
      char events[4096];
      while (::read(appended_.get(), events, sizeof events) > 0) {
      }
      for (Rank& one : ranks_)
        if (one.in_guest && one.phases) read_phases(one);
    }));
  }
  rank.phases.reset(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!rank.phases || ::inotify_add_watch(appended_.get(), path.c_str(), IN_MODIFY) < 0)
    return os_error(attempt, errno);
  return {};
}

void Launcher::watch() {
  // What the ranks have said is waited for like the ranks themselves, but not for ever once the
  // composition has failed.
  std::optional<Clock::time_point> patience;
  while (living_ > 0 || output_.pending()) {
    if (living_ == 0 && failed_) {
      if (!patience) patience = Clock::now() + std::chrono::seconds(1);
      if (Clock::now() > *patience) break;
    }
    loop_.run_once(output_.pending() ? 10 : 100);
    output_.flush();
    const auto now = Clock::now();
    if (!failed_)
      if (auto failure = policy_->look(now, ranks_)) fail(*failure);
    if (kill_at_ && now > *kill_at_) {
      kill_at_.reset();
      signal_all(SIGKILL);
    }
    // Nobody will come as a rank that is still free once the composition has failed.
    if (failed_)
      for (Rank& rank : ranks_)
        if (rank.awaited() && rank.phase != Phase::ended) {
          --living_;
          set_phase(rank, Phase::ended);
        }
    publish();
  }
}

void Launcher::handle_pmix() {
  if (!pmix_) return;
  for (PmixEvent& event : pmix_->take()) {
    if (event.rank >= ranks_.size()) continue;
    Rank& rank = ranks_[event.rank];
    switch (event.kind) {
      case PmixEvent::Kind::connected:
        rank.connected = true;
        policy_->note_init(Clock::now());
        if (rank.phase < Phase::connected) set_phase(rank, Phase::connected);
        break;
      case PmixEvent::Kind::finalized:
        rank.finalized = true;
        if (rank.phase < Phase::finalized) set_phase(rank, Phase::finalized);
        break;
      case PmixEvent::Kind::aborted:
        fail({(event.status & 0xff) != 0 ? event.status & 0xff : 1,
              rank.full_name() + " called MPI_Abort with code " + std::to_string(event.status)});
        break;
      case PmixEvent::Kind::published:
        keys_[event.key] = event.text;
        break;
    }
  }
}

void Launcher::read_phases(Rank& rank) {
  char letters[64];
  ssize_t n = ::read(rank.phases.get(), letters, sizeof letters);
  if (n <= 0) {
    if (!rank.in_guest && (n == 0 || errno != EAGAIN)) {
      loop_.unwatch(rank.phases.get());
      rank.phases.reset();
    }
    return;
  }
  for (ssize_t i = 0; i < n; ++i) {
    rank.has_component = true;
    if (letters[i] == 's') continue;
    Phase phase = letters[i] == 'i'   ? Phase::in_init
                  : letters[i] == 'I' ? Phase::running
                  : letters[i] == 'f' ? Phase::in_finalize
                                      : Phase::finalized;
    if (letters[i] == 'i') policy_->note_init(Clock::now());
    if (phase > rank.phase) set_phase(rank, phase);
  }
}

void Launcher::handle_exit(Rank& rank) {
  if (rank.phase == Phase::ended) return;
  if (rank.external) {  // somebody else's child: that it ended is all that can be seen, and
                        // whether it said goodbye
    if (!rank.pidfd) return;
    pollfd gone{rank.pidfd.get(), POLLIN, 0};
    if (::poll(&gone, 1, 0) <= 0) return;
  } else if (::waitpid(rank.pid, &rank.wait_status, WNOHANG) != rank.pid) {
    return;
  }
  loop_.unwatch(rank.pidfd.get());
  handle_pmix();  // what it said last may still be under way
  if (rank.phases) read_phases(rank);
  output_.finish(rank);
  bool good = rank.wait_status == 0;
  bool unfinished = rank.connected && !rank.finalized && rank.phase != Phase::finalized;
  rank.skipped = rank.mpi && good && !rank.connected && rank.phase < Phase::in_init;
  --living_;
  set_phase(rank, Phase::ended);
  if (!good)
    fail({exit_code_of(rank.wait_status),
          rank.full_name() + " ended with " + describe_wait_status(rank.wait_status)});
  else if (unfinished)
    fail({1, rank.full_name() + " exited without MPI_Finalize"});
}

void Launcher::fail(const Failure& failure) {
  if (failed_) return;
  failed_ = true;
  status_ = failure.status;
  std::fprintf(stderr, "remora: %s; ending the composition\n", failure.why.c_str());
  signal_all(SIGTERM);
  kill_at_ = Clock::now() + grace;
}

void Launcher::signal_all(int number) {
  for (Rank& rank : ranks_)
    if (rank.pid > 0 && rank.phase != Phase::ended && rank.pidfd) signal_pidfd(rank.pidfd, number);
}

void Launcher::handle_signal() {
  signalfd_siginfo info{};
  while (::read(signal_fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    int number = static_cast<int>(info.ssi_signo);
    if (number == SIGCHLD) {
      for (Rank& rank : ranks_)
        if (rank.pid > 0 && rank.phase != Phase::ended) handle_exit(rank);
    } else if (number == SIGUSR1 || number == SIGUSR2) {
      signal_all(number);
    } else if (failed_) {
      signal_all(SIGKILL);  // asked twice
    } else {
      const char* name = ::sigabbrev_np(number);
      fail({128 + number, std::string("received SIG") + (name != nullptr ? name : "?")});
    }
  }
}

// Ranks that others start

Result<Json> Launcher::join(const std::string& app) {
  const std::string attempt =
      "join composition '" + composition_.name + "'" + (app.empty() ? "" : " as app '" + app + "'");
  if (failed_) return Error{Code::busy, attempt, "it is ending", "start it again"};
  bool known = false;
  for (Rank& rank : ranks_) {
    if (rank.app_name != app || !rank.external) continue;
    known = true;
    if (rank.taken) continue;
    rank.taken = true;
    policy_->note_join(Clock::now());
    HOBBES_TRY(environment, full_environment_of(rank));
    Json mounts = {{{"source", session_.shared_memory()}, {"destination", "/dev/shm"}},
                   {{"source", session_.path()}, {"destination", session_.path()}}};
    return Json{{"rank", rank.global}, {"environment", environment}, {"mounts", mounts}};
  }
  if (!known)
    return Error{Code::not_found, attempt, "it has no such app for others to start",
                 "see `remora validate`"};
  return Error{Code::exhausted, attempt, "all its ranks are taken",
               "raise ranks=\"...\" in the document"};
}

// One that has joined and has not arrived: by its number, or any of the app's when that is -1.
Rank* Launcher::joined(const std::string& app, std::int64_t number) {
  for (Rank& rank : ranks_) {
    const bool meant = number >= 0 ? rank.global == number : rank.app_name == app && rank.taken;
    if (meant && rank.awaited()) return &rank;
  }
  return nullptr;
}

Result<void> Launcher::arrive(const Peer& caller, const std::string& app, std::int64_t number,
                              std::int64_t pid) {
  const std::string attempt = "arrive in composition '" + composition_.name + "'";
  if (failed_) return Error{Code::busy, attempt, "it is ending", "start it again"};
  Rank* rank = joined(app, number);
  auto process = ProcessId::of(static_cast<pid_t>(pid));
  if (rank == nullptr || !process)
    return Error{Code::invalid, attempt, "there is no such rank, or it is not free for that",
                 "see `remora ps`"};
  // What has arrived is signalled with the launcher's rights when the composition ends.
  if (!process_has_user(process->pid, ::geteuid()) ||
      (process->pid != caller.pid && !caller.shares_mount_namespace()))
    return Error{Code::denied, attempt,
                 "process " + std::to_string(process->pid) + " is not the caller's to name",
                 "let the engine's hook do it, outside of the enclave"};
  HOBBES_TRY(pidfd, process->open());
  rank->pidfd = std::move(pidfd);
  if (auto watched = watch_process(*rank); !watched) {
    rank->pidfd.reset();
    return watched;
  }
  rank->pid = process->pid;
  set_phase(*rank, Phase::started);
  say(rank->name() + " has joined");
  return {};
}

Result<void> Launcher::leave(const std::string& app, std::int64_t number) {
  Rank* rank = joined(app, number);
  if (rank == nullptr)
    return Error{Code::invalid, "leave composition '" + composition_.name + "'",
                 "there is no such rank, or it is not free for that", "see `remora ps`"};
  rank->taken = false;
  return {};
}

void Launcher::set_phase(Rank& rank, Phase phase) {
  rank.phase = phase;
  rank.since = Clock::now();
  unpublished_.push_back(rank.global);
}

// Tells the NIS what changed since the last time, many ranks in one transition.
void Launcher::publish() {
  if (!manager_) return;
  if (!keys_.empty()) {
    (void)manager_->call("composition.keys", {{"handle", handle_}, {"keys", keys_}}, {},
                         milliseconds(2000));
    keys_ = Json::object();
  }
  if (unpublished_.empty()) return;
  std::sort(unpublished_.begin(), unpublished_.end());
  unpublished_.erase(std::unique(unpublished_.begin(), unpublished_.end()), unpublished_.end());
  Json processes = Json::array();
  for (std::size_t global : unpublished_) {
    const Rank& rank = ranks_[global];
    Json one = {{"id", rank.record}, {"phase", published_phase(rank.phase)}, {"pid", rank.pid}};
    if (rank.phase == Phase::ended) one["exit"] = exit_code_of(rank.wait_status);
    if (const CpuSet cpus = binding_of(rank, ranks_, composition_, places()); !cpus.empty())
      one["cpu"] = cpus.members().front();
    processes.push_back(one);
  }
  unpublished_.clear();
  // A restarted hobbesd has dropped the composition; the ranks run on without it.
  if (auto told =
          manager_->call("composition.phase", {{"handle", handle_}, {"processes", processes}}, {},
                         milliseconds(2000));
      !told)
    manager_.reset();
}

void Launcher::end_groups() {
  auto layout = CgroupLayout::detect();
  if (!layout || !stage_) return;
  for (const Stage::Place& place : places()) {
    if (place.made || !place.needed || place.record.cgroup.empty()) continue;
    Cgroup group(*layout, place.record.cgroup + "/" + composition_group(handle_));
    if (!group.exists()) continue;
    if (auto ended = group.kill_all(milliseconds(2000)); !ended) say(ended.error().text());
    (void)group.remove(milliseconds(500));
  }
}

void Launcher::finish() {
  end_groups();
  door_.reset();
  publish();
  if (manager_)
    (void)manager_->call("composition.end", {{"handle", handle_}, {"exit", status_}}, {},
                         milliseconds(2000));
  double seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
  char text[64];
  std::snprintf(text, sizeof text, "%.1f", seconds);
  if (!failed_) say("composition \"" + composition_.name + "\" finished in " + text + " s");
  if (pmix_) loop_.unwatch(pmix_->descriptor());
  pmix_.reset();
  bool made =
      std::any_of(places().begin(), places().end(), [](const Stage::Place& p) { return p.made; });
  stage_.reset();
  if (made && !options_.keep) say("its enclaves are gone, their cores and memory are free");
}

}  // namespace

Result<int> launch(const Composition& composition, const LaunchOptions& options) {
  if (options.dry_run) {
    HOBBES_TRY(text, Stage::plan(composition));
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  unsigned processes = 0;  // those without MPI have numbers too
  for (const CompositionApp& app : composition.apps) processes += app.ranks;
  if (options.stdin_rank >= 0 && static_cast<unsigned>(options.stdin_rank) >= processes)
    return Error{Code::invalid, "run composition '" + composition.name + "'",
                 "rank " + std::to_string(options.stdin_rank) +
                     " is to read standard input, and it has " + std::to_string(processes),
                 "name a universe rank, or none"};
  // Whether somebody else's run, or enclaves that were kept, have this name; what we made ourselves
  // is gone by now.
  auto name_is_taken = [](const Composition& one) {
    if (auto nis = NisReader::open(mirror_path()))
      for (const hobbes_record& record : (*nis)->all(HOBBES_COMPOSITION))
        if (record.uid == ::geteuid() && one.name == record.name) return true;
    return std::any_of(
        one.enclaves.begin(), one.enclaves.end(), [&](const CompositionEnclave& enclave) {
          return Files::system().exists(default_root() + "/" + enclave_id(one, enclave));
        });
  };
  // The name of the file serves as long as no other run has it; then a number makes it another.
  Composition named = composition;
  for (unsigned number = 2;; ++number) {
    HOBBES_TRY(session, SessionFolder::make(named.name));
    HOBBES_TRY(loop, EventLoop::make());
    auto status = Launcher(named, options, std::move(session), loop).run();
    constexpr unsigned most = 20;
    bool taken = !status && status.error().code == Code::exists && name_is_taken(named);
    if (!taken || options.own_name || options.host || number > most) return status;
    named.name = composition.name + "-" + std::to_string(number);
  }
}

}  // namespace hobbes
