#include "remora/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "abi/nis.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/process.h"
#include "core/size.h"
#include "core/standard_streams.h"
#include "enclave/driver.h"
#include "ipc/client.h"
#include "ipc/membership.h"
#include "nis/reader.h"
#include "partition/cgroup.h"
#include "remora/deadlock.h"
#include "remora/guest_pmix.h"
#include "remora/open_mpi.h"
#include "remora/pmix_server.h"
#include "remora/progress.h"
#include "remora/stacks.h"
#include "remora/stage.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds grace(2000);  // between SIGTERM and SIGKILL
constexpr milliseconds deadlock_patience(
    3000);  // of a rank in MPI_Finalize before the others are looked at

// "12:34:56.789".
std::string time_of_day() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm local{};
  ::localtime_r(&now.tv_sec, &local);
  char text[32];
  std::size_t size = std::strftime(text, sizeof text, "%H:%M:%S", &local);
  std::snprintf(text + size, sizeof text - size, ".%03ld", now.tv_nsec / 1'000'000);
  return text;
}

// What ranks take over from who runs the composition: settings of numerical libraries and the
// language everywhere, paths and the batch job's words where the root file system is the same.
std::vector<std::string> inherited_environment(bool host_root) {
  static const std::vector<std::string> everywhere = {"OMP_*",      "GOMP_*", "KMP_*", "MKL_*",
                                                      "OPENBLAS_*", "BLIS_*", "LC_*",  "LANG",
                                                      "LANGUAGE",   "TZ"};
  static const std::vector<std::string> same_files = {
      "PATH",    "LD_LIBRARY_PATH", "PYTHONPATH", "HOME",      "USER",
      "LOGNAME", "SLURM_*",         "UCX_*",      "OMPI_MCA_*"};
  auto listed = [](const std::string& name, const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return pattern.back() == '*' ? name.rfind(pattern.substr(0, pattern.size() - 1), 0) == 0
                                   : name == pattern;
    });
  };
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry, name = text.substr(0, text.find('='));
    if (listed(name, everywhere) || (host_root && listed(name, same_files))) out.push_back(text);
  }
  return out;
}

// A folder of this composition in shared memory; gone with the object.
class Session {
 public:
  static Result<Session> make(const std::string& name) {
    Session out;
    // Dead launchers' folders are swept by name: the pid in it tells whether its maker lives.
    sweep();
    auto self = ProcessId::of(::getpid());
    out.path_ = "/dev/shm/remora-" + std::to_string(::getpid()) + "-" +
                std::to_string(self ? self->start_ticks : 0) + "-" + name;
    if (::mkdir(out.path_.c_str(), 0700) != 0)
      return os_error("make the composition's folder " + out.path_, errno);
    HOBBES_CHECK(make_directories(out.path_ + "/shm", 01777));
    ::chmod((out.path_ + "/shm").c_str(), 01777);
    HOBBES_CHECK(make_directories(out.path_ + "/pmix", 0700));
    HOBBES_CHECK(make_directories(out.bundles(), 0700));
    return out;
  }
  Session(Session&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  Session& operator=(Session&&) = delete;
  ~Session() {
    if (path_.empty()) return;
    (void)remove_tree(path_);
    (void)remove_tree(bundles());
  }
  /// Shown in every enclave, and so anybody's there to write.
  [[nodiscard]] const std::string& path() const { return path_; }
  /// What enclaves are made from, which none of them sees.
  [[nodiscard]] std::string bundles() const { return path_ + ".bundles"; }

 private:
  Session() = default;
  static void sweep() {
    auto names = Files::system().list("/dev/shm");
    if (!names) return;
    for (const std::string& name : *names) {
      int pid = 0;
      unsigned long long start = 0;
      struct stat info {};
      std::string path = "/dev/shm/" + name;
      if (std::sscanf(name.c_str(), "remora-%d-%llu-", &pid, &start) != 2 ||
          ::lstat(path.c_str(), &info) != 0)
        continue;
      if (info.st_uid == ::geteuid() && !ProcessId{pid, start}.alive()) (void)remove_tree(path);
    }
  }
  std::string path_;
};

// A file that all ranks share and write (progress.h). Read, not mapped: a rank could cut it.
class Progress {
 public:
  Result<void> make(const std::string& path, std::size_t ranks) {
    fd_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd_ || ::ftruncate(fd_.get(), static_cast<off_t>(ranks * sizeof(remora_progress))) != 0)
      return os_error("make " + path, errno);
    return {};
  }
  /// Zeros where there is nothing any more.
  [[nodiscard]] remora_progress of(std::size_t rank) const {
    remora_progress out{};
    const auto at = static_cast<off_t>(rank * sizeof out);
    if (::pread(fd_.get(), &out, sizeof out, at) != sizeof out) return {};
    return out;
  }

 private:
  Fd fd_;
};

enum class Phase { planned, started, connected, in_init, running, in_finalize, finalized, ended };

