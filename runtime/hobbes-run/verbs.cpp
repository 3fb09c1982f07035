#include "hobbes-run/verbs.h"

#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/number.h"
#include "core/paths.h"
#include "core/pidfd.h"
#include "core/signal_name.h"
#include "core/size.h"
#include "enclave/driver.h"
#include "enclave/drivers/linux/user_database.h"
#include "enclave/lifecycle.h"
#include "hobbes-run/relay.h"
#include "ipc/client.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t least_memory = 1 << 20;

std::string root_of(const Globals& globals) {
  return globals.root.empty() ? default_root() : absolute(globals.root);
}

Result<EnclaveRecord> find(const Globals& globals, const std::string& id) {
  return EnclaveRecord::load(root_of(globals), id);
}

// Counts the sockets that a service manager has passed to this process (sd_listen_fds(3)).
// LISTEN_PID may also be 1, since conmon sets that.
int inherited_sockets() {
  const char* count = ::getenv("LISTEN_FDS");
  const char* process = ::getenv("LISTEN_PID");
  if (count == nullptr) return 0;
  if (process != nullptr && std::string_view(process) != "1" &&
      std::string_view(process) != std::to_string(::getpid()))
    return 0;
  return static_cast<int>(whole_number(count, 1024).value_or(0));
}

EnclaveRequest request_of(const Globals& globals, const CreateOptions& options) {
  EnclaveRequest out;
  out.root = root_of(globals);
  out.id = options.id;
  out.bundle = options.bundle;
  out.config = options.config;
  out.overrides = options.overrides;
  out.bound = options.bound;
  out.terminal = options.tty;
  out.pid_file = options.pid_file;
  out.console_socket = options.console_socket;
  out.no_pivot = options.no_pivot;
  out.no_new_keyring = options.no_new_keyring;
  out.preserve_fds = options.preserve_fds;
  out.listen_fds = inherited_sockets();
  for (const std::string& label : options.labels)
    out.labels[label.substr(0, label.find('='))] =
        label.find('=') == std::string::npos ? "" : label.substr(label.find('=') + 1);
  return out;
}

void print_placement(const Globals& globals, const std::string& id, const Json& placement) {
  if (globals.json) {
    std::cout << to_text(placement, 2) << "\n";
    return;
  }
  std::string cpus = text_at(placement, "cpus");
  std::cout << "enclave '" << id << "' would get\n  CPUs    "
            << (cpus.empty() ? "shared with the host" : cpus) << "\n";
  std::uint64_t total = static_cast<std::uint64_t>(number_at(placement, "memoryTotal"));
  std::cout << "  memory  " << (total == 0 ? "not limited" : format_size(total));
  for (const auto& [node, bytes] : placement["memory"].items())
    std::cout << ", " << format_size(bytes.get<std::uint64_t>()) << " on NUMA node " << node;
  std::cout << "\n";
}

// "NAME=value" in the place of an earlier one of that name, as setenv(3) does.
void set_variable(Json& environment, const std::string& entry) {
  std::string prefix = entry.substr(0, entry.find('=') + 1);
  for (Json& old : environment)
    if (old.is_string() && !prefix.empty() && old.get<std::string>().rfind(prefix, 0) == 0) {
      old = entry;
      return;
    }
  environment.push_back(entry);
}

