// remora: runs composed MPI programs across enclaves.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <set>

#include "bundle/bundle.h"
#include "core/command_line.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/json.h"
#include "core/log.h"
#include "core/number.h"
#include "core/paths.h"
#include "core/process.h"
#include "core/sealed_program.h"
#include "core/standard_streams.h"
#include "enclave/describe.h"
#include "ipc/membership.h"
#include "nis/reader.h"
#include "remora/composition.h"
#include "remora/launcher.h"
#include "remora/programs.h"
#include "remora/stacks.h"

namespace hobbes {
namespace {

std::string list_of(const std::vector<unsigned>& numbers) {
  CpuSet set;  // ranks are small numbers in the same list syntax
  for (unsigned n : numbers)
    if (n < CpuSet::capacity) set.add(n);
  return set.text();
}

// What is wrong with a bundle is wrong with the composition; one that is not there may still come.
void check_bundles(CompositionCheck& check) {
  std::set<std::string> seen;
  for (const CompositionEnclave& enclave : check.composition.enclaves) {
    if (enclave.bundle.empty() || !seen.insert(enclave.bundle).second) continue;
    auto validation = validate_bundle(enclave.bundle);
    if (!validation)
      check.needs.push_back("the bundle of enclave \"" + enclave.name + "\" (line " +
                            std::to_string(enclave.line) + "): " + validation.error().text());
    else
      for (const Problem& problem : validation->problems)
        check.problems.push_back(
            {enclave.line,
             enclave.bundle + "/config.json " + problem.pointer + ": " + problem.found,
             problem.allowed, problem.remedy});
  }
}

Result<int> validate(const std::string& file, bool json) {
  HOBBES_TRY(check, check_composition_file(file));
  check_bundles(check);
  const Composition& c = check.composition;
  if (json) {
    Json problems = Json::array(), spaces = Json::array(), apps = Json::array();
    for (const CompositionProblem& p : check.problems)
      problems.push_back(
          {{"line", p.line}, {"found", p.found}, {"allowed", p.allowed}, {"remedy", p.remedy}});
    for (const std::string& space : c.spaces)
      spaces.push_back({{"name", space}, {"ranks", c.members(space)}});
    for (const CompositionApp& app : c.apps)
      apps.push_back({{"name", app.name},
                      {"enclave", c.enclaves[app.enclave].name},
                      {"firstRank", app.first_rank},
                      {"ranks", app.ranks},
                      {"mpi", app.mpi},
                      {"spaces", app.spaces}});
    std::cout << to_text({{"valid", check.problems.empty()},
                          {"problems", problems},
                          {"spaces", spaces},
                          {"apps", apps},
                          {"needs", check.needs}},
                         2)
              << "\n";
    return check.problems.empty() ? 0 : 1;
  }
  if (!check.problems.empty()) {
    std::cout << file << ": " << check.problems.size() << " problem(s)\n"
              << report(file, check.problems) << "\n";
    return 1;
  }
  std::cout << file << ": valid; " << c.ranks() << " ranks of " << c.apps.size() << " apps in "
            << c.enclaves.size() << " enclaves\n\nrank spaces\n";
  for (const std::string& space : c.spaces) {
    auto members = c.members(space);
    std::printf("  %-20s %zu rank(s): %s\n", space.c_str(), members.size(),
                list_of(members).c_str());
  }
  std::fflush(stdout);
  std::cout << "\napps\n";
  std::cout.flush();
  for (const CompositionApp& app : c.apps) {
    std::string spaces;
    if (!app.mpi) {
      std::printf("  %-20s %u process(es) in enclave %s, without MPI\n", app.name.c_str(),
                  app.ranks, c.enclaves[app.enclave].name.c_str());
      continue;
    }
    for (const std::string& space : app.spaces) spaces += (spaces.empty() ? "" : ", ") + space;
    std::printf("  %-20s ranks %u-%u in enclave %s, member of %s\n", app.name.c_str(),
                app.first_rank, app.first_rank + app.ranks - 1,
                c.enclaves[app.enclave].name.c_str(), spaces.c_str());
  }
  if (!check.needs.empty()) std::printf("\n`remora run` would still need\n");
  for (const std::string& need : check.needs) std::printf("  %s\n", need.c_str());
  return 0;
}

std::string enclave_name(NisReader& nis, std::uint64_t id) {
  hobbes_record enclave;
  return nis.by_id(id, &enclave) == NisReader::Status::good ? enclave.name : "-";
}

// Every rank of every composition (or of one), in order; with `stacks` also where each thread is.
Result<int> show(const std::string& only, bool stacks, bool json) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  Json all = Json::array();
  auto compositions = nis->all(HOBBES_COMPOSITION);
  auto apps = nis->all(HOBBES_APP);
  auto processes = nis->all(HOBBES_PROCESS);
  std::sort(processes.begin(), processes.end(), [](const auto& a, const auto& b) {
    return a.body.process.global_rank < b.body.process.global_rank;
  });
  for (const hobbes_record& composition : compositions) {
    if (!only.empty() && only != composition.name) continue;
    if (!json)
      std::printf("composition %s, %s, launcher %d\n%6s  %-16s %5s  %-24s %8s %4s  %s\n",
                  composition.name, name_of_state(HOBBES_COMPOSITION, composition.state),
                  composition.body.composition.launcher_pid, "RANK", "APP", "RANK", "ENCLAVE",
                  "PID", "CPU", "PHASE");
    Json ranks = Json::array();
    for (const hobbes_record& process : processes) {
      const hobbes_process& body = process.body.process;
      if (body.composition != composition.id) continue;
      std::string app = "?";
      for (const hobbes_record& one : apps)
        if (one.id == body.app) app = one.name;
      std::string enclave = enclave_name(*nis, process.enclave);
      Json rank = {{"rank", body.global_rank},
                   {"app", app},
                   {"appRank", body.app_rank},
                   {"enclave", enclave},
                   {"pid", body.pid},
                   {"cpu", body.cpu},
                   {"phase", name_of_state(HOBBES_PROCESS, process.state)}};
      if (!json)
        std::printf("%6u  %-16s %5u  %-24s %8d %4u  %s\n", body.global_rank, app.c_str(),
                    body.app_rank, enclave.c_str(), body.pid, body.cpu,
                    name_of_state(HOBBES_PROCESS, process.state));
      if (stacks && process.state != HOBBES_PHASE_ENDED && body.pid > 0) {
        auto found = stacks_of(body.pid);
        Json threads = Json::array();
        if (!found && !json) std::printf("        %s\n", found.error().text().c_str());
        for (const Stack& stack : std::move(found).value_or({})) {
          Json frames = Json::array();
          if (!json) std::printf("        thread %d\n", stack.thread);
          for (const StackFrame& frame : stack.frames) {
            frames.push_back(frame.symbol);
            if (!json)
              std::printf("          %016lx %s\n", static_cast<unsigned long>(frame.address),
                          frame.symbol.c_str());
          }
          threads.push_back({{"thread", stack.thread}, {"frames", frames}});
        }
        rank["threads"] = threads;
      }
      ranks.push_back(rank);
    }
    all.push_back({{"composition", composition.name},
                   {"launcher", composition.body.composition.launcher_pid},
                   {"phase", name_of_state(HOBBES_COMPOSITION, composition.state)},
                   {"ranks", ranks}});
  }
  if (!only.empty() && all.empty()) {
    std::vector<std::string> names;
    for (const hobbes_record& composition : compositions) names.emplace_back(composition.name);
    return Error{Code::not_found, "show composition '" + only + "'",
                 "no composition of this name runs",
                 did_you_mean(only, names, "see `remora ps` for those that do")};
  }
  if (json)
    std::cout << to_text(all, 2) << "\n";
  else if (all.empty())
    std::printf("no composition runs\n");
  return 0;
}

// One "K=V" a line, then the mounts as "# mount SOURCE DESTINATION": what `podman run --env-file`
// reads.
Result<int> print_membership(const std::string& composition, const std::string& app,
                             unsigned timeout) {
  HOBBES_TRY(membership, join_composition(composition, app, std::chrono::seconds(timeout)));
  for (const std::string& entry : membership.environment) std::cout << entry << "\n";
  for (const auto& [source, destination] : membership.mounts)
    std::cout << "# mount " << source << " " << destination << "\n";
  return 0;
}

// The container is known by its annotations org.hobbes.remora.{composition,app}, as everywhere; see
// docs/COMPOSITION.md, "Joining".
Result<int> hook() {
  std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  HOBBES_TRY(state, parse_json(text, "the container's state"));
  if (!state.is_object())
    return Error{Code::invalid, "read the container's state", "it is no JSON object", ""};
  Json annotations = state.contains("annotations") && state["annotations"].is_object()
                         ? state["annotations"]
                         : Json::object();
  std::string composition = text_at(annotations, "org.hobbes.remora.composition"),
              app = text_at(annotations, "org.hobbes.remora.app");
  if (composition.empty() || app.empty()) return 0;  // not one of ours
  auto pid = static_cast<pid_t>(number_at(state, "pid"));
  if (text_at(state, "status") == "stopped" || pid == 0)
    return 0;  // poststop: the host has seen its end
  HOBBES_CHECK(arrive(composition, app, -1, pid));
  return 0;
}

// "NAME=VALUE", or "NAME" of a variable that we have ourselves.
Result<std::vector<std::string>> exported_environment(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const std::string& word : words) {
    std::string variable = word.substr(0, word.find('='));
    const char* own = std::getenv(variable.c_str());
    if (variable.empty() || (variable == word && own == nullptr))
      return Error{Code::invalid, "hand on the variable '" + word + "'", "it has no value",
                   "set it, or write -x NAME=VALUE"};
    out.push_back(variable == word ? variable + "=" + own : word);
  }
  return out;
}

