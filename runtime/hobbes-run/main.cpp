// hobbes-run: the OCI-style command line of Hobbes.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <set>

#include "core/command_line.h"
#include "core/json.h"
#include "core/log.h"
#include "core/number.h"
#include "core/sealed_program.h"
#include "core/standard_streams.h"
#include "hobbes-run/image.h"
#include "hobbes-run/verbs.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

void report(const Error& error) { log(LogLevel::error, error.text(), {{"error", to_json(error)}}); }

LogLevel level_of(const Globals& globals) {
  static const std::map<std::string, LogLevel> levels = {
      {"trace", LogLevel::debug},  {"debug", LogLevel::debug},     {"info", LogLevel::info},
      {"warn", LogLevel::warning}, {"warning", LogLevel::warning}, {"error", LogLevel::error},
      {"fatal", LogLevel::error},  {"panic", LogLevel::error}};
  if (globals.debug) return LogLevel::debug;
  auto named = levels.find(globals.log_level);
  return named == levels.end() ? LogLevel::warning : named->second;
}

// Callers that pass --log read a failure there, people and programs that pass --json on standard
// error.
void open_log(const Globals& globals) {
  bool chosen = globals.debug || !globals.log_level.empty();
  LogLevel level = level_of(globals);
  set_log({"hobbes-run", globals.log, globals.json, globals.log_format == "json", level,
           chosen ? level : LogLevel::error});
}

int exit_code(const Error& error) {
  if (error.cause.find("execute ") == std::string::npos &&
      error.attempt.find("execute ") == std::string::npos)
    return 1;
  return error.code == Code::not_found ? 127 : error.code == Code::denied ? 126 : 1;
}

void add_create_options(CLI::App* verb, CreateOptions& options) {
  verb->add_option("id", options.id, "the new enclave's id")->required();
  verb->add_option("-b,--bundle", options.bundle, "folder with config.json")->capture_default_str();
  verb->add_option("--config", options.config, "file to read instead of the bundle's config.json");
  verb->add_option("--console-socket", options.console_socket,
                   "socket that receives the terminal's master");
  verb->add_option("--pid-file", options.pid_file, "file that receives the enclave process's pid");
  verb->add_option("--label", options.labels, "KEY=VALUE, added to the bundle's labels")
      ->allow_extra_args(false);
  BundleOverrides& changes = options.overrides;
  verb->add_option("--kind", changes.kind, "linux, kitten or palacios, whatever the bundle says")
      ->check(CLI::IsMember({"linux", "kitten", "palacios"}));
  verb->add_option("--cores", changes.cores, "lease this many cores, whatever the bundle says")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--memory-size", changes.memory,
                   "lease this much memory, whatever the bundle says");
  verb->add_option("--cwd", changes.cwd, "the program's working directory");
  verb->add_option("-e,--env", changes.env, "NAME=VALUE; NAME or NAME*: the caller's")
      ->take_all()
      ->allow_extra_args(false);
  verb->add_flag("--env-host", changes.host_env,
                 "hand on the caller's variables, but for those that the bundle has");
  verb->add_option("--volume", changes.volumes,
                   "SOURCE[:DESTINATION[:ro]]: also show this folder or file")
      ->take_all()
      ->allow_extra_args(false);
  verb->footer("A program and its arguments behind `--` stand for the bundle's own.");
  verb->add_flag("--no-pivot", options.no_pivot,
                 "move the root instead of pivoting (ramdisk roots)");
  verb->add_flag("--no-new-keyring", options.no_new_keyring, "keep the caller's session keyring");
  verb->add_option("--preserve-fds", options.preserve_fds,
                   "hand this many descriptors from 3 on to the program");
}

const std::set<std::string> global_with_value = {
    "--root", "--log", "--log-format", "--log-level", "--cgroup-manager", "--rootless"};