// Waits for a direct child, handing on the signals people send to a foreground program.
int wait_for(pid_t child, Relay* relay) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH})
    sigaddset(&signals, number);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  Fd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  Fd ended = open_pidfd(child);
  bool asked_to_end = false;
  for (;;) {
    pollfd watched[5] = {{ended.get(), POLLIN, 0},
                         {signal_fd.get(), POLLIN, 0},
                         {-1, POLLIN, 0},
                         {-1, POLLIN, 0},
                         {-1, POLLOUT, 0}};
    if (relay != nullptr) relay->watch(watched[2], watched[3], watched[4]);
    if (::poll(watched, 5, relay != nullptr ? relay->patience() : -1) < 0 && errno != EINTR) break;
    if (relay != nullptr) relay->move(watched[2], watched[3]);
    if ((watched[1].revents & POLLIN) != 0) {
      signalfd_siginfo info{};
      (void)!::read(signal_fd.get(), &info, sizeof info);
      if (info.ssi_signo == SIGWINCH && relay != nullptr)
        relay->resize();
      else
        ::kill(child, static_cast<int>(info.ssi_signo));
      asked_to_end |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT ||
                      info.ssi_signo == SIGHUP || info.ssi_signo == SIGQUIT;
    }
    if ((watched[0].revents & POLLIN) != 0) break;
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  // The rest of the output is waited for until a signal asks for the end; after such a signal a
  // reader has one second left.
  constexpr std::chrono::seconds last_output{1};
  std::optional<std::chrono::steady_clock::time_point> deadline;
  while (relay != nullptr && !relay->drain()) {
    if (asked_to_end && !deadline) deadline = std::chrono::steady_clock::now() + last_output;
    int patience = -1;
    if (deadline) {
      auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline -
                                                               std::chrono::steady_clock::now());
      if (left.count() <= 0) break;
      patience = static_cast<int>(left.count());
    }
    pollfd watched[2] = {{STDOUT_FILENO, POLLOUT, 0}, {signal_fd.get(), POLLIN, 0}};
    if (::poll(watched, 2, patience) > 0 && (watched[1].revents & POLLIN) != 0) break;
  }
  return status;
}

// The manager knows why an enclave crashed: the guest's panic, the co-kernel's fault, the missed
// heartbeat.
void tell_why(const EnclaveRecord& record) {
  auto client = Client::connect(false);
  if (!client) return;
  auto described = client->call("enclave.describe", {{"handle", record.handle}}, {},
                                std::chrono::milliseconds(1000));
  if (!described) return;
  if (std::string cause = text_at(described->body, "cause"); !cause.empty())
    std::fprintf(stderr, "hobbes-run: enclave '%s' crashed: %s\n", record.id.c_str(),
                 cause.c_str());
}

}  // namespace

Result<int> create(const Globals& globals, const CreateOptions& options) {
  if (options.dry_run) {
    HOBBES_TRY(bundle, load_bundle(options.bundle, options.config, options.overrides));
    HOBBES_CHECK(check_id(options.id));
    HOBBES_TRY(client, Client::connect());
    HOBBES_TRY(planned, client.call("plan", reservation_of(bundle, root_of(globals), options.id)));
    planned.body.erase("ok");
    print_placement(globals, options.id, planned.body);
    return 0;
  }
  HOBBES_TRY(record, create_enclave(request_of(globals, options)));
  (void)record;
  return 0;
}

Result<int> run_enclave(const Globals& globals, const CreateOptions& given) {
  CreateOptions options = given;
  std::optional<Relay> relay;
  HOBBES_TRY(bundle, load_bundle(options.bundle, options.config, options.overrides));
  if ((bundle.terminal() || options.tty) && options.console_socket.empty() && !options.detach) {
    HOBBES_TRY(opened, Relay::open());
    relay.emplace(std::move(opened));
    options.console_socket = relay->socket_path();
  }
  HOBBES_TRY(record, create_enclave(request_of(globals, options)));
  pid_t child = record.process.pid;
  if (relay) HOBBES_CHECK(relay->receive());
  if (auto started = start_enclave(record); !started) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    (void)remove_enclave(record);
    return std::move(started).error();
  }
  if (options.detach) return 0;
  int status = wait_for(child, relay ? &*relay : nullptr);
  tell_manager(
      record.handle,
      {{"event", "exited"}, {"status", exit_code_of(status)}, {"signalled", WIFSIGNALED(status)}});
  if (exit_code_of(status) >= 128) tell_why(record);
  if (!options.keep) HOBBES_CHECK(remove_enclave(record));
  if (relay && relay->failure() && status == 0) return *relay->failure();
  return exit_code_of(status);
}

Result<int> start(const Globals& globals, const std::string& id) {
  HOBBES_TRY(record, find(globals, id));
  HOBBES_CHECK(start_enclave(record));
  return 0;
}