unsigned published_phase(Phase phase) {
  switch (phase) {
    case Phase::planned:
      return HOBBES_PHASE_PLANNED;
    case Phase::started:
      return HOBBES_PHASE_STARTED;
    case Phase::connected:
    case Phase::in_init:
    case Phase::running:
    case Phase::in_finalize:
      return HOBBES_PHASE_CONNECTED;
    case Phase::finalized:
      return HOBBES_PHASE_FINALIZED;
    case Phase::ended:
      return HOBBES_PHASE_ENDED;
  }
  return HOBBES_PHASE_PLANNED;
}

struct Stream {
  Fd fd, copy;          ///< its end of the pipe; the file that also gets it
  std::string pending;  ///< a line not yet ended
};

struct Rank {
  std::size_t app = 0;
  unsigned app_rank = 0, global = 0;
  std::uint64_t record = 0;
  pid_t pid = 0;
  Fd pidfd, phases;
  Stream out, err;
  std::unique_ptr<GuestPmix> guest_pmix;  ///< of a rank in a virtual machine
  Phase phase = Phase::planned;
  bool connected = false, finalized = false, told_finalize = false;
  int wait_status = 0;
  bool skipped = false;  ///< ended well without ever having used MPI
  bool taken = false;    ///< an external rank that somebody has joined as
  Clock::time_point since;
};

class Launcher {
 public:
  Launcher(const Composition& composition, const LaunchOptions& options, Session session)
      : composition_(composition), options_(options), session_(std::move(session)) {}

  Result<int> run() {
    HOBBES_CHECK(prepare());
    HOBBES_CHECK(start_ranks());
    watch();
    finish();
    return status_;
  }

 private:
  void say(const std::string& text) {
    if (options_.quiet) return;
    err_.append("remora: " + text + "\n");
    (void)err_.flush_some();
  }
  [[nodiscard]] std::string phase_path(const Rank& rank) const {
    return session_.path() + "/phase." + std::to_string(rank.global);
  }
  [[nodiscard]] std::string name_of_rank(const Rank& rank) const {
    return composition_.apps[rank.app].name + ":" + std::to_string(rank.app_rank);
  }
  [[nodiscard]] std::string full_name(const Rank& rank) const {
    return "rank " + std::to_string(rank.app_rank) + " of app \"" +
           composition_.apps[rank.app].name + "\" in enclave \"" +
           composition_.enclaves[composition_.apps[rank.app].enclave].name + "\" (pid " +
           std::to_string(rank.pid) + ")";
  }

  Result<void> prepare();
  Result<void> start_ranks();
  [[nodiscard]] bool is_mpi(const Rank& rank) const { return composition_.apps[rank.app].mpi; }
  [[nodiscard]] bool is_external(const Rank& rank) const {
    return !stage_->places()[composition_.apps[rank.app].enclave].needed;
  }
  [[nodiscard]] bool is_in_guest(const Rank& rank) const {
    return stage_->places()[composition_.apps[rank.app].enclave].record.kind == Kind::palacios;
  }
  Result<void> open_door();
  void handle_door();
  Result<Json> answer_door(const Peer& caller, const Json& request);
  Result<void> start_rank(Rank& rank);
  Result<void> open_phases(Rank& rank);
  void handle_appended();
  Result<void> open_output(Rank& rank) const;
  Result<std::vector<std::string>> environment_of(const Rank& rank) const;
  std::vector<std::string> mpi_environment_of(const Rank& rank) const;
  [[nodiscard]] std::string cpus_of(const Rank& rank) const;
  [[nodiscard]] unsigned ranks_in(std::size_t enclave) const;
  void watch();
  void add(int fd, std::uint64_t tag);
  void handle_pmix();
  void handle_phase(Rank& rank);
  void handle_exit(Rank& rank);
  void handle_signal();
  void check_time();
  void check_deadlock();
  [[nodiscard]] std::string call_of(const Rank& rank) const;
  void read_stream(Rank& rank, Stream& stream, OutputStream& to);
  void flush_stream(Rank& rank, Stream& stream, OutputStream& to, bool everything);
  void flush_output();
  void hold_back(bool held);
  void end_groups();
  void fail(int status, const std::string& why);
  void signal_all(int number);
  void set_phase(Rank& rank, Phase phase);
  void publish();
  void finish();

  const Composition& composition_;
  const LaunchOptions& options_;
  Session session_;
  std::optional<Stage> stage_;
  std::optional<Client> manager_;
  std::uint64_t handle_ = 0;
  std::unique_ptr<PmixServer, EndPmixServer> pmix_;
  std::vector<Rank> ranks_;
  sigset_t signals_{};
  rlimit files_{};
  Fd signal_fd_, epoll_, door_;
  Fd appended_;  ///< to files of phases
  std::optional<Clock::time_point> first_joined_;
  int status_ = 0;
  bool failed_ = false, killed_ = false;
  std::size_t living_ = 0;
  Clock::time_point begun_ = Clock::now();
  std::optional<Clock::time_point> deadline_, kill_at_, first_init_;
  Progress progress_;
  std::optional<DeadlockWatch> deadlock_;
  Clock::time_point next_look_{};
  std::vector<std::size_t> unpublished_;
  OutputStream out_{STDOUT_FILENO}, err_{STDERR_FILENO};
  bool held_back_ = false;
  Json keys_ = Json::object();
};