// Where the verb stands in the command line; argc when there is none.
int verb_at(int argc, char** argv) {
  int at = 1;
  for (; at < argc && argv[at][0] == '-'; ++at)
    if (global_with_value.count(argv[at]) != 0) ++at;
  return std::min(at, argc);
}

// Whether a process of it becomes one of an enclave: known before anything else is, since its
// program is then a copy.
bool enters_an_enclave(int argc, char** argv) {
  int at = verb_at(argc, argv);
  return at < argc && std::set<std::string>{"create", "run", "exec"}.count(argv[at]) != 0;
}

// `exec [options] ID PROGRAM ARGS...`, `ps [options] ID OPTIONS...`: from the second word on, words
// belong to another program, whatever they look like. Takes them off the end of the command line
// and returns them.
std::vector<std::string> take_words(int& argc, char** argv, const CLI::App& verb) {
  int at = verb_at(argc, argv);
  if (at >= argc || verb.get_name() != argv[at]) return {};
  for (++at; at < argc && argv[at][0] == '-' && std::string(argv[at]) != "--"; ++at) {
    const CLI::Option* option = verb.get_option_no_throw(argv[at]);
    if (option != nullptr && option->get_items_expected_max() > 0) ++at;
  }
  if (at < argc && std::string(argv[at]) == "--") ++at;
  ++at;  // the id
  std::vector<std::string> command;
  if (at < argc && std::string(argv[at]) == "--") {
    for (int i = at + 1; i < argc; ++i) command.emplace_back(argv[i]);
    argc = at;
    return command;
  }
  for (int i = at; i < argc; ++i) command.emplace_back(argv[i]);
  argc = std::min(argc, at);
  return command;
}

// `run [options] ID [options] -- PROGRAM ARGS...`: as above, from a "--" on, since engines may give
// options after the id.
std::vector<std::string> take_program(int& argc, char** argv, const CLI::App& verb) {
  int at = verb_at(argc, argv);
  if (at >= argc || verb.get_name() != argv[at]) return {};
  const int dashes = static_cast<int>(std::find(argv + at, argv + argc, std::string("--")) - argv);
  std::vector<std::string> out(argv + std::min(dashes + 1, argc), argv + argc);
  argc = dashes;
  return out;
}