namespace {

constexpr std::chrono::milliseconds report_limit(2000);  // the program does not live by the books

// Its global process id; 0 without hobbesd.
std::uint64_t note_process(const EnclaveRecord& record, pid_t pid, const oci::Process& process) {
  auto client = Client::connect(false);
  if (!client || record.handle == 0) return 0;
  auto noted = client->call("process.begin",
                            {{"handle", record.handle},
                             {"pid", pid},
                             {"program", process.args.empty() ? "" : process.args.front()}},
                            {}, report_limit);
  return noted ? static_cast<std::uint64_t>(number_at(noted->body, "id")) : 0;
}

void note_end(std::uint64_t process, int status) {
  if (process == 0) return;
  if (auto client = Client::connect(false))
    (void)client->call("process.end", {{"id", process}, {"status", status}}, {}, report_limit);
}

}  // namespace

Result<int> exec(const Globals& globals, const ExecOptions& options) {
  HOBBES_TRY(record, find(globals, options.id));
  ExecRequest request;
  std::vector<Problem> problems;
  if (!options.process_file.empty()) {
    HOBBES_TRY(text, read_stream(options.process_file, json_size_limit));
    HOBBES_TRY(json, parse_json(text, options.process_file));
    if (auto process = read_process(json, "", problems)) request.process = std::move(*process);
  } else {
    HOBBES_TRY(text, Files::system().read(record.folder() + "/config.json", json_size_limit));
    HOBBES_TRY(config, parse_json(text, "config.json"));
    Json json = config.value(
        "process",
        Json{{"cwd", "/"},
             {"env", {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}});
    if (options.command.empty())
      return Error{Code::invalid, "execute a program in enclave '" + options.id + "'",
                   "no program is given", "name one after the id"};
    json["args"] = options.command;
    json["terminal"] = options.tty;
    if (!options.cwd.empty()) json["cwd"] = options.cwd;
    for (const std::string& entry : options.env) set_variable(json["env"], entry);
    if (!options.apparmor.empty()) json["apparmorProfile"] = options.apparmor;
    if (!options.process_label.empty()) json["selinuxLabel"] = options.process_label;
    if (options.no_new_privs) json["noNewPrivileges"] = true;
    for (const std::string& name : options.capabilities)
      for (const char* set : {"bounding", "effective", "permitted"})
        json["capabilities"][set].push_back(name);
    if (auto process = read_process(json, "/process", problems))
      request.process = std::move(*process);
  }
  if (!problems.empty())
    return Error{
        Code::invalid, "execute a program in enclave '" + options.id + "'",
        "the process has " + std::to_string(problems.size()) + " problem(s)\n" + report(problems),
        "mend them"};
  if (options.tty) request.process.terminal = true;
  request.user = options.user;
  request.additional_gids = options.additional_gids;
  request.cgroups = options.cgroups;
  request.ignore_paused = options.ignore_paused;
  request.console_socket = options.console_socket;
  request.preserve_fds = options.preserve_fds;
  std::optional<Relay> relay;
  if (request.process.terminal && request.console_socket.empty() && !options.detach) {
    HOBBES_TRY(opened, Relay::open());
    relay.emplace(std::move(opened));
    request.console_socket = relay->socket_path();
  }
  auto child = driver_for(record.kind).exec(record, request);
  if (!child) return std::move(child).error();
  if (relay) HOBBES_CHECK(relay->receive());
  if (!options.pid_file.empty())
    HOBBES_CHECK(replace_file(options.pid_file, std::to_string(*child)));
  const std::uint64_t process = note_process(record, *child, request.process);
  if (options.detach) return 0;
  int status = exit_code_of(wait_for(*child, relay ? &*relay : nullptr));
  note_end(process, status);
  if (relay && relay->failure() && status == 0) return *relay->failure();
  return status;
}

Result<int> state(const Globals& globals, const std::string& id) {
  HOBBES_TRY(record, find(globals, id));
  std::cout << to_text(record.state(), 2) << "\n";
  return 0;
}

std::string created_text(const EnclaveRecord& record) {
  char out[32];
  std::time_t when = record.created_s;
  std::strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&when));
  return out;
}