unsigned Launcher::ranks_in(std::size_t enclave) const {
  unsigned sum = 0;
  for (const CompositionApp& app : composition_.apps)
    if (app.enclave == enclave) sum += app.ranks;
  return sum;
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
  for (std::size_t i = 0; i < composition_.enclaves.size(); ++i) {
    const Stage::Place& place = stage_->places()[i];
    if (!place.needed) continue;
    std::string apps;
    for (const CompositionApp& app : composition_.apps)
      if (app.enclave == i)
        apps += (apps.empty() ? "" : ", ") + app.name + " x" + std::to_string(app.ranks);
    say("enclave \"" + composition_.enclaves[i].name + "\" (" + name_of(place.record.kind) +
        "): " + (place.cpus.empty() ? "no cores of its own" : "CPUs " + place.cpus.text()) + ", " +
        (place.memory == 0 ? "memory not limited" : format_size(place.memory)) + "; runs " + apps);
    std::size_t cores = place.cpus.empty()
                            ? static_cast<std::size_t>(::sysconf(_SC_NPROCESSORS_ONLN))
                            : place.cpus.count();
    if (ranks_in(i) > cores)
      say("warning: enclave \"" + composition_.enclaves[i].name + "\" has " +
          std::to_string(cores) + (cores == 1 ? " CPU" : " CPUs") + " for " +
          std::to_string(ranks_in(i)) + " ranks, which take turns");
  }

  for (std::size_t a = 0; a < composition_.apps.size(); ++a)
    for (unsigned i = 0; i < composition_.apps[a].ranks; ++i) {
      Rank rank;
      rank.app = a;
      rank.app_rank = i;
      rank.global = composition_.apps[a].first_rank + i;
      ranks_.push_back(std::move(rank));
    }
  HOBBES_TRY(client, Client::connect());
  manager_.emplace(std::move(client));
  Json apps = Json::array();
  for (const CompositionApp& app : composition_.apps)
    apps.push_back({{"name", app.name},
                    {"enclave", stage_->places()[app.enclave].record.handle},
                    {"ranks", app.ranks}});
  HOBBES_TRY(begun,
             manager_->call("composition.begin", {{"name", composition_.name}, {"apps", apps}}));
  handle_ = static_cast<std::uint64_t>(number_at(begun.body, "handle"));
  for (std::size_t i = 0; i < ranks_.size() && i < begun.body["processes"].size(); ++i)
    ranks_[i].record = begun.body["processes"][i].get<std::uint64_t>();

  HOBBES_CHECK(progress_.make(session_.path() + "/progress", ranks_.size()));
  std::vector<PmixRank> members;
  std::vector<std::string> names;
  for (const Rank& rank : ranks_) {
    if (!is_mpi(rank)) continue;
    members.push_back({static_cast<unsigned>(rank.app), rank.app_rank});
    names.resize(rank.app + 1);
    names.back() = composition_.apps[rank.app].name;
  }
  if (members.empty()) return {};
  std::string job = "remora-" + std::to_string(::getpid()) + "-" + composition_.name;
  HOBBES_TRY(server, PmixServer::start(job, session_.path() + "/pmix", members, names));
  pmix_ = std::move(server);
  return {};
}

// Ranks get the enclave's cores in turn, whole shares while there are enough and one each
// otherwise.
std::string Launcher::cpus_of(const Rank& rank) const {
  const CompositionApp& app = composition_.apps[rank.app];
  std::vector<unsigned> cpus = stage_->places()[app.enclave].cpus.members();
  if (cpus.empty()) return {};
  unsigned index = 0, sharers = 0;
  for (const Rank& other : ranks_) {
    const CompositionApp& others = composition_.apps[other.app];
    if (others.enclave != app.enclave || !(others.cores == app.cores)) continue;
    if (other.global < rank.global) ++index;
    ++sharers;
  }
  if (!app.cores.empty()) {
    std::vector<unsigned> chosen;
    for (unsigned core : app.cores.members())
      if (core < cpus.size()) chosen.push_back(cpus[core]);
    if (!chosen.empty()) cpus = chosen;
  }
  CpuSet mine;
  std::size_t share = cpus.size() / sharers;
  if (share == 0) mine.add(cpus[index % cpus.size()]);
  for (std::size_t i = 0; i < share; ++i) mine.add(cpus[index * share + i]);
  return mine.text();
}

