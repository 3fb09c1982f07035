// hobbes: the node's shell. Shows what is there; with a command once, without one as an interactive
// prompt.
#include <histedit.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <thread>

#include "api/topology_svg.h"
#include "core/command_line.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/log.h"
#include "core/number.h"
#include "core/paths.h"
#include "core/signal_name.h"
#include "core/size.h"
#include "core/standard_streams.h"
#include "enclave/driver.h"
#include "enclave/files.h"
#include "enclave/record.h"
#include "ipc/client.h"
#include "ipc/service.h"
#include "nis/names.h"
#include "shell/dashboard.h"
#include "shell/devices.h"
#include "shell/doctor.h"
#include "shell/interference.h"
#include "shell/top.h"
#include "shell/views.h"

namespace hobbes {
namespace {

const std::vector<std::string> words = {
    "cat",      "cp",           "kill",    "ps",       "apps",     "call",   "compositions",
    "console",  "dashboard",    "devices", "doctor",   "enclaves", "events", "exit",
    "help",     "interference", "logs",    "names",    "node",     "ping",   "publish",
    "segments", "services",     "top",     "topology", "withdraw"};

struct Request {
  std::string command, id, label;
  bool follow = false, json = false, svg = false;
  std::uint16_t port = 0;
  double every = 2;     // seconds, of top
  double watched = 10;  // seconds, of interference
  int rounds = -1;
  std::string procedure, value, scope;  // of names and services
  std::int64_t owner = -1;
  double seconds = 30;
  std::string mode = "600";
};

Result<int> events(const Request& request, const Style& style) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  std::uint64_t head = nis->sequence();
  std::uint64_t sequence = request.follow || head < 50 ? (request.follow ? head : 0) : head - 50;
  for (;;) {
    hobbes_change change;
    auto status = nis->wait(&sequence, &change, request.follow ? -1 : 0);
    if (status == NisReader::Status::good) {
      std::cout << change_view(*nis, change, style) << std::flush;
    } else if (status == NisReader::Status::stale && nis->replaced()) {
      HOBBES_TRY(again, NisReader::open(mirror_path()));
      nis = std::move(again);
    } else if (status == NisReader::Status::stale) {
      sequence = nis->sequence();  // too slow: what was overwritten is lost, what is there now is
                                   // shown by the other commands
    } else if (!request.follow) {
      return 0;
    }
  }
}

// What an enclave made through the REST API has printed; other enclaves' terminals belong to
// the programs that made them.
Result<int> console(const Request& request) {
  // A co-kernel's console is kept beside its record, the output of what the REST API has made in
  // the log folder.
  HOBBES_CHECK(check_id(request.id));
  std::string path = default_root() + "/" + request.id + "/console.log";
  if (!Files::system().exists(path)) path = enclave_log(::geteuid(), default_root(), request.id);
  std::ifstream log(path);
  if (!log) {
    HOBBES_TRY(record, EnclaveRecord::load(default_root(), request.id));
    (void)record;
    return Error{Code::not_found, "show the console of '" + request.id + "'",
                 "no output of it is kept here",
                 "its creator has it: look at the terminal or log of the program that made it"};
  }
  for (;;) {
    std::cout << log.rdbuf() << std::flush;
    log.clear();
    std::cout.clear();  // inserting nothing counts as a failure there
    auto record = EnclaveRecord::load(default_root(), request.id);
    if (!request.follow || !record || record->status() == Status::stopped) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

// Asks an enclave for a sign of life.
Result<int> ping(const Request& request) {
  HOBBES_TRY(record, EnclaveRecord::load(default_root(), request.id));
  auto begin = std::chrono::steady_clock::now();
  HOBBES_TRY(answer, driver_for(record.kind).ping(record));
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                                  begin)
                .count();
  answer["id"] = request.id;
  answer["microseconds"] = us;
  if (request.json) {
    std::cout << to_text(answer, 2) << "\n";
    return 0;
  }
  std::cout << "enclave '" << request.id << "' (" << name_of(record.kind) << ") answered in " << us
            << " us";
  if (answer.contains("cores")) std::cout << ": " << number_at(answer, "cores") << " cores";
  if (answer.contains("memory"))
    std::cout << ", " << format_size(static_cast<std::uint64_t>(number_at(answer, "memory")))
              << " of memory";
  if (answer.contains("uptimeNs"))
    std::cout << ", up " << number_at(answer, "uptimeNs") / 1'000'000'000 << " s";
  std::cout << "\n";
  return 0;
}

Result<int> call(const Request& request) {
  Json arguments;
  if (!request.value.empty()) {
    HOBBES_TRY(parsed, parse_json(request.value, "the arguments"));
    arguments = std::move(parsed);
  }
  const auto timeout = std::chrono::milliseconds(static_cast<std::int64_t>(request.seconds * 1000));
  HOBBES_TRY(client, ServiceClient::connect(request.id, {request.scope, request.owner}));
  auto print = [&](const Json& json) {
    std::cout << to_text(json, request.json ? -1 : 2) << "\n" << std::flush;
  };
  HOBBES_TRY(answer, client.stream(request.procedure, arguments, print, timeout));
  if (!answer.is_null()) print(answer);
  return 0;
}

Result<int> publish(const Request& request) {
  auto mode = whole_number(request.mode, 0777, 8);
  if (!mode)
    return Error{Code::invalid, "publish the name '" + request.id + "'",
                 "the mode '" + request.mode + "' is no octal number", "write it as for chmod"};
  HOBBES_TRY(client, Client::connect());
  HOBBES_TRY(published,
             client.call("name.publish", {{"name", request.id},
                                          {"kind", "value"},
                                          {"value", to_hex(request.value)},
                                          {"scope", request.scope.empty() ? "node" : request.scope},
                                          {"mode", *mode},
                                          {"persistent", true},
                                          {"replace", true}}));
  (void)published;
  return 0;
}

Result<int> cat(const Request& request) {
  HOBBES_TRY(place, place_named(default_root(), request.id));
  HOBBES_TRY(file, open_file(place));
  std::vector<char> bytes(1 << 16);
  for (;;) {
    ssize_t n = ::read(file.get(), bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) return os_error("read " + request.id, errno);
    if (n == 0) return 0;
    if (n > 0) std::cout.write(bytes.data(), n);
  }
}

// Shows the progress of a copy that takes more than a second, on a terminal only.
class Progress {
 public:
  void operator()(const Copied& copied) {
    const auto now = std::chrono::steady_clock::now();
    if (now - shown_ < std::chrono::seconds(1) || ::isatty(2) != 1) return;
    shown_ = now;
    std::cerr << "\r" << copied.files << " files, " << format_size(copied.bytes) << "  "
              << std::flush;
    told_ = true;
  }
  ~Progress() {
    if (told_) std::cerr << "\n";
  }

 private:
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
  bool told_ = false;
};

Result<int> copy(const Request& request) {
  HOBBES_TRY(from, place_named(default_root(), request.id));
  HOBBES_TRY(to, place_named(default_root(), request.value));
  Progress progress;
  HOBBES_TRY(copied, copy_tree(from, to, std::ref(progress)));
  if (request.json)
    std::cout << to_text({{"files", copied.files}, {"bytes", copied.bytes}}) << "\n";
  return 0;
}

Result<int> kill(const Request& request) {
  auto id = whole_number(request.id, UINT64_MAX, 16);
  if (!id)
    return Error{Code::invalid, "signal process '" + request.id + "'",
                 "that is no global process id", "see `hobbes ps`"};
  HOBBES_TRY(number, signal_number(request.value.empty() ? "TERM" : request.value));
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(done, client.call("process.kill", {{"id", *id}, {"signal", number}}));
  (void)done;
  return 0;
}

Result<int> withdraw(const Request& request) {
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(self, client.call("self", Json::object()));
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  const Standing standing{static_cast<uid_t>(number_at(self.body, "names", ::geteuid())),
                          static_cast<std::uint64_t>(number_at(self.body, "enclave")),
                          static_cast<uid_t>(number_at(self.body, "enclaveUser")),
                          static_cast<std::uint64_t>(number_at(self.body, "composition"))};
  HOBBES_TRY(record,
             find_name(*nis, {request.id, scope_named(request.scope), request.owner}, standing));
  HOBBES_TRY(gone, client.call("name.withdraw", {{"handle", record.id}}));
  (void)gone;
  return 0;
}

// Labels are not in the mirror: hobbesd is asked, who tells them to an enclave's user and to root.
Result<std::set<std::uint64_t>> with_label(NisReader& nis, const std::string& label) {
  std::size_t equals = label.find('=');
  if (equals == std::string::npos || equals == 0)
    return Error{Code::invalid, "choose enclaves by the label '" + label + "'",
                 "it is not KEY=VALUE", "see `hobbes enclaves --help`"};
  std::string key = label.substr(0, equals), value = label.substr(equals + 1);
  HOBBES_TRY(client, Client::connect(false));
  std::set<std::uint64_t> chosen;
  for (const hobbes_record& record : nis.all(HOBBES_ENCLAVE)) {
    auto described =
        client.call("enclave.describe", {{"handle", record.id}}, {}, std::chrono::seconds(5));
    if (!described && described.error().code != Code::not_found &&
        described.error().code != Code::denied)
      return std::move(described.error()).within("choose enclaves by the label '" + label + "'");
    if (!described || !described->body.contains("labels")) continue;
    const Json& labels = described->body["labels"];
    if (labels.is_object() && labels.contains(key) && text_at(labels, key.c_str()) == value)
      chosen.insert(record.id);
  }
  return chosen;
}

Result<int> act(const Request& request) {
  Style style{::isatty(1) == 1 && std::getenv("NO_COLOR") == nullptr, request.json};
  if (request.command == "events") return events(request, style);
  if (request.command == "console") return console(request);
  if (request.command == "ping") return ping(request);
  if (request.command == "call") return call(request);
  if (request.command == "publish") return publish(request);
  if (request.command == "withdraw") return withdraw(request);
  if (request.command == "kill") return kill(request);
  if (request.command == "cat") return cat(request);
  if (request.command == "cp") return copy(request);
  if (request.command == "top") {
    TopOptions top;
    top.style = style;
    top.terminal = ::isatty(1) == 1 && !request.json;
    top.interval = std::chrono::milliseconds(static_cast<std::int64_t>(request.every * 1000));
    top.rounds = request.rounds >= 0 ? request.rounds : top.terminal ? 0 : 1;
    HOBBES_CHECK(show_top(top));
    return 0;
  }
  if (request.command == "interference") {
    HOBBES_CHECK(show_interference(
        request.id, std::chrono::milliseconds(static_cast<std::int64_t>(request.watched * 1000)),
        style));
    return 0;
  }
  if (request.command == "devices") {
    HOBBES_CHECK(show_devices(style));
    return 0;
  }
  if (request.command == "dashboard") {
    HOBBES_CHECK(serve_dashboard(request.port, request.json));
    return 0;
  }
  if (request.command == "doctor") {
    auto findings = examine_node();
    std::cout << findings_view(findings, style) << std::flush;
    return std::any_of(findings.begin(), findings.end(),
                       [](const Finding& f) { return f.level == Finding::Level::wrong; })
               ? 1
               : 0;
  }
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  if (request.command == "node") std::cout << node_view(*nis, style);
  if (request.command == "topology")
    std::cout << (request.svg ? topology_svg(*nis) : topology_view(*nis, style));
  if (request.command == "enclaves" && !request.label.empty()) {
    HOBBES_TRY(chosen, with_label(*nis, request.label));
    std::cout << table_view(*nis, HOBBES_ENCLAVE, style, [&](const hobbes_record& record) {
      return chosen.count(record.id) != 0;
    });
  } else if (request.command == "enclaves") {
    std::cout << table_view(*nis, HOBBES_ENCLAVE, style);
  }
  if (request.command == "segments") std::cout << table_view(*nis, HOBBES_SEGMENT, style);
  if (request.command == "ps") std::cout << table_view(*nis, HOBBES_PROCESS, style);
  if (request.command == "names") std::cout << table_view(*nis, HOBBES_NAME, style);
  if (request.command == "services")
    std::cout << table_view(*nis, HOBBES_NAME, style, [](const hobbes_record& record) {
      return record.body.name.kind == HOBBES_NAME_SERVICE;
    });
  if (request.command == "apps") std::cout << table_view(*nis, HOBBES_APP, style);
  if (request.command == "compositions") std::cout << table_view(*nis, HOBBES_COMPOSITION, style);
  std::cout << std::flush;
  return 0;
}

void report(const Request& request, const Error& error) {
  set_log({.program = "hobbes", .path = "", .json = request.json});
  log(LogLevel::error, error.text(), {{"error", to_json(error)}});
}

int run_command(int argc, const char* const* argv, bool& interactive) {
  Request request;
  CLI::App app("hobbes: look at the node, its enclaves and what they share", "hobbes");
  app.set_version_flag("-v,--version", std::string("hobbes version ") + HOBBES_VERSION);
  app.add_flag("--json", request.json, "machine-readable output");
  app.require_subcommand(0, 1);
  app.footer(
      "Without a command: an interactive prompt with completion and history. Manual: man hobbes");
  auto add = [&](const char* name, const char* help) {
    auto* sub = app.add_subcommand(name, help);
    sub->fallthrough();
    sub->callback([&request, name] { request.command = name; });
    return sub;
  };
  add("doctor", "what this node can host, what is misconfigured, and what to do");
  add("node", "cores, memory and what is going on");
  add("topology", "a drawing of sockets, NUMA nodes and cores, and who owns them")
      ->add_flag("--svg", request.svg, "as an SVG document, for a page or a paper");
  auto* top_verb = add("top", "what enclaves and their processes use, refreshed");
  top_verb->add_option("-d,--delay", request.every, "seconds between two rounds")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  top_verb
      ->add_option("-n,--rounds", request.rounds,
                   "how often; 0: until interrupted, as on a terminal; otherwise once")
      ->check(CLI::Range(0, 1000000));
  auto* interference_verb =
      add("interference", "what takes time from an enclave on its cores, and who does");
  interference_verb->add_option("id", request.id, "the enclave's id")->required();
  interference_verb->add_option("-s,--seconds", request.watched, "how long to watch")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  add("dashboard", "serve a page that shows the node, for your browser")
      ->add_option("--port", request.port, "the loopback port; any that is free without it");
  add("enclaves", "the enclaves")
      ->add_option("--label", request.label, "KEY=VALUE: only those that have it");
  add("devices", "the devices that enclaves may have, and who holds them");
  add("segments", "the shared segments");
  add("apps", "the apps of running compositions");
  add("compositions", "the running compositions");
  add("events", "the last changes, or all that come")
      ->add_flag("-f,--follow", request.follow, "wait for more until interrupted");
  auto* copy_verb = add("cp", "copy files and folders from, to and between enclaves");
  copy_verb->add_option("from", request.id, "ENCLAVE:PATH, or a path on the node")->required();
  copy_verb->add_option("to", request.value, "ENCLAVE:PATH, or a path on the node")->required();
  add("cat", "print a file of an enclave")
      ->add_option("file", request.id, "ENCLAVE:PATH, or a path on the node")
      ->required();
  add("ps", "the processes that Hobbes has started, in all enclaves");
  auto* kill_verb = add("kill", "send a signal to a process");
  kill_verb->add_option("id", request.id, "its global id, from `hobbes ps`")->required();
  kill_verb->add_option("signal", request.value, "a name or a number; TERM without it");
  add("names", "what programs have published under a name");
  add("services", "the services that can be called");
  auto with_place = [&](CLI::App* verb) {
    verb->add_option("--scope", request.scope, "where the name is: node, composition or enclave")
        ->check(CLI::IsMember({"node", "composition", "enclave"}));
    return verb;
  };
  auto* call_verb = with_place(add("call", "call a procedure of a service"));
  call_verb->add_option("name", request.id, "the service's name")->required();
  call_verb
      ->add_option("procedure", request.procedure, "one of its procedures; `describe` lists them")
      ->required();
  call_verb->add_option("arguments", request.value, "its arguments, as JSON");
  call_verb->add_option("--owner", request.owner, "only a service of this user id");
  call_verb->add_option("--timeout", request.seconds, "seconds to wait for the answer")
      ->check(CLI::Range(0.001, 86400.0))
      ->capture_default_str();
  auto* publish_verb = with_place(add("publish", "give a value a name, until it is withdrawn"));
  publish_verb->add_option("name", request.id, "the name")->required();
  publish_verb->add_option("value", request.value, "up to 256 bytes")->required();
  publish_verb->add_option("--mode", request.mode, "permission bits, octal")->capture_default_str();
  auto* withdraw_verb = with_place(add("withdraw", "take a name away"));
  withdraw_verb->add_option("name", request.id, "the name")->required();
  withdraw_verb->add_option("--owner", request.owner, "the name of this user id");
  add("ping", "ask an enclave for a sign of life")
      ->add_option("id", request.id, "the enclave's id")
      ->required();
  auto* console_verb = add("console", "what an enclave has printed");
  console_verb->alias("logs");
  console_verb->add_option("id", request.id, "the enclave's id")->required();
  console_verb->add_flag("-f,--follow", request.follow, "wait for more until it ends");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    report(request, usage_error(app, e, argc, argv));
    return 2;
  }
  if (request.command.empty()) {
    if (interactive) return 0;
    interactive = true;
    return 0;
  }
  auto result = act(request);
  if (auto written = flush_standard_output(); !written && result)
    result = std::move(written).error();
  if (result) return *result;
  report(request, result.error());
  return 1;
}

const char* prompt(EditLine*) { return "hobbes> "; }

// Completes commands, and ids after `console`.
unsigned char complete(EditLine* line, int) {
  const LineInfo* info = el_line(line);
  std::string before(info->buffer, static_cast<std::size_t>(info->cursor - info->buffer));
  std::size_t start = before.rfind(' ') == std::string::npos ? 0 : before.rfind(' ') + 1;
  std::string part = before.substr(start);
  std::vector<std::string> candidates = words;
  if (start > 0) {
    candidates = {"--json", "--follow"};
    if (before.rfind("console", 0) == 0 || before.rfind("logs", 0) == 0 ||
        before.rfind("ping", 0) == 0)
      for (const EnclaveRecord& record : EnclaveRecord::list(default_root()))
        candidates.push_back(record.id);
  }
  std::erase_if(candidates, [&](const std::string& word) { return word.rfind(part, 0) != 0; });
  if (candidates.empty()) return CC_ERROR;
  std::string common = candidates[0];
  for (const std::string& word : candidates)
    common = common.substr(
        0, static_cast<std::size_t>(
               std::mismatch(common.begin(), common.end(), word.begin(), word.end()).first -
               common.begin()));
  if (candidates.size() == 1) common += ' ';
  if (common.size() > part.size())
    return el_insertstr(line, common.c_str() + part.size()) == 0 ? CC_REFRESH : CC_ERROR;
  std::cout << "\n";
  for (const std::string& word : candidates) std::cout << word << "  ";
  std::cout << "\n" << std::flush;
  return CC_REDISPLAY;
}

int prompt_loop() {
  EditLine* line = el_init("hobbes", stdin, stdout, stderr);
  History* history = history_init();
  HistEvent event;
  ::history(history, &event, H_SETSIZE, 1000);
  std::string file = std::string(std::getenv("HOME") != nullptr ? std::getenv("HOME") : "/tmp") +
                     "/.hobbes_history";
  ::history(history, &event, H_LOAD, file.c_str());
  el_set(line, EL_HIST, ::history, history);
  el_set(line, EL_PROMPT, prompt);
  el_set(line, EL_EDITOR, "emacs");
  el_set(line, EL_SIGNAL, 1);
  el_set(line, EL_ADDFN, "complete", "complete a word", complete);
  el_set(line, EL_BIND, "^I", "complete", nullptr);
  int count = 0;
  while (const char* text = el_gets(line, &count)) {
    if (count <= 0) break;
    std::istringstream split{std::string(text)};
    std::vector<std::string> parts = {"hobbes"};
    for (std::string part; split >> part;) parts.push_back(part);
    if (parts.size() == 1) continue;
    ::history(history, &event, H_ENTER, text);
    if (parts[1] == "exit" || parts[1] == "quit") break;
    if (parts[1] == "help") parts[1] = "--help";
    std::vector<const char*> argv;
    for (const std::string& part : parts) argv.push_back(part.c_str());
    bool interactive = true;
    run_command(static_cast<int>(argv.size()), argv.data(), interactive);
  }
  ::history(history, &event, H_SAVE, file.c_str());
  history_end(history);
  el_end(line);
  return 0;
}

}  // namespace
}  // namespace hobbes

int main(int argc, char** argv) {
  hobbes::prepare_standard_streams();
  bool interactive = false;
  int code = hobbes::run_command(argc, argv, interactive);
  return interactive ? hobbes::prompt_loop() : code;
}