Result<int> list(const Globals& globals, const std::string& format, bool quiet) {
  auto records = EnclaveRecord::list(root_of(globals));
  if (format == "json" || globals.json) {
    Json out = Json::array();
    for (const EnclaveRecord& record : records) {
      Json one = record.state();
      one["created"] = created_text(record);
      one["owner"] = std::to_string(record.owner);
      out.push_back(one);
    }
    std::cout << to_text(out) << "\n";
    return 0;
  }
  UserDatabase users(Fd(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)));
  std::size_t width = 2;
  for (const EnclaveRecord& record : records) width = std::max(width, record.id.size());
  if (!quiet)
    std::printf("%-*s  %-8s  %8s  %-8s  %-20s  %-8s  %s\n", static_cast<int>(width), "ID", "KIND",
                "PID", "STATUS", "CREATED", "OWNER", "BUNDLE");
  for (const EnclaveRecord& record : records) {
    if (quiet) {
      std::printf("%s\n", record.id.c_str());
      continue;
    }
    Status now = record.status();
    std::printf("%-*s  %-8s  %8d  %-8s  %-20s  %-8s  %s\n", static_cast<int>(width),
                record.id.c_str(), name_of(record.kind),
                now == Status::stopped ? 0 : record.process.pid, name_of(now),
                created_text(record).c_str(),
                users.name_of(record.owner).value_or(std::to_string(record.owner)).c_str(),
                record.bundle.c_str());
  }
  return 0;
}

// What ps(1) prints with these options of its processes alone, found by its column PID.
Result<int> ps_with(const std::vector<std::string>& options, const std::vector<pid_t>& pids) {
  Command command;
  command.argv = {"ps", "-e"};  // of other sessions and users, too
  command.argv.insert(command.argv.end(), options.begin(), options.end());
  HOBBES_TRY(outcome, run(command));
  if (!outcome.good())
    return Error{Code::invalid, "list processes by ps(1)", outcome.err,
                 "see man ps for the options"};
  std::istringstream lines(outcome.out);
  std::string line;
  std::optional<std::size_t> column;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::vector<std::string> fields;
    for (std::string word; words >> word;) fields.push_back(word);
    if (!column) {
      auto at = std::find(fields.begin(), fields.end(), "PID");
      if (at == fields.end())
        return Error{Code::invalid, "list processes by ps(1)", "these options print no PID",
                     "use one that does, as -f"};
      column = static_cast<std::size_t>(at - fields.begin());
      std::cout << line << "\n";
      continue;
    }
    auto pid = *column < fields.size() ? whole_number(fields[*column], INT32_MAX) : std::nullopt;
    if (pid && std::find(pids.begin(), pids.end(), static_cast<pid_t>(*pid)) != pids.end())
      std::cout << line << "\n";
  }
  return 0;
}

Result<int> ps(const Globals& globals, const std::string& id, const std::string& format,
               const std::vector<std::string>& options) {
  HOBBES_TRY(record, find(globals, id));
  HOBBES_TRY(pids, driver_for(record.kind).processes(record));
  if (format == "json" || globals.json) {
    if (!options.empty())
      return Error{Code::invalid, "list processes as JSON", "options of ps(1) have no effect on it",
                   "leave them out"};
    std::cout << to_text(Json(pids)) << "\n";
    return 0;
  }
  if (!options.empty()) return ps_with(options, pids);
  std::printf("%8s  %s  %s\n", "PID", "S", "COMMAND");
  for (pid_t pid : pids) {
    std::string command =
        Files::system().read("/proc/" + std::to_string(pid) + "/cmdline").value_or("");
    for (char& c : command)
      if (c == '\0' || c == '\n') c = ' ';
    char letter = process_state(pid);
    if (letter != '\0') std::printf("%8d  %c  %s\n", pid, letter, command.c_str());
  }
  return 0;
}

Result<int> kill(const Globals& globals, const std::string& id, const std::string& signal,
                 bool all) {
  HOBBES_TRY(record, find(globals, id));
  HOBBES_TRY(number, signal_number(signal));
  if (number != 0 && record.process.alive()) tell_manager(record.handle, {{"event", "killing"}});
  HOBBES_CHECK(driver_for(record.kind).signal(record, number, all));
  return 0;
}

Result<int> remove(const Globals& globals, const std::string& id, bool force) {
  auto record = find(globals, id);
  if (!record) {
    if (force && record.error().code != Code::denied) return 0;
    return std::move(record).error();
  }
  Status now = record->status();
  if (!force && now != Status::stopped && now != Status::created)
    return Error{Code::busy, "delete enclave '" + id + "'",
                 "enclave is " + std::string(name_of(now)) + ", not stopped",
                 "stop it with `hobbes-run kill " + id + "`, or use --force"};
  if (now != Status::stopped) tell_manager(record->handle, {{"event", "killing"}});
  HOBBES_CHECK(remove_enclave(*record));
  return 0;
}