Result<std::vector<std::string>> Launcher::environment_of(const Rank& rank) const {
  const CompositionApp& app = composition_.apps[rank.app];
  const Stage::Place& place = stage_->places()[app.enclave];
  std::vector<std::string> out = {"REMORA_COMPOSITION=" + composition_.name,
                                  "REMORA_APP=" + app.name,
                                  "REMORA_APP_NUMBER=" + std::to_string(rank.app),
                                  "REMORA_APP_RANK=" + std::to_string(rank.app_rank),
                                  "REMORA_APP_SIZE=" + std::to_string(app.ranks)};
  // A guest has a run directory of its own.
  if (place.record.kind != Kind::palacios) out.push_back("HOBBES_RUN_DIR=" + run_directory());
  if (!options_.share.empty()) out.push_back("REMORA_SHARE=" + options_.share);
  if (!is_external(rank)) out.push_back("HOBBES_ENCLAVE=" + place.record.id);
  if (!app.mpi) return out;
  HOBBES_TRY(pmix, pmix_->environment_of(rank.global));
  for (const auto& more : {pmix, mpi_environment_of(rank)})
    out.insert(out.end(), more.begin(), more.end());
  return out;
}

std::vector<std::string> Launcher::mpi_environment_of(const Rank& rank) const {
  const CompositionApp& app = composition_.apps[rank.app];
  std::string spaces, apps;
  for (const std::string& space : composition_.spaces) {
    bool member = std::find(app.spaces.begin(), app.spaces.end(), space) != app.spaces.end();
    spaces += (spaces.empty() ? "" : ";") + space + (member ? "=1" : "=0");
  }
  for (const CompositionApp& one : composition_.apps)
    if (one.mpi)
      apps += (apps.empty() ? "" : ";") + one.name + ":" + std::to_string(one.first_rank) + ":" +
              std::to_string(one.ranks);
  std::string rank_text = std::to_string(rank.app_rank), size_text = std::to_string(app.ranks);
  std::string universe_size = std::to_string(composition_.ranks());
  std::vector<std::string> out = {"OMPI_COMM_WORLD_RANK=" + rank_text,
                                  "OMPI_COMM_WORLD_SIZE=" + size_text,
                                  "OMPI_COMM_WORLD_LOCAL_RANK=" + rank_text,
                                  "OMPI_COMM_WORLD_LOCAL_SIZE=" + size_text,
                                  "OMPI_COMM_WORLD_NODE_RANK=" + rank_text,
                                  "OMPI_UNIVERSE_SIZE=" + universe_size,
                                  "REMORA_RANK=" + std::to_string(rank.global),
                                  "REMORA_SIZE=" + universe_size,
                                  "REMORA_SPACES=" + spaces,
                                  "REMORA_APPS=" + apps,
                                  "REMORA_PROGRESS=" + session_.path() + "/progress"};
  if (!is_external(rank)) out.push_back("REMORA_PHASE=" + phase_path(rank));
  // A rank that cannot see a peer's memory by its pid must not try; that of other kernels is seen
  // by nobody.
  OpenMpiRank settings{session_.path()};
  for (std::size_t i = 0; i < stage_->places().size(); ++i) {
    const Stage::Place& other = stage_->places()[i];
    std::size_t cores = other.cpus.empty()
                            ? static_cast<std::size_t>(::sysconf(_SC_NPROCESSORS_ONLN))
                            : other.cpus.count();
    if (i == app.enclave && ranks_in(i) > cores) settings.takes_turns = true;
    settings.hides_memory = settings.hides_memory || options_.host ||
                            (other.needed && (other.own_pid_namespace || other.own_user_namespace ||
                                              other.record.kind != Kind::linux_));
  }
  for (std::string& setting : open_mpi_settings(settings)) out.push_back(std::move(setting));
  return out;
}

Result<void> Launcher::start_ranks() {
  signal_fd_.reset(::signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!signal_fd_ || !epoll_) return os_error("watch the ranks", errno);
  add(signal_fd_.get(), 0);
  if (pmix_) add(pmix_->descriptor(), 1);
  begun_ = Clock::now();
  if (options_.timeout.count() > 0) deadline_ = begun_ + options_.timeout;
  if (options_.host) HOBBES_CHECK(open_door());
  for (Rank& rank : ranks_) {
    if (is_external(rank)) {
      ++living_;
      continue;
    }
    if (auto started = start_rank(rank); !started) {
      signal_all(SIGKILL);
      for (Rank& other : ranks_)
        if (other.pid > 0) ::waitpid(other.pid, nullptr, 0);
      return std::move(started.error()).within("start " + name_of_rank(rank));
    }
  }
  bool all_ranks = composition_.ranks() == ranks_.size(), one = ranks_.size() == 1;
  say(std::to_string(ranks_.size()) +
      (all_ranks ? one ? " rank of " : " ranks of "
       : one     ? " process of "
                 : " processes of ") +
      std::to_string(composition_.apps.size()) +
      (composition_.apps.size() == 1 ? " app started" : " apps started"));
  publish();
  return {};
}