// Where the user is; empty when that is nowhere any more.
std::string working_folder() {
  std::error_code error;
  std::string folder = std::filesystem::current_path(error).string();
  return error ? "" : folder;
}

// `run [options] -np N PROGRAM ...`: from the first -np on, words are of programs. Takes them off
// the end of the command line.
std::vector<std::string> take_programs(int& argc, char** argv) {
  std::vector<std::string> out;
  int at = 1;
  while (at < argc && std::string(argv[at]) != "run") ++at;
  for (++at; at < argc && !Programs::begins(argv[at]);) ++at;
  for (int i = at; i < argc; ++i) out.emplace_back(argv[i]);
  argc = std::min(argc, at);
  return out;
}

void report(const Error& error, bool json) {
  set_log({.program = "remora", .path = "", .json = json});
  log(LogLevel::error, error.text(), {{"error", to_json(error)}});
}

int run_program(int argc, char** argv) {
  std::string file, name, share, stdin_rank = "0";
  std::vector<std::string> exported, program_words = take_programs(argc, argv);
  LaunchOptions options;
  unsigned timeout = 0, init_timeout = 8;
  bool json = false, no_prefix = false;
  std::function<Result<int>()> action;
  CLI::App app("remora: run composed MPI programs across enclaves", "remora");
  app.set_version_flag("-v,--version", std::string("remora version ") + HOBBES_VERSION);
  app.add_flag("--json", json, "machine-readable output");
  app.require_subcommand(1);
  app.footer(
      "Exit status of run: that of the first rank that failed, 128 + signal, 124 after --timeout, "
      "0 when none failed.\nManual: man remora");
  auto* run_verb = app.add_subcommand("run", "run a composition to its end");
  run_verb->add_option("composition", file,
                       "XML file; or a list of programs, which begins with -np");
  run_verb->add_option("--name", name, "of the composition, instead of its file's");
  run_verb
      ->add_option("-x,--export", exported,
                   "variable for every rank, NAME=VALUE or NAME for the caller's")
      ->allow_extra_args(false);
  run_verb->add_flag("--report-bindings", options.report_bindings,
                     "say which CPUs each rank is bound to");
  run_verb->add_flag("--timestamp-output", options.timestamps, "the time before each line");
  run_verb->add_option("--output-filename", options.output,
                       "folder that also gets each rank's output, as APP/RANK/stdout and stderr");
  run_verb->footer(
      "A list of programs is -np N PROGRAM ARGS, and further ones after a colon. Each is an app in "
      "an enclave of its own.\n"
      "Between -np N and PROGRAM may stand --cores N, --memory SIZE, --bundle FOLDER, --wdir "
      "FOLDER and --no-mpi.");
  run_verb->add_option("--timeout", timeout, "end it after this many seconds, with status 124");
  run_verb
      ->add_option("--init-timeout", init_timeout,
                   "seconds from the first rank in MPI_Init until the last must be there")
      ->capture_default_str();
  run_verb->add_option("--stdin", stdin_rank, "universe rank that reads standard input, or none")
      ->capture_default_str();
  run_verb
      ->add_option("--share", share,
                   "folder that every enclave sees, writable, at the same path; its name is in "
                   "$REMORA_SHARE")
      ->check(CLI::ExistingDirectory);
  run_verb->add_flag("-q,--quiet", options.quiet, "only the programs' output");
  run_verb->add_flag("--no-prefix", no_prefix, "do not put [app:rank] before each line");
  run_verb->add_flag("--dry-run", options.dry_run,
                     "print the placement it would get and take nothing");
  run_verb->add_flag("--keep", options.keep, "leave the enclaves it made");
  run_verb->callback([&] {
    action = [&]() -> Result<int> {
      std::optional<Programs> programs;
      if (!program_words.empty()) {
        if (!file.empty())
          return Error{Code::invalid, "run " + file, "a list of programs follows the file",
                       "give one of the two"};
        HOBBES_TRY(read, Programs::read(program_words));
        programs.emplace(std::move(read));
      }
      if (!programs && file.empty())
        return Error{Code::invalid, "run a composition", "neither a file nor programs are named",
                     "see `remora run --help`"};
      HOBBES_TRY(composition,
                 programs ? Result<Composition>(programs->composition()) : load_composition(file));
      if (!name.empty()) {
        HOBBES_CHECK(check_id(name));
        composition.name = name;
        options.own_name = true;
      }
      HOBBES_TRY(environment, exported_environment(exported));
      options.environment = std::move(environment);
      options.folder = working_folder();
      if (!options.output.empty()) options.output = absolute(options.output);
      options.timeout = std::chrono::seconds(timeout);
      options.init_timeout = std::chrono::seconds(init_timeout);
      options.prefix = !no_prefix;
      if (!share.empty()) options.share = absolute(share);
      if (stdin_rank != "none" && !whole_number(stdin_rank, 4095))
        return Error{Code::invalid, "run " + file, "--stdin is neither a universe rank nor none",
                     "see `remora run --help`"};
      options.stdin_rank = stdin_rank == "none" ? -1 : static_cast<int>(*whole_number(stdin_rank));
      return launch(composition, options);
    };
  });
  unsigned peer_timeout = 60;
  auto* host_verb = app.add_subcommand(
      "host",
      "run a composition whose enclaves without a bundle are joined by bundles that others start");
  host_verb->add_option("composition", file, "XML file")->required();
  host_verb->add_option("--timeout", timeout, "end it after this many seconds, with status 124");
  host_verb
      ->add_option("--peer-timeout", peer_timeout,
                   "seconds from the first rank that joins until the last must be there")
      ->capture_default_str();
  host_verb->add_flag("-q,--quiet", options.quiet, "only the programs' output");
  host_verb->callback([&] {
    action = [&]() -> Result<int> {
      HOBBES_TRY(composition, load_composition(file, true));
      options.timeout = std::chrono::seconds(timeout);
      options.peer_timeout = std::chrono::seconds(peer_timeout);
      options.host = true;
      return launch(composition, options);
    };
  });
  std::string app_name;
  auto* env_verb = app.add_subcommand("env",
                                      "take a rank of a hosted composition and print the "
                                      "environment its program needs (for other engines)");
  env_verb->add_option("composition", name, "its name")->required();
  env_verb->add_option("app", app_name, "the app's name")->required();
  env_verb->add_option("--timeout", peer_timeout, "seconds to wait for the host")
      ->capture_default_str();
  env_verb->callback(
      [&] { action = [&] { return print_membership(name, app_name, peer_timeout); }; });
  auto* hook_verb = app.add_subcommand("hook",
                                       "OCI hook (createRuntime) for other runtimes: reads the "
                                       "state, tells the host which process the rank is");
  hook_verb->callback([&] { action = [] { return hook(); }; });
  auto* validate_verb =
      app.add_subcommand("validate", "check a composition and print its rank spaces");
  validate_verb->add_option("composition", file, "XML file")->required();
  validate_verb->callback([&] { action = [&] { return validate(file, json); }; });
  for (const auto& [verb, help, stacks] :
       {std::tuple{"ps", "list ranks with their phases", false},
        std::tuple{"where", "list ranks with their stacks", true}}) {
    auto* sub = app.add_subcommand(verb, help);
    sub->add_option("composition", name, "only this one");
    sub->callback([&, with_stacks = stacks] {
      action = [&, with_stacks] { return show(name, with_stacks, json); };
    });
  }
  for (CLI::App* sub : app.get_subcommands({})) sub->fallthrough();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    report(usage_error(app, e, argc, argv), json);
    return 2;
  }
  auto result = action();
  if (auto written = flush_standard_output(); !written && result)
    result = std::move(written).error();
  if (result) return *result;
  report(result.error(), json);
  return 1;
}

}  // namespace
}  // namespace hobbes

int main(int argc, char** argv) {
  hobbes::prepare_standard_streams();
  if (auto sealed = hobbes::continue_sealed(argv); !sealed) {
    std::fprintf(stderr, "remora: %s\n", sealed.error().text().c_str());
    return 1;
  }
  // Without destructors: a library that still waits for itself must not keep a process whose result
  // is known.
  int status = hobbes::run_program(argc, argv);
  std::fflush(nullptr);
  ::_exit(status);
}