Result<int> remove_matching(const Globals& globals, const std::string& pattern, bool force) {
  regex_t expression;
  if (int error = ::regcomp(&expression, pattern.c_str(), REG_EXTENDED | REG_NOSUB); error != 0) {
    char why[128];
    (void)::regerror(error, &expression, why, sizeof why);
    return Error{Code::invalid, "delete enclaves that match '" + pattern + "'", why,
                 "see man 7 regex"};
  }
  std::vector<std::string> ids;
  for (const EnclaveRecord& record : EnclaveRecord::list(root_of(globals)))
    if (::regexec(&expression, record.id.c_str(), 0, nullptr, 0) == 0) ids.push_back(record.id);
  ::regfree(&expression);
  // One that stays is no reason to keep the others.
  std::optional<Error> failed;
  for (const std::string& id : ids)
    if (auto removed = remove(globals, id, force); !removed && !failed)
      failed = std::move(removed).error();
  if (failed) return *failed;
  return 0;
}

Result<int> pause(const Globals& globals, const std::string& id) {
  HOBBES_TRY(record, find(globals, id));
  HOBBES_CHECK(driver_for(record.kind).pause(record));
  tell_manager(record.handle, {{"event", "paused"}});
  return 0;
}

Result<int> resume(const Globals& globals, const std::string& id) {
  HOBBES_TRY(record, find(globals, id));
  HOBBES_CHECK(driver_for(record.kind).resume(record));
  tell_manager(record.handle, {{"event", "resumed"}});
  return 0;
}

// A lease is changed by its own options only: a cpuset beside it would have the cores leased twice.
Result<void> check_update(const EnclaveRecord& record, const oci::Resources& resources,
                          bool resizes) {
  const std::string attempt = "update enclave '" + record.id + "'";
  bool limits = !(resources == oci::Resources{});
  if (!resizes && !limits)
    return Error{Code::invalid, attempt, "nothing that can be changed is named",
                 "see `hobbes-run update --help`"};
  if (resources.cpus.empty() && resources.mems.empty() && !resources.memory_limit) return {};
  auto client = Client::connect(false);
  auto described = client ? client->call("enclave.describe", {{"handle", record.handle}})
                          : Result<Message>(client.error());
  if (!described) return {};  // it holds no lease that anybody knows of
  auto memory = number_at(described->body, "memory");
  if (memory > 0 && resources.memory_limit &&
      (*resources.memory_limit < 0 || *resources.memory_limit > memory))
    return Error{Code::busy, attempt,
                 "it leases " + format_size(static_cast<std::uint64_t>(memory)) +
                     " of memory, which the limit would leave",
                 "change the lease with --memory-size"};
  std::string leased = text_at(described->body, "cpus");
  if (!leased.empty() && !(resources.cpus.empty() && resources.mems.empty()))
    return Error{Code::busy, attempt,
                 "it leases CPUs " + leased + ", which --cpuset-cpus and --cpuset-mems would leave",
                 "change the lease with --cores"};
  return {};
}

// -1: unlimited.
Result<std::int64_t> limit_in_bytes(const std::string& text) {
  if (text == "-1") return -1;
  HOBBES_TRY(bytes, parse_size(text));
  if (bytes > INT64_MAX)
    return Error{Code::invalid, "read the size '" + text + "'", "the number is too large",
                 "use -1 for no limit"};
  return static_cast<std::int64_t>(bytes);
}