Result<void> Launcher::start_rank(Rank& rank) {
  HOBBES_TRY(environment, environment_of(rank));
  const CompositionApp& app = composition_.apps[rank.app];
  const Stage::Place& place = stage_->places()[app.enclave];
  if (app.mpi && is_in_guest(rank)) {
    HOBBES_TRY(machine, driver_for(place.record.kind).ping(place.record));
    if (!machine.value("mapsFiles", false))
      return Error{
          Code::unsupported, "start a rank in enclave '" + place.record.id + "'",
          "its guest's kernel maps copies of shared files (it has no virtio-fs with DAX by "
          "file), so that MPI's shared memory would not be shared",
          "use Linux 5.17 or newer with CONFIG_FUSE_DAX, such as the shipped guest"};
    HOBBES_TRY(way, GuestPmix::open(place.record, environment));
    rank.guest_pmix = std::move(way);
  }
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    return os_error("make pipes", errno);
  Fd out_write(out[1]), err_write(err[1]);
  rank.out.fd.reset(out[0]);
  rank.err.fd.reset(err[0]);
  HOBBES_CHECK(open_phases(rank));
  for (const Fd* fd : {&rank.out.fd, &rank.err.fd}) ::fcntl(fd->get(), F_SETFL, O_NONBLOCK);
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
  request.stdio[1] = out_write.get();
  request.stdio[2] = err_write.get();
  request.die_with_parent = true;
  request.cpus = cpus_of(rank);
  if (options_.report_bindings)
    say(name_of_rank(rank) + " (rank " + std::to_string(rank.global) + " of the universe) is " +
        (request.cpus.empty() ? "not bound" : "bound to CPUs " + request.cpus));
  HOBBES_CHECK(open_output(rank));
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
  rank.since = Clock::now();
  ++living_;
  set_phase(rank, Phase::started);
  std::uint64_t tag = (rank.global + 1ULL) << 8U;
  add(rank.out.fd.get(), tag | 1);
  add(rank.err.fd.get(), tag | 2);
  add(rank.pidfd.get(), tag | 4);
  return {};
}

// By name: between us and the rank may stand a wrapper that has other things at any number. A pipe,
// open for both, never ends. Pipes do not reach into other kernels, so a rank in a virtual machine
// has a file that it appends to.
Result<void> Launcher::open_phases(Rank& rank) {
  const std::string path = phase_path(rank),
                    attempt = "make the phase pipe of " + name_of_rank(rank);
  if (!is_in_guest(rank)) {
    if (::mkfifo(path.c_str(), 0600) != 0) return os_error(attempt, errno);
    rank.phases.reset(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!rank.phases || ::fstat(rank.phases.get(), &info) != 0 || !S_ISFIFO(info.st_mode))
      return Error{Code::denied, attempt, "somebody has put something else at " + path, ""};
    add(rank.phases.get(), (rank.global + 1ULL) << 8U | 3);
    return {};
  }
  if (!appended_) {
    appended_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!appended_) return os_error(attempt, errno);
    add(appended_.get(), 3);
  }
  rank.phases.reset(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!rank.phases || ::inotify_add_watch(appended_.get(), path.c_str(), IN_MODIFY) < 0)
    return os_error(attempt, errno);
  return {};
}

void Launcher::handle_appended() {
  char events[4096];
  while (::read(appended_.get(), events, sizeof events) > 0) {
  }
  for (Rank& rank : ranks_)
    if (is_in_guest(rank) && rank.phases) handle_phase(rank);
}

Result<void> Launcher::open_output(Rank& rank) const {
  if (options_.output.empty()) return {};
  std::string folder = options_.output + "/" + composition_.apps[rank.app].name + "/" +
                       std::to_string(rank.app_rank);
  HOBBES_CHECK(make_directories(folder, 0755));
  for (const auto& [stream, name] :
       {std::pair{&rank.out, "/stdout"}, std::pair{&rank.err, "/stderr"}}) {
    stream->copy.reset(::open((folder + name).c_str(),
                              O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644));
    if (!stream->copy) return os_error("write " + folder + name, errno);
  }
  return {};
}

void Launcher::add(int fd, std::uint64_t tag) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Launcher::watch() {
  // What the ranks have said is waited for like the ranks themselves, but not for ever once the
  // composition has failed.
  std::optional<Clock::time_point> patience;
  while (living_ > 0 || out_.pending() || err_.pending()) {
    if (living_ == 0 && failed_) {
      if (!patience) patience = Clock::now() + std::chrono::seconds(1);
      if (Clock::now() > *patience) break;
    }
    epoll_event events[64];
    int n = ::epoll_wait(epoll_.get(), events, 64, out_.pending() || err_.pending() ? 10 : 100);
    for (int i = 0; i < n; ++i) {
      std::uint64_t tag = events[i].data.u64;
      if (tag == 0) handle_signal();
      if (tag == 1) handle_pmix();
      if (tag == 2) handle_door();
      if (tag == 3) handle_appended();
      if (tag < 256) continue;
      Rank& rank = ranks_[(tag >> 8U) - 1];
      switch (tag & 0xffU) {
        case 1:
          read_stream(rank, rank.out, out_);
          break;
        case 2:
          read_stream(rank, rank.err, err_);
          break;
        case 3:
          handle_phase(rank);
          break;
        default:
          handle_exit(rank);
      }
    }
    flush_output();
    check_time();
    publish();
  }
}