// "5s", "500ms", "2m", "1h", or seconds.
milliseconds duration(const std::string& text) {
  std::size_t digits = text.find_first_not_of("0123456789");
  auto number = whole_number(text.substr(0, digits), 86'400'000);
  std::string unit = digits == std::string::npos ? "s" : text.substr(digits);
  static const std::map<std::string, std::uint64_t> factors = {
      {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
  auto factor = factors.find(unit);
  constexpr std::uint64_t least = 10, most = 86'400'000;
  if (!number || factor == factors.end() || *number * factor->second < least ||
      *number * factor->second > most)
    throw CLI::ValidationError("--interval",
                               "'" + text + "' is no time from 10ms to 24h, as 5s or 500ms");
  return milliseconds(*number * factor->second);
}

int run_program(int argc, char** argv) {
  Globals globals;
  CreateOptions create_options, run_options;
  ExecOptions exec_options;
  UpdateOptions update_options;
  ImageOptions image_options;
  std::string id, signal = "TERM", format = "table", ps_format = "table", bundle = ".",
                  kind = "linux";
  bool interactive = false, remove = false, force = false, regex = false, all = false,
       quiet = false, stats = false, host_root = false, terminal = false, print = false;
  std::vector<std::string> ps_options;
  milliseconds interval{5000};
  std::function<Result<int>()> action;

  CLI::App app("hobbes-run: create and run enclaves from OCI-style bundles", "hobbes-run");
  app.set_version_flag("-v,--version",
                       std::string("hobbes-run version ") + HOBBES_VERSION + "\nspec: 1.3.0");
  app.add_option("--root", globals.root,
                 "folder of enclave state; with the id it names an enclave");
  app.add_option("--log", globals.log, "also append what is logged to this file");
  app.add_option("--log-format", globals.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--log-level", globals.log_level,
                 "least important to be logged: debug, info, warning (the default) or error")
      ->check(
          CLI::IsMember({"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"}));
  app.add_flag("--debug", globals.debug, "as --log-level debug");
  app.add_flag("--json", globals.json, "machine-readable output");
  app.add_flag("--systemd-cgroup", globals.systemd_cgroup,
               "cgroupsPath has the form slice:prefix:name");
  app.add_option("--cgroup-manager", globals.cgroup_manager, "accepted for compatibility");
  app.add_option("--rootless", globals.rootless, "accepted for compatibility");
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done; 1 failed; 2 wrong usage; 126, 127 the program cannot be executed or "
      "found;\n"
      "run and exec return the program's own status. Manual: man hobbes-run");

  auto verb = [&](const char* name, const char* help, std::function<Result<int>()> act) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->callback([&action, act = std::move(act)] { action = act; });
    sub->fallthrough();
    return sub;
  };
  auto with_id = [&](CLI::App* sub) {
    sub->add_option("id", id, "the enclave's id")->required();
    return sub;
  };

  auto* create_verb = verb("create", "make an enclave, ready to start",
                           [&] { return create(globals, create_options); });
  add_create_options(create_verb, create_options);
  create_verb->add_flag("--dry-run", create_options.dry_run,
                        "print the placement it would get and take nothing");
  auto* run_verb = verb("run", "create, start and wait; returns the program's status",
                        [&] { return run_enclave(globals, run_options); });
  add_create_options(run_verb, run_options);
  run_verb->add_flag("-d,--detach", run_options.detach, "do not wait");
  run_verb->add_flag("--bound", run_options.bound,
                     "delete the enclave when this process ends, however it ends");
  auto* keep =
      run_verb->add_flag("--keep", run_options.keep, "do not delete the enclave afterwards");
  run_verb->add_flag("-t,--tty", run_options.tty,
                     "give the program a terminal, whatever the bundle says");
  run_verb->add_flag("-i,--interactive", interactive,
                     "accepted for compatibility; standard input is always handed on");
  run_verb
      ->add_flag("--rm", remove,
                 "accepted for compatibility; it is what run does unless --keep is given")
      ->excludes(keep);
  with_id(verb("start", "let a created enclave's program run", [&] { return start(globals, id); }));

  auto* exec_verb = verb("exec", "run another program inside a running enclave",
                         [&] { return exec(globals, exec_options); });
  exec_verb->add_option("id", exec_options.id, "the enclave's id")->required();
  exec_verb->add_option("-p,--process", exec_options.process_file,
                        "JSON file with an OCI process object");
  exec_verb->add_option("--console-socket", exec_options.console_socket,
                        "socket that receives the terminal's master");
  exec_verb->add_option("--pid-file", exec_options.pid_file,
                        "file that receives the program's pid");
  exec_verb->add_option("--cwd", exec_options.cwd, "working directory");
  exec_verb->add_option("-u,--user", exec_options.user,
                        "USER[:GROUP], each a number or a name of the enclave's own");
  exec_verb
      ->add_option("-g,--additional-gids", exec_options.additional_gids,
                   "a further group, by its number")
      ->allow_extra_args(false);
  exec_verb
      ->add_option("--cgroup", exec_options.cgroups,
                   "an existing group below the enclave's, [CONTROLLER[,CONTROLLER...]:]PATH")
      ->allow_extra_args(false);
  exec_verb->add_option("--apparmor", exec_options.apparmor, "AppArmor profile");
  exec_verb->add_option("--process-label", exec_options.process_label, "SELinux label");
  exec_verb->add_option("-e,--env", exec_options.env, "NAME=value")
      ->take_all()
      ->allow_extra_args(false);
  exec_verb->add_option("-c,--cap", exec_options.capabilities, "add a capability")
      ->allow_extra_args(false);
  exec_verb->add_option("--preserve-fds", exec_options.preserve_fds,
                        "hand this many descriptors from 3 on to the program");
  exec_verb->add_flag("-d,--detach", exec_options.detach, "do not wait");
  exec_verb->add_flag("-t,--tty", exec_options.tty, "give it a terminal");
  exec_verb->add_flag("--ignore-paused", exec_options.ignore_paused,
                      "also when the enclave is paused; the program begins when it is resumed");
  exec_verb->add_flag("--no-new-privs", exec_options.no_new_privs, "set no_new_privs");

  with_id(verb("state", "print an enclave's state as JSON", [&] { return state(globals, id); }));
  auto* list_verb = verb("list", "list enclaves",
                         [&] { return list(globals, format == "json" ? "json" : "table", quiet); });
  list_verb->alias("ls");
  list_verb->add_option("-f,--format", format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  list_verb->add_flag("-q,--quiet", quiet, "ids only");
  auto* ps_verb = with_id(verb("ps", "list an enclave's processes",
                               [&] { return ps(globals, id, ps_format, ps_options); }));
  ps_verb->add_option("-f,--format", ps_format, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  ps_verb->footer("What follows the id are options of ps(1), as in `ps ID -o pid,comm`.");
  auto* kill_verb = with_id(verb("kill", "send a signal to the enclave process",
                                 [&] { return hobbes::kill(globals, id, signal, all); }));
  kill_verb->add_option("signal", signal, "name or number")->capture_default_str();
  kill_verb->add_flag("-a,--all", all, "to every process of the enclave");
  auto* delete_verb = with_id(verb("delete", "take an enclave away", [&] {
    return regex ? hobbes::remove_matching(globals, id, force) : hobbes::remove(globals, id, force);
  }));
  delete_verb->add_flag("-f,--force", force, "also when it runs; succeeds when there is none");
  delete_verb->add_flag("--regex", regex,
                        "ID is an extended regular expression (regex(7)); takes away every enclave "
                        "whose id it matches");
  with_id(verb("pause", "freeze every process of an enclave",
               [&] { return hobbes::pause(globals, id); }));
  with_id(verb("resume", "thaw a paused enclave", [&] { return resume(globals, id); }));

  auto* update_verb = verb("update", "change the resources of a running enclave",
                           [&] { return update(globals, update_options); });
  update_verb->add_option("id", update_options.id, "the enclave's id")->required();
  update_verb->add_option("-r,--resources", update_options.resources,
                          "JSON file with an OCI resources object, - for standard input");
  update_verb->add_option("--cores", update_options.cores, "lease this many cores");
  update_verb->add_option("--memory-size", update_options.memory_size, "lease this much memory");
  update_verb->add_option("--memory", update_options.memory,
                          "memory limit of the control group; -1: none");
  update_verb->add_option("--memory-reservation", update_options.memory_reservation,
                          "memory that is reclaimed last; -1: none");
  update_verb->add_option("--memory-swap", update_options.memory_swap,
                          "limit of memory and swap together; -1: none");
  update_verb->add_option("--cpuset-cpus", update_options.cpuset_cpus,
                          "CPUs, for enclaves without leased cores");
  update_verb->add_option("--cpuset-mems", update_options.cpuset_mems, "NUMA nodes");
  update_verb->add_option("--cpu-quota", update_options.cpu_quota, "microseconds per period");
  update_verb->add_option("--cpu-period", update_options.cpu_period, "microseconds");
  update_verb->add_option("--cpu-burst", update_options.cpu_burst,
                          "microseconds that may be saved up");
  update_verb->add_option("--cpu-share", update_options.cpu_shares, "relative weight");
  update_verb->add_option("--cpu-idle", update_options.cpu_idle,
                          "1: run only when nothing else wants to");
  update_verb->add_option("--cpu-rt-period", update_options.cpu_rt_period,
                          "microseconds of realtime scheduling's period");
  update_verb->add_option("--cpu-rt-runtime", update_options.cpu_rt_runtime,
                          "microseconds of realtime scheduling per period");
  update_verb->add_option("--blkio-weight", update_options.blkio_weight,
                          "relative weight of its disk input and output, 10 to 1000");
  update_verb->add_option("--pids-limit", update_options.pids_limit, "processes");
  update_verb->add_flag("--dry-run", update_options.dry_run,
                        "print the placement it would get and take nothing");

  auto* events_verb = with_id(
      verb("events", "print resource use", [&] { return events(globals, id, stats, interval); }));
  events_verb->add_flag("--stats", stats, "once");
  events_verb->add_option_function<std::string>(
      "--interval", [&](const std::string& text) { interval = duration(text); },
      "as 5s, 500ms or 2m; a bare number is seconds");
  verb("features", "print what this runtime and node can do", [] { return features(); });
  auto* spec_verb = verb("spec", "write an example config.json",
                         [&] { return spec(kind, host_root, terminal, bundle, print); });
  spec_verb->add_option("-k,--kind", kind, "linux, kitten or palacios")->capture_default_str();
  spec_verb->add_flag("--host-root", host_root,
                      "use the host's root file system, read-only; no image needed");
  spec_verb->add_flag("-t,--terminal", terminal, "a shell on a terminal");
  spec_verb->add_option("-b,--bundle", bundle, "folder to write to")->capture_default_str();
  spec_verb->add_flag("--print", print, "print instead");
  auto* validate_verb = verb("validate", "check a bundle without touching the node",
                             [&] { return validate(globals, bundle); });
  validate_verb->add_option("-b,--bundle,bundle", bundle, "folder with config.json")
      ->capture_default_str();

  auto* bundle_verb = verb("bundle", "make a bundle from a container image", [&]() -> Result<int> {
    image_options.quiet = globals.json;
    HOBBES_CHECK(make_bundle_from_image(image_options));
    return 0;
  });
  bundle_verb
      ->add_option("image", image_options.image,
                   "as skopeo names it; without a transport, of a registry")
      ->required();
  bundle_verb->add_option("folder", image_options.folder, "to be made")->required();
  bundle_verb->add_option("--cores", image_options.cores, "the bundle leases this many cores");
  bundle_verb->add_option("--memory", image_options.memory, "the bundle leases this much memory");

  exec_options.command = take_words(argc, argv, *exec_verb);
  for (auto& [sub, options] : {std::pair<CLI::App*, CreateOptions*>{create_verb, &create_options},
                               {run_verb, &run_options}})
    if (auto words = take_program(argc, argv, *sub); !words.empty())
      options->overrides.args = std::move(words);
  if (exec_options.command.empty()) ps_options = take_words(argc, argv, *ps_verb);
  exec_verb->footer("The program and its arguments follow the id.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    open_log(globals);
    report(usage_error(app, e, argc, argv));
    return 2;
  }
  open_log(globals);
  std::string words;
  for (int i = 1; i < argc; ++i) words += (i > 1 ? " " : "") + std::string(argv[i]);
  log(LogLevel::debug, words, {{"words", std::vector<std::string>(argv + 1, argv + argc)}});
  auto begun = std::chrono::steady_clock::now();
  auto result = action();
  if (auto written = flush_standard_output(); !written && result)
    result = std::move(written).error();
  if (result) {
    auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begun);
    log(LogLevel::info, app.get_subcommands().front()->get_name() + ": status " +
                            std::to_string(*result) + " after " + std::to_string(took.count()) +
                            " ms");
    return *result;
  }
  report(result.error());
  return exit_code(result.error());
}

}  // namespace
}  // namespace hobbes

int main(int argc, char** argv) {
  hobbes::prepare_standard_streams();
  if (hobbes::enters_an_enclave(argc, argv))
    if (auto sealed = hobbes::continue_sealed(argv); !sealed) {
      std::fprintf(stderr, "hobbes-run: %s\n", sealed.error().text().c_str());
      return 1;
    }
  return hobbes::run_program(argc, argv);
}