// What the command line says, over what its file says, as an OCI resources object.
Result<Json> resources_json(const UpdateOptions& options) {
  Json out = Json::object();
  if (!options.resources.empty()) {
    HOBBES_TRY(text, read_stream(options.resources, json_size_limit));
    HOBBES_TRY(json, parse_json(text, options.resources));
    out = std::move(json);
  }
  auto put = [&](const char* object, const char* field, const auto& value) {
    if (out.is_object() && (!out.contains(object) || out[object].is_object()))
      out[object][field] = value;
  };
  auto put_size = [&](const char* field, const std::string& text) -> Result<void> {
    if (text.empty()) return {};
    HOBBES_TRY(bytes, limit_in_bytes(text));
    put("memory", field, bytes);
    return {};
  };
  auto put_number = [&](const char* object, const char* field, const auto& number) {
    if (number) put(object, field, *number);
  };
  HOBBES_CHECK(put_size("limit", options.memory));
  HOBBES_CHECK(put_size("reservation", options.memory_reservation));
  HOBBES_CHECK(put_size("swap", options.memory_swap));
  if (!options.cpuset_cpus.empty()) put("cpu", "cpus", options.cpuset_cpus);
  if (!options.cpuset_mems.empty()) put("cpu", "mems", options.cpuset_mems);
  put_number("cpu", "quota", options.cpu_quota);
  put_number("cpu", "burst", options.cpu_burst);
  put_number("cpu", "shares", options.cpu_shares);
  put_number("cpu", "period", options.cpu_period);
  put_number("cpu", "realtimeRuntime", options.cpu_rt_runtime);
  put_number("cpu", "realtimePeriod", options.cpu_rt_period);
  put_number("cpu", "idle", options.cpu_idle);
  put_number("pids", "limit", options.pids_limit);
  put_number("blockIO", "weight", options.blkio_weight);
  return out;
}

Result<int> update(const Globals& globals, const UpdateOptions& options) {
  HOBBES_TRY(record, find(globals, options.id));
  const Driver& driver = driver_for(record.kind);
  HOBBES_TRY(wanted, resources_json(options));
  // The limit of memory and swap counts both, so the one of memory alone belongs to it: that which
  // is in force, if none is named.
  if (Json memory = wanted.is_object() ? wanted.value("memory", Json()) : Json();
      memory.is_object() && memory.contains("swap") && !memory.contains("limit")) {
    auto numbers = driver.statistics(record);
    constexpr std::uint64_t unlimited = std::uint64_t{1}
                                        << 62;  // what the kernel calls unlimited is more
    if (auto now = numbers.find("memory.limit");
        now != numbers.end() && now->second != 0 && now->second < unlimited)
      wanted["memory"]["limit"] = now->second;
  }
  std::vector<Problem> problems;
  auto read = read_resources(wanted, "", problems);
  if (!read)
    return Error{Code::invalid, "update enclave '" + options.id + "'", "\n" + report(problems),
                 "mend what is named"};
  oci::Resources resources = std::move(*read);
  resources.devices.clear();  // an update never widens what devices may be used

  bool resizes = options.cores > 0 || !options.memory_size.empty();
  HOBBES_CHECK(check_update(record, resources, resizes));
  if (!resizes) {
    HOBBES_CHECK(driver.update(record, {resources, false, {}, {}}));
    return 0;
  }
  HOBBES_TRY(client, Client::connect());
  Json request = {{"handle", record.handle}, {"dryRun", true}};
  if (options.cores > 0) request["cores"] = {{"count", options.cores}};
  if (!options.memory_size.empty()) {
    HOBBES_TRY(bytes, parse_size(options.memory_size));
    if (bytes < least_memory)
      return Error{Code::invalid, "update enclave '" + options.id + "'",
                   format_size(bytes) + " of memory is less than an enclave can have",
                   "lease at least " + format_size(least_memory)};
    request["memory"] = {{"size", bytes}};
  }
  HOBBES_TRY(planned, client.call("enclave.resize", request));
  if (options.dry_run) {
    planned.body.erase("ok");
    print_placement(globals, options.id, planned.body);
    return 0;
  }
  oci::Resources lease = resources;
  lease.cpus = text_at(planned.body, "cpus");
  lease.mems = text_at(planned.body, "mems");
  if (std::int64_t bytes = number_at(planned.body, "memoryTotal"); bytes > 0)
    lease.memory_limit = bytes;
  // Growing: take the lease, then use it. Shrinking: stop using, then give the lease back. At no
  // moment does the enclave run where it holds no lease.
  HOBBES_TRY(before, CpuSet::parse(planned.body.value("before", Json::object()).value("cpus", "")));
  HOBBES_TRY(after, CpuSet::parse(lease.cpus));
  request["dryRun"] = false;
  request["cores"] = {{"list", lease.cpus}};
  if (lease.cpus.empty()) request.erase("cores");
  std::int64_t memory_before = number_at(planned.body.value("before", Json::object()), "memory");
  bool fewer_cores = !(before - after).empty(),
       less_memory = number_at(planned.body, "memoryTotal") < memory_before;
  bool shrinks = fewer_cores || less_memory;
  if (shrinks &&
      (!(after - before).empty() || number_at(planned.body, "memoryTotal") > memory_before))
    return Error{Code::invalid, "update enclave '" + options.id + "'",
                 "it would give up some of what it holds and get more of something else",
                 "make two updates: first what it gives up"};
  UpdateRequest apply{lease, true, after, memory_by_node(planned.body)};
  if (shrinks) HOBBES_CHECK(driver.update(record, apply));
  HOBBES_TRY(resized, client.call("enclave.resize", request));
  (void)resized;
  if (!shrinks) {
    if (auto applied = driver.update(record, apply); !applied) {
      if (!before.empty()) request["cores"] = {{"list", before.text()}};
      if (request.contains("memory"))
        request["memory"] = {{"size", number_at(planned.body["before"], "memory")}};
      (void)client.call("enclave.resize", request);
      return std::move(applied).error();
    }
  }
  return 0;
}