void Launcher::read_stream(Rank& rank, Stream& stream, OutputStream& to) {
  char chunk[65536];
  ssize_t n = stream.fd ? ::read(stream.fd.get(), chunk, sizeof chunk) : 0;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) stream.pending.append(chunk, static_cast<std::size_t>(n));
  if (n > 0 && stream.copy)
    if (auto copied = write_all(stream.copy.get(), {chunk, static_cast<std::size_t>(n)},
                                "the output of " + name_of_rank(rank));
        !copied) {
      stream.copy.reset();
      fail(1, copied.error().text());
    }
  flush_stream(rank, stream, to, n <= 0);
  if (n <= 0) stream.fd.reset();
}

void Launcher::flush_stream(Rank& rank, Stream& stream, OutputStream& to, bool everything) {
  std::string text;
  std::string prefix = (options_.timestamps ? time_of_day() + " " : "") +
                       (options_.prefix ? "[" + name_of_rank(rank) + "] " : "");
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = stream.pending.find('\n', begin)) != std::string::npos;
       begin = end + 1)
    text += prefix + stream.pending.substr(begin, end - begin + 1);
  stream.pending.erase(0, begin);
  // A line that never ends must not grow without bound.
  if ((everything || stream.pending.size() > 65536) && !stream.pending.empty()) {
    text += prefix + stream.pending + "\n";
    stream.pending.clear();
  }
  to.append(text);
}

// Nobody waits for a reader: the ranks' pipes fill up meanwhile, and signals and time limits hold.
void Launcher::flush_output() {
  for (OutputStream* stream : {&out_, &err_})
    if (auto written = stream->flush_some(); !written && !failed_) fail(1, written.error().text());
  hold_back(out_.full() || err_.full());
}

void Launcher::hold_back(bool held) {
  if (held == held_back_) return;
  held_back_ = held;
  for (Rank& rank : ranks_)
    for (const auto& [stream, kind] : {std::pair{&rank.out, 1U}, std::pair{&rank.err, 2U}}) {
      if (!stream->fd) continue;
      epoll_event event{};
      event.events = held ? 0 : static_cast<std::uint32_t>(EPOLLIN);
      event.data.u64 = (rank.global + 1ULL) << 8U | kind;
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, stream->fd.get(), &event);
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
        if (!first_init_) first_init_ = Clock::now();
        if (rank.phase < Phase::connected) set_phase(rank, Phase::connected);
        break;
      case PmixEvent::Kind::finalized:
        rank.finalized = true;
        if (rank.phase < Phase::finalized) set_phase(rank, Phase::finalized);
        break;
      case PmixEvent::Kind::aborted:
        fail((event.status & 0xff) != 0 ? event.status & 0xff : 1,
             full_name(rank) + " called MPI_Abort with code " + std::to_string(event.status));
        break;
      case PmixEvent::Kind::published:
        keys_[event.key] = event.text;
        break;
    }
  }
}

void Launcher::handle_phase(Rank& rank) {
  char letters[64];
  ssize_t n = ::read(rank.phases.get(), letters, sizeof letters);
  if (n <= 0) {
    if (!is_in_guest(rank) && (n == 0 || errno != EAGAIN)) rank.phases.reset();
    return;
  }
  for (ssize_t i = 0; i < n; ++i) {
    Phase phase = letters[i] == 'i'   ? Phase::in_init
                  : letters[i] == 'I' ? Phase::running
                  : letters[i] == 'f' ? Phase::in_finalize
                                      : Phase::finalized;
    if (letters[i] == 'i' && !first_init_) first_init_ = Clock::now();
    if (letters[i] == 'f') rank.told_finalize = true;
    if (phase > rank.phase) set_phase(rank, phase);
  }
}

void Launcher::handle_exit(Rank& rank) {
  if (rank.phase == Phase::ended) return;
  if (is_external(rank)) {  // somebody else's child: that it ended is all that can be seen, and
                            // whether it said goodbye
    if (!rank.pidfd) return;
    pollfd gone{rank.pidfd.get(), POLLIN, 0};
    if (::poll(&gone, 1, 0) <= 0) return;
  } else if (::waitpid(rank.pid, &rank.wait_status, WNOHANG) != rank.pid) {
    return;
  }
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, rank.pidfd.get(), nullptr);
  handle_pmix();  // what it said last may still be under way
  if (rank.phases) handle_phase(rank);
  for (int round = 0; round < 64 && rank.out.fd; ++round) read_stream(rank, rank.out, out_);
  for (int round = 0; round < 64 && rank.err.fd; ++round) read_stream(rank, rank.err, err_);
  flush_stream(rank, rank.out, out_, true);
  flush_stream(rank, rank.err, err_, true);
  bool good = rank.wait_status == 0;
  bool unfinished = rank.connected && !rank.finalized && rank.phase != Phase::finalized;
  rank.skipped = is_mpi(rank) && good && !rank.connected && rank.phase < Phase::in_init;
  --living_;
  set_phase(rank, Phase::ended);
  if (!good)
    fail(exit_code_of(rank.wait_status),
         full_name(rank) + " ended with " + describe_wait_status(rank.wait_status));
  else if (unfinished)
    fail(1, full_name(rank) + " exited without MPI_Finalize");
}

void Launcher::fail(int status, const std::string& why) {
  if (failed_) return;
  failed_ = true;
  status_ = status;
  std::fprintf(stderr, "remora: %s; ending the composition\n", why.c_str());
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
      fail(128 + number, std::string("received SIG") + (name != nullptr ? name : "?"));
    }
  }
}

// Ranks that others start

Result<void> Launcher::open_door() {
  std::string path = hosting_socket_path(::geteuid(), composition_.name);
  HOBBES_TRY(listening, listen_at(path, 0600, SOCK_SEQPACKET));
  door_ = std::move(listening);
  add(door_.get(), 2);
  say("waiting for ranks to join \"" + composition_.name + "\"");
  return {};
}

void Launcher::handle_door() {
  Fd fd(::accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return;
  MessageSocket caller(std::move(fd));
  auto request = caller.receive_without_descriptors(milliseconds(200));
  auto peer = caller.peer();
  if (!request || !peer || peer->uid != ::geteuid()) return;
  Result<Json> answer = [&]() -> Result<Json> {
    try {
      return answer_door(*peer, request->body);
    } catch (const Json::exception& e) {
      return Error{Code::invalid, "answer a request to join", e.what(), "see docs/COMPOSITION.md"};
    }
  }();
  (void)caller.send(answer ? *answer : Json{{"error", to_json(answer.error())}});
}

Result<Json> Launcher::answer_door(const Peer& caller, const Json& request) {
  if (failed_)
    return Error{Code::busy, "join composition '" + composition_.name + "'", "it is ending",
                 "start it again"};
  std::string op = text_at(request, "op"), name = text_at(request, "app");
  auto wanted = number_at(request, "rank", -1);
  if (op == "join") {
    bool known = false;
    for (Rank& rank : ranks_) {
      if (composition_.apps[rank.app].name != name || !is_external(rank)) continue;
      known = true;
      if (rank.taken) continue;
      rank.taken = true;
      if (!first_joined_) first_joined_ = Clock::now();
      HOBBES_TRY(environment, environment_of(rank));
      Json mounts = {{{"source", session_.path() + "/shm"}, {"destination", "/dev/shm"}},
                     {{"source", session_.path()}, {"destination", session_.path()}}};
      return Json{{"rank", rank.global}, {"environment", environment}, {"mounts", mounts}};
    }
    std::string attempt = "join composition '" + composition_.name + "' as app '" + name + "'";
    if (!known)
      return Error{Code::not_found, attempt, "it has no such app for others to start",
                   "see `remora validate`"};
    return Error{Code::exhausted, attempt, "all its ranks are taken",
                 "raise ranks=\"...\" in the document"};
  }
  for (Rank& rank : ranks_) {
    bool meant = wanted >= 0
                     ? rank.global == static_cast<unsigned>(wanted)
                     : composition_.apps[rank.app].name == name && rank.taken && rank.pid == 0;
    if (!meant || !is_external(rank) || rank.pid != 0) continue;
    if (op == "leave") {
      rank.taken = false;
      return Json::object();
    }
    auto process = ProcessId::of(static_cast<pid_t>(number_at(request, "pid")));
    if (op != "arrive" || !process) break;
    // What has arrived is signalled with the launcher's rights when the composition ends.
    if (!process_has_user(process->pid, ::geteuid()) ||
        (process->pid != caller.pid && !caller.shares_mount_namespace()))
      return Error{Code::denied, "arrive in composition '" + composition_.name + "'",
                   "process " + std::to_string(process->pid) + " is not the caller's to name",
                   "let the engine's hook do it, outside of the enclave"};
    HOBBES_TRY(pidfd, process->open());
    rank.pid = process->pid;
    rank.pidfd = std::move(pidfd);
    add(rank.pidfd.get(), (rank.global + 1ULL) << 8U | 4);
    set_phase(rank, Phase::started);
    say(name_of_rank(rank) + " has joined");
    return Json::object();
  }
  return Error{Code::invalid, op + " a composition",
               "there is no such rank, or it is not free for that", "see `remora ps`"};
}

void Launcher::check_time() {
  auto now = Clock::now();
  if (first_joined_ && !failed_ && now > *first_joined_ + options_.peer_timeout) {
    for (const Rank& rank : ranks_)
      if (is_external(rank) && rank.pid == 0) {
        fail(1, "rank " + std::to_string(rank.app_rank) + " of app \"" +
                    composition_.apps[rank.app].name + "\" has not joined within " +
                    std::to_string(options_.peer_timeout.count()) + " s");
        break;
      }
    first_joined_.reset();
  }
  // Nobody will come as a rank that is still free once the composition has failed.
  if (failed_)
    for (Rank& rank : ranks_)
      if (is_external(rank) && rank.pid == 0 && rank.phase != Phase::ended) {
        --living_;
        set_phase(rank, Phase::ended);
      }
  if (kill_at_ && now > *kill_at_) {
    kill_at_.reset();
    signal_all(SIGKILL);
  }
  if (failed_) return;
  if (deadline_ && now > *deadline_) {
    std::string slow;
    for (const Rank& rank : ranks_)
      if (rank.phase != Phase::ended && slow.empty()) slow = full_name(rank);
    fail(124, "the time limit of " + std::to_string(options_.timeout.count()) + " s has passed; " +
                  slow + " still runs");
    return;
  }
  auto skipped =
      std::find_if(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.skipped; });
  if (first_init_ && skipped != ranks_.end()) {
    fail(1, full_name(*skipped) + " exited without MPI_Init while others wait for it there");
    return;
  }
  // The time to reach MPI_Init runs from when all have joined.
  auto awaited = [this](const Rank& r) { return is_external(r) && r.pid == 0; };
  if (first_init_ && std::any_of(ranks_.begin(), ranks_.end(), awaited)) first_init_ = now;
  if (first_init_ && now > *first_init_ + options_.init_timeout) {
    auto late = [this](const Rank& r) {
      return is_mpi(r) && r.phase != Phase::ended && !r.connected && r.phase < Phase::in_init;
    };
    auto strange = [this](const Rank& r) {
      return !is_external(r) && r.phase != Phase::ended && r.connected && r.phase < Phase::in_init;
    };
    auto culprit = std::find_if(ranks_.begin(), ranks_.end(), late);
    if (culprit != ranks_.end()) {
      fail(1, full_name(*culprit) + " has not reached MPI_Init " +
                  std::to_string(options_.init_timeout.count()) + " s after the first one");
    } else if (culprit = std::find_if(ranks_.begin(), ranks_.end(), strange);
               culprit != ranks_.end()) {
      fail(1, full_name(*culprit) +
                  " is in MPI_Init without the remora component (is its Open MPI another one?)");
    }
    first_init_.reset();  // looked at once: from here on all are inside
    if (failed_) return;
  }
  check_deadlock();
}