// Its type and whose it is stand first, where people and other runtimes' scripts look for them.
nlohmann::ordered_json event_of(const char* type, const std::string& id) {
  return {{"type", type}, {"id", id}};
}

Result<int> events(const Globals& globals, const std::string& id, bool stats,
                   milliseconds interval) {
  constexpr milliseconds step{100};
  std::optional<std::uint64_t> killed;
  for (milliseconds since = interval;; since += step) {
    HOBBES_TRY(record, find(globals, id));
    bool over = record.status() == Status::stopped;
    auto numbers = driver_for(record.kind).statistics(record);
    if (auto now = numbers.find("memory.oom_kills"); now != numbers.end()) {
      if (killed && now->second > *killed) std::cout << event_of("oom", id).dump() << std::endl;
      killed = now->second;
    }
    if (since >= interval || over) {
      since = milliseconds(0);
      auto out = event_of("stats", id);
      out["status"] = name_of(record.status());
      out["data"] = numbers;
      std::cout << out.dump() << std::endl;
      if (!std::cout) return os_error("write to standard output", errno);
    }
    if (stats || over) return 0;
    std::this_thread::sleep_for(std::min(step, interval));
  }
}

Result<int> spec(const std::string& kind_name, bool host_root, bool terminal,
                 const std::string& bundle, bool print) {
  auto kind = kind_named(kind_name);
  if (!kind)
    return Error{Code::invalid, "write a configuration of kind '" + kind_name + "'",
                 "there is no such kind", "use linux, kitten or palacios"};
  Json config = example_config(*kind, host_root);
  if (terminal && *kind == Kind::kitten)
    return Error{Code::unsupported, "write a configuration with a terminal",
                 "a co-kernel has a console only", "see `hobbes console`"};
  if (terminal) {
    config["process"]["terminal"] = true;
    config["process"]["args"] = {"sh"};
  }
  std::string text = to_text(config, 2) + "\n";
  if (print) {
    std::cout << text;
    return 0;
  }
  std::string path = absolute(bundle) + "/config.json";
  if (Files::system().exists(path))
    return Error{Code::exists, "write " + path, "the file exists",
                 "remove it first, or print with --print"};
  HOBBES_CHECK(make_directories(absolute(bundle), 0755));
  HOBBES_CHECK(replace_file(path, text));
  return 0;
}

Result<int> validate(const Globals& globals, const std::string& bundle) {
  HOBBES_TRY(validation, validate_bundle(bundle));
  if (globals.json) {
    std::cout << to_text(Json{{"valid", validation.problems.empty()},
                              {"problems", to_json(validation.problems)}},
                         2)
              << "\n";
  } else if (validation.problems.empty()) {
    std::cout << absolute(bundle) << ": valid, kind " << name_of(validation.bundle->hobbes.kind)
              << "\n";
  } else {
    std::cout << absolute(bundle) << "/config.json: " << validation.problems.size()
              << " problem(s)\n"
              << report(validation.problems) << "\n";
  }
  return validation.problems.empty() ? 0 : 1;
}

}  // namespace hobbes