// Someone has entered MPI_Finalize; if all who have not are waiting inside MPI, and go on waiting
// in the very same call, nobody will ever send what they wait for.
void Launcher::check_deadlock() {
  auto now = Clock::now();
  if (now < next_look_) return;
  next_look_ = now + milliseconds(700);
  const Rank* leaver = nullptr;
  std::vector<DeadlockWatch::Subject> others;
  for (const Rank& rank : ranks_) {
    if (!is_mpi(rank) || rank.phase == Phase::ended || rank.phase == Phase::finalized) continue;
    if (rank.phase == Phase::in_finalize) {
      if (now - rank.since > deadlock_patience && (leaver == nullptr || rank.since < leaver->since))
        leaver = &rank;
    } else {
      const remora_progress now_at = progress_.of(rank.global);
      others.push_back({rank.global, now_at.messages, now_at.waits});
    }
  }
  if (leaver == nullptr || others.empty()) {
    deadlock_.reset();
    return;
  }
  if (!deadlock_) deadlock_.emplace();
  if (auto waiting = deadlock_->look(others))
    fail(1, full_name(*leaver) + " is in MPI_Finalize while " + full_name(ranks_[*waiting]) +
                " waits" + call_of(ranks_[*waiting]) + " for a message that cannot come");
}

// " in MPI_Recv", where the rank's stack can be seen.
std::string Launcher::call_of(const Rank& rank) const {
  const Kind kind = stage_->places()[composition_.apps[rank.app].enclave].record.kind;
  auto call =
      kind == Kind::linux_ || is_external(rank) ? outermost_mpi_call(rank.pid) : std::nullopt;
  return call ? " in " + *call : "";
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
    if (auto cpus = CpuSet::parse(cpus_of(rank)); cpus && !cpus->empty())
      one["cpu"] = cpus->members().front();
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
  for (const Stage::Place& place : stage_->places()) {
    if (place.made || !place.needed || place.record.cgroup.empty()) continue;
    Cgroup group(*layout, place.record.cgroup + "/" + composition_group(handle_));
    if (!group.exists()) continue;
    if (auto ended = group.kill_all(milliseconds(2000)); !ended) say(ended.error().text());
    (void)group.remove(milliseconds(500));
  }
}

void Launcher::finish() {
  end_groups();
  if (door_) ::unlink(hosting_socket_path(::geteuid(), composition_.name).c_str());
  publish();
  if (manager_)
    (void)manager_->call("composition.end", {{"handle", handle_}, {"exit", status_}}, {},
                         milliseconds(2000));
  double seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
  char text[64];
  std::snprintf(text, sizeof text, "%.1f", seconds);
  if (!failed_) say("composition \"" + composition_.name + "\" finished in " + text + " s");
  pmix_.reset();
  bool made = std::any_of(stage_->places().begin(), stage_->places().end(),
                          [](const Stage::Place& p) { return p.made; });
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
    HOBBES_TRY(session, Session::make(named.name));
    auto status = Launcher(named, options, std::move(session)).run();
    constexpr unsigned most = 20;
    bool taken = !status && status.error().code == Code::exists && name_is_taken(named);
    if (!taken || options.own_name || options.host || number > most) return status;
    named.name = composition.name + "-" + std::to_string(number);
  }
}

}  // namespace hobbes
