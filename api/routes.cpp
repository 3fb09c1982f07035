#include "api/routes.h"

#include <fcntl.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string_view>
#include <thread>

#include "api/event_stream.h"
#include "api/topology_svg.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/json.h"
#include "core/number.h"
#include "core/paths.h"
#include "core/signal_name.h"
#include "enclave/describe.h"
#include "ipc/service.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

constexpr std::size_t page_most = 500;

struct Call {
  const httplib::Request& request;
  httplib::Response& response;
  Peer peer;
  const Dispatch& dispatch;
  std::map<std::string, std::string>
      query;  ///< of the target; a body that looks like a form adds nothing
  Json body;  ///< {} when there is none
  [[nodiscard]] std::string id() const {
    return request.matches.size() > 1 ? std::string(request.matches[1]) : std::string();
  }
  [[nodiscard]] std::optional<std::string> parameter(const char* name) const {
    auto at = query.find(name);
    return at != query.end() ? std::optional(at->second) : std::nullopt;
  }
};

// Percent-encoding and "+" of a query (WHATWG URL, application/x-www-form-urlencoded).
std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto byte = text[i] == '%' && i + 2 < text.size() ? whole_number(text.substr(i + 1, 2), 255, 16)
                                                      : std::nullopt;
    if (byte) i += 2;
    out += byte ? static_cast<char>(*byte) : text[i] == '+' ? ' ' : text[i];
  }
  return out;
}

std::map<std::string, std::string> query_of(const std::string& target) {
  std::map<std::string, std::string> out;
  std::size_t begin = target.find('?');
  while (begin != std::string::npos && begin + 1 < target.size()) {
    std::size_t end = target.find('&', begin + 1);
    std::string_view pair = std::string_view(target).substr(
        begin + 1, end == std::string::npos ? end : end - begin - 1);
    std::size_t equals = pair.find('=');
    if (!pair.empty())
      out[decoded(pair.substr(0, equals))] =
          equals == std::string_view::npos ? "" : decoded(pair.substr(equals + 1));
    begin = end;
  }
  return out;
}

int status_of(Code code) {
  switch (code) {
    case Code::invalid:
      return 400;
    case Code::not_found:
      return 404;
    case Code::exists:
    case Code::busy:
      return 409;
    case Code::denied:
      return 403;
    case Code::exhausted:
      return 507;
    case Code::unavailable:
      return 503;
    case Code::unsupported:
      return 501;
    case Code::timeout:
      return 504;
    default:
      return 500;
  }
}

// RFC 9457.
void answer_problem(httplib::Response& response, const Error& error, int status = 0) {
  response.status = status != 0 ? status : status_of(error.code);
  Json out = {{"type", problem_type(name_of(error.code))},
              {"title", error.cause},
              {"status", response.status},
              {"detail", error.text()},
              {"code", name_of(error.code)}};
  if (!error.remedy.empty()) out["remedy"] = error.remedy;
  response.set_content(to_text(out), "application/problem+json");
}

void answer(httplib::Response& response, const Json& json, int status = 200) {
  response.status = status;
  response.set_content(to_text(json) + "\n", "application/json");
}

Result<Json> ask(const Call& call, const std::string& op, Json request) {
  request["op"] = op;
  HOBBES_TRY(answer, call.dispatch(call.peer, std::move(request)));
  return std::move(answer.body);
}

std::string root_of(const Call& call) {
  return call.parameter("root").value_or(default_root(call.peer.uid));
}

// What is not understood is not passed over: a misspelt field would do something else than was
// asked.
Result<void> only(const Call& call, const std::set<std::string>& fields) {
  for (const auto& [name, unused] : call.body.items())
    if (fields.count(name) == 0)
      return Error{Code::invalid, "read the request's body", "\"" + name + "\" is unknown",
                   "see /openapi.yaml"};
  return {};
}

Result<bool> flag(const Call& call, const char* field) {
  if (!call.body.contains(field)) return false;
  if (!call.body[field].is_boolean())
    return Error{Code::invalid, "read the request's body",
                 "\"" + std::string(field) + "\" is neither true nor false", ""};
  return call.body[field].get<bool>();
}

Result<bool> parameter_flag(const Call& call, const char* name) {
  std::string text = call.parameter(name).value_or("false");
  if (text != "true" && text != "false")
    return Error{Code::invalid, "read the request's parameters",
                 std::string(name) + " is neither true nor false", ""};
  return text == "true";
}

Result<void> answer_result(Call& call, std::string operation);

// Starts a verb of hobbes-run and answers 202 with the operation; what only plans is waited for.
Result<void> operate(Call& call, const std::string& verb, const std::string& id, Json request) {
  request["verb"] = verb;
  request["root"] = root_of(call);
  request["id"] = id;
  if (verb == "plan" || request.value("dryRun", false)) {
    HOBBES_TRY(planning, ask(call, "operation.begin", request));
    return answer_result(call, text_at(planning, "operation"));
  }
  if (call.request.has_header("Idempotency-Key")) {
    std::string key = call.request.get_header_value("Idempotency-Key");
    if (key.empty() || key.size() > 200)
      return Error{Code::invalid, "read the idempotency key", "it has not 1 to 200 characters", ""};
    request["key"] = key;
  }
  HOBBES_TRY(operation, ask(call, "operation.begin", request));
  call.response.set_header("Location", "/v1/operations/" + text_at(operation, "operation"));
  answer(call.response, operation, 202);
  return {};
}

Result<void> answer_result(Call& call, std::string operation) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < limit) {
    HOBBES_TRY(now, ask(call, "operation.get", {{"operation", operation}}));
    std::string state = text_at(now, "state");
    if (state == "failed") return error_from(now["error"]);
    if (state == "succeeded") {
      answer(call.response, now["result"]);
      return {};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return Error{Code::timeout, "plan", "hobbes-run has not answered within 10 s",
               "see /v1/operations/" + operation};
}

// Of what a client sees and may decide by: a sign of life is no change of it.
std::string etag_of(Json record) {
  for (const char* key : {"changedNs", "heartbeatAgeNs"}) record.erase(key);
  return "\"" + hex(hash_of(to_text(record))) + "\"";
}

// If-Match against the record as it is now: somebody else's change is not overwritten unseen.
Result<bool> matches(Call& call, const std::string& id) {
  if (!call.request.has_header("If-Match")) return true;
  HOBBES_TRY(record, ask(call, "enclave.describe", {{"root", root_of(call)}, {"id", id}}));
  std::string wanted = call.request.get_header_value("If-Match");
  if (wanted == "*" || wanted == etag_of(record)) return true;
  answer_problem(call.response,
                 {Code::busy, "change enclave '" + id + "'", "it has changed since it was read",
                  "read it again and decide anew"},
                 412);
  return false;
}

Result<void> get_node(Call& call) {
  HOBBES_TRY(node, ask(call, "node", {}));
  answer(call.response, node);
  return {};
}

// A state that no record of this type can have would find nothing, and look like an answer.
Result<void> check_state(std::uint16_t type, const std::string& state) {
  if (state.empty()) return {};
  for (std::uint32_t number = 0; number < 16; ++number)
    if (state == name_of_state(type, number)) return {};
  return Error{Code::invalid, "list records", "the state '" + state + "' is unknown",
               "see /openapi.yaml"};
}

// Records of a type in pages: ?limit=, ?cursor= (opaque), and ?state=.
Result<void> list_records(Call& call, std::uint16_t type, const char* kind = "") {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  std::size_t limit = page_most;
  if (auto given = call.parameter("limit")) {
    auto wanted = whole_number(*given);
    if (wanted.value_or(0) < 1)
      return Error{Code::invalid, "list records", "limit is not a number above 0",
                   "use 1 to " + std::to_string(page_most)};
    limit = std::min<std::size_t>(page_most, *wanted);
  }
  std::uint64_t cursor = 0;
  if (auto text = call.parameter("cursor")) {
    auto given = whole_number(*text, UINT64_MAX, 16);
    if (!given)
      return Error{Code::invalid, "list records", "cursor is none that an answer gave",
                   "use \"next\" of the page before"};
    cursor = *given;
  }
  std::string state = call.parameter("state").value_or(""),
              label = call.parameter("label").value_or("");
  auto root = call.parameter("root");
  HOBBES_CHECK(check_state(type, state));
  Json items = Json::array();
  hobbes_record record;
  bool more = true;
  while (items.size() < limit &&
         (more = nis->next(type, &cursor, &record) == NisReader::Status::good)) {
    Json item = describe(record);
    if (!state.empty() && text_at(item, "state") != state) continue;
    if (*kind != '\0' && text_at(item, "kind") != kind) continue;
    if (type == HOBBES_ENCLAVE) {
      auto full = ask(call, "enclave.describe", {{"handle", record.id}});
      if (full) item = std::move(*full);
      if (root && text_at(item, "root") != *root) continue;
      if (!label.empty()) {
        std::size_t equals = label.find('=');
        Json labels = item.value("labels", Json::object());
        auto at = labels.find(label.substr(0, equals));
        bool same = at != labels.end() &&
                    (equals == std::string::npos ||
                     (at->is_string() && at->get<std::string>() == label.substr(equals + 1)));
        if (!same) continue;
      }
    }
    items.push_back(item);
  }
  Json out = {{"items", items}};
  if (more) out["next"] = hex(cursor);
  answer(call.response, out);
  return {};
}

Result<void> get_topology(Call& call) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  Json out = {{"cores", Json::array()}, {"nodes", Json::array()}};
  for (const hobbes_record& core : nis->all(HOBBES_CORE)) out["cores"].push_back(describe(core));
  for (const hobbes_record& node : nis->all(HOBBES_NUMA)) out["nodes"].push_back(describe(node));
  answer(call.response, out);
  return {};
}

Result<void> draw_topology(Call& call) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  call.response.set_content(topology_svg(*nis), "image/svg+xml");
  return {};
}

Result<void> create(Call& call) {
  for (const char* field : {"id", "bundle"})
    if (!call.body.contains(field) || !call.body[field].is_string())
      return Error{Code::invalid, "create an enclave", "\"" + std::string(field) + "\" is no text",
                   "see /openapi.yaml"};
  std::string id = text_at(call.body, "id"), bundle = text_at(call.body, "bundle");
  HOBBES_CHECK(check_id(id));
  if (bundle.empty() || bundle.front() != '/')
    return Error{Code::invalid, "create enclave '" + id + "'", "\"bundle\" is no absolute path",
                 "name the bundle's folder on this node"};
  HOBBES_CHECK(only(call, {"id", "bundle", "labels", "start"}));
  HOBBES_TRY(start, flag(call, "start"));
  HOBBES_TRY(dry_run, parameter_flag(call, "dryRun"));
  Json request = {{"bundle", bundle}};
  if (call.body.contains("labels")) request["labels"] = call.body["labels"];
  return operate(call, dry_run ? "plan" : start ? "run" : "create", id, std::move(request));
}

Result<void> get_enclave(Call& call) {
  HOBBES_TRY(record, ask(call, "enclave.describe", {{"root", root_of(call)}, {"id", call.id()}}));
  call.response.set_header("ETag", etag_of(record));
  if (call.request.get_header_value("If-None-Match") == etag_of(record)) {
    call.response.status = 304;
    return {};
  }
  answer(call.response, record);
  return {};
}

// What is not there is said at once, not by an operation that fails later.
Result<void> find(Call& call) {
  HOBBES_TRY(there, ask(call, "enclave.describe", {{"root", root_of(call)}, {"id", call.id()}}));
  (void)there;
  return {};
}

Result<void> change(Call& call) {
  HOBBES_CHECK(find(call));
  HOBBES_TRY(same, matches(call, call.id()));
  if (!same) return {};
  HOBBES_CHECK(only(call, {"cores", "memory"}));
  // {"cores": 2} and {"cores": {"count": 2}} say the same; so do {"memory": "1GiB"} and {"memory":
  // {"size": "1GiB"}}.
  Json request = Json::object();
  for (const auto& [field, inner] : {std::pair{"cores", "count"}, std::pair{"memory", "size"}}) {
    if (!call.body.contains(field)) continue;
    const Json& value = call.body[field];
    if (value.is_object())
      for (const auto& [name, unused] : value.items())
        if (name != inner)
          return Error{Code::invalid, "change enclave '" + call.id() + "'",
                       "\"" + name + "\" is unknown", "see /openapi.yaml"};
    const Json& wanted = value.is_object() && value.contains(inner) ? value[inner] : value;
    bool good =
        wanted.is_number_unsigned() || (wanted.is_string() && std::string(field) == "memory");
    if (!good)
      return Error{Code::invalid, "change enclave '" + call.id() + "'",
                   "\"" + std::string(field) + "\", or its \"" + inner + "\", is no number",
                   "see /openapi.yaml"};
    request[field] = wanted;
  }
  HOBBES_TRY(dry_run, parameter_flag(call, "dryRun"));
  if (dry_run) request["dryRun"] = true;
  return operate(call, "update", call.id(), std::move(request));
}

Result<void> remove(Call& call) {
  HOBBES_TRY(same, matches(call, call.id()));
  if (!same) return {};
  HOBBES_CHECK(find(call));
  HOBBES_TRY(force, parameter_flag(call, "force"));
  return operate(call, "delete", call.id(), {{"force", force}});
}

Result<void> act(Call& call, const std::string& verb) {
  static const std::map<std::string, std::set<std::string>> fields = {
      {"kill", {"signal"}}, {"exec", {"args", "cwd", "env"}}};
  auto at = fields.find(verb);
  HOBBES_CHECK(only(call, at != fields.end() ? at->second : std::set<std::string>()));
  HOBBES_CHECK(find(call));
  return operate(call, verb, call.id(), call.body);
}

// The last of a log of a user, however long it is.
constexpr std::uint64_t log_limit = 4 << 20;
Result<std::string> read_end(const std::string& path, uid_t owner, std::uint64_t most = log_limit) {
  const auto limit = static_cast<off_t>(most);
  Fd log(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat info {};
  if (!log || ::fstat(log.get(), &info) != 0) return os_error("read the log", errno);
  if (!S_ISREG(info.st_mode) || info.st_uid != owner)
    return Error{Code::not_found, "read the log", path + " is no file of its user", ""};
  std::string out(static_cast<std::size_t>(std::min(limit, info.st_size)), '\0');
  ssize_t n =
      ::pread(log.get(), out.data(), out.size(), info.st_size - static_cast<off_t>(out.size()));
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return out;
}

// The console of a kernel of its own is beside the enclave's record, in a folder that its user may
// rearrange: only a file of his is read there.
Result<void> get_logs(Call& call) {
  HOBBES_TRY(record, ask(call, "enclave.describe", {{"root", root_of(call)}, {"id", call.id()}}));
  const auto uid = static_cast<uid_t>(number_at(record, "uid"));
  const std::string console = text_at(record, "root") + "/" + call.id() + "/console.log";
  std::uint64_t most = log_limit;
  if (auto wish = call.parameter("tail")) {
    auto given = whole_number(*wish, log_limit);
    if (!given)
      return Error{Code::invalid, "read the log of '" + call.id() + "'",
                   "tail is no number of bytes up to " + std::to_string(log_limit), ""};
    most = *given;
  }
  auto text = read_end(console, uid, most);
  if (!text) text = read_end(enclave_log(uid, root_of(call), call.id()), uid, most);
  if (!text && text.error().code == Code::not_found)
    return Error{Code::not_found, "read the log of '" + call.id() + "'",
                 "no output of it is kept here",
                 "its creator has it: look at the terminal or log of the program that made it"};
  if (!text) return std::move(text).error();
  call.response.set_content(*text, "text/plain; charset=utf-8");
  return {};
}

Result<void> get_operation(Call& call) {
  HOBBES_TRY(operation, ask(call, "operation.get", {{"operation", call.id()}}));
  answer(call.response, operation);
  return {};
}

// What a program of `exec` has printed, or hobbes-run itself.
Result<void> get_operation_logs(Call& call) {
  HOBBES_TRY(operation, ask(call, "operation.get", {{"operation", call.id()}}));
  HOBBES_TRY(text,
             read_end(text_at(operation, "log"), static_cast<uid_t>(number_at(operation, "uid"))));
  call.response.set_content(text, "text/plain; charset=utf-8");
  return {};
}

Result<void> get_metrics(Call& call) {
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  prometheus::Registry registry;
  auto& enclaves = prometheus::BuildGauge()
                       .Name("hobbes_enclaves")
                       .Help("Enclaves by kind and state")
                       .Register(registry);
  auto& cores =
      prometheus::BuildGauge().Name("hobbes_cores").Help("Cores by state").Register(registry);
  auto& memory = prometheus::BuildGauge()
                     .Name("hobbes_memory_bytes")
                     .Help("Memory by NUMA node and use")
                     .Register(registry);
  auto& records = prometheus::BuildGauge()
                      .Name("hobbes_nis_records")
                      .Help("Records in the node's mirror by type")
                      .Register(registry);
  auto& sequence = prometheus::BuildGauge()
                       .Name("hobbes_nis_sequence")
                       .Help("Changes so far")
                       .Register(registry);
  hobbes_record record;
  for (std::uint64_t cursor = 0;
       nis->next(HOBBES_FREE, &cursor, &record) == NisReader::Status::good;) {
    records.Add({{"type", name_of_type(record.type)}}).Increment();
    std::string state = name_of_state(record.type, record.state);
    if (record.type == HOBBES_ENCLAVE)
      enclaves.Add({{"kind", text_at(describe(record), "kind")}, {"state", state}}).Increment();
    if (record.type == HOBBES_CORE) cores.Add({{"state", state}}).Increment();
    if (record.type == HOBBES_NUMA) {
      std::string node = std::to_string(record.body.numa.number);
      memory.Add({{"numa", node}, {"use", "total"}})
          .Set(static_cast<double>(record.body.numa.total));
      memory.Add({{"numa", node}, {"use", "leased"}})
          .Set(static_cast<double>(record.body.numa.leased));
    }
  }
  sequence.Add({}).Set(static_cast<double>(nis->sequence()));
  call.response.set_content(prometheus::TextSerializer().Serialize(registry.Collect()),
                            "text/plain; version=0.0.4; charset=utf-8");
  return {};
}

Result<void> kill_process(Call& call) {
  const std::string attempt = "signal process '" + call.id() + "'";
  HOBBES_CHECK(only(call, {"signal"}));
  auto id = whole_number(call.id(), UINT64_MAX, 16);
  if (!id)
    return Error{Code::not_found, attempt, "that is no global process id", "see GET /v1/processes"};
  int number = SIGTERM;
  if (auto at = call.body.find("signal"); at != call.body.end()) {
    if (auto given = signal_number(at->is_string() ? at->get<std::string>() : to_text(*at)))
      number = *given;
    else
      return std::move(given).error();
  }
  HOBBES_TRY(done, ask(call, "process.kill", {{"id", *id}, {"signal", number}}));
  answer(call.response, done);
  return {};
}

// A procedure of a service in whatever enclave, called for the client: {"arguments", "timeout"}.
Result<void> call_service(Call& call) {
  constexpr std::size_t most_parts = 1000;
  const std::string name = call.id(), procedure = std::string(call.request.matches[2]);
  const std::string attempt = "call '" + procedure + "' of '" + name + "'";
  HOBBES_CHECK(only(call, {"arguments", "timeout"}));
  double timeout = 30;
  if (auto at = call.body.find("timeout"); at != call.body.end()) {
    if (!at->is_number() || !(at->get<double>() > 0) || at->get<double>() > 60)
      return Error{Code::invalid, attempt, "\"timeout\" is no number of seconds up to 60", ""};
    timeout = at->get<double>();
  }
  Json request = {{"op", "channel.connect"}, {"name", name}};
  if (auto owner = call.parameter("owner")) {
    auto uid = whole_number(*owner, UINT32_MAX);
    if (!uid) return Error{Code::invalid, attempt, "owner is no user id", ""};
    request["owner"] = *uid;
  }
  HOBBES_TRY(introduction, call.dispatch(call.peer, std::move(request)));
  HOBBES_TRY(channel, Channel::of(std::move(introduction), false));
  if (channel.largest() > json_size_limit)
    return Error{Code::unsupported, attempt, "its channels are larger than a response may be",
                 "call it from a program, or by `hobbes call`"};
  ServiceClient client{CommandClient(std::move(channel))};
  Json parts = Json::array();
  std::size_t size = 0;
  auto result = client.stream(
      procedure, call.body.value("arguments", Json()),
      [&](const Json& part) {
        size += to_text(part).size();
        if (parts.size() < most_parts && size < json_size_limit) parts.push_back(part);
      },
      std::chrono::milliseconds(static_cast<std::int64_t>(timeout * 1000)));
  if (!result) return std::move(result).error();
  if (size >= json_size_limit || parts.size() >= most_parts)
    return Error{Code::exhausted, attempt, "the answer has more parts than a response may hold",
                 "call it from a program, or ask for less"};
  Json out = {{"result", std::move(*result)}};
  if (!parts.empty()) out["parts"] = std::move(parts);
  answer(call.response, out);
  return {};
}

struct Route {
  const char* method;
  const char* path;
  std::function<Result<void>(Call&)> answer;
  std::set<std::string> parameters = {};
};

const std::vector<Route>& routes() {
  static const std::vector<Route> table = [] {
    std::vector<Route> out = {
        {"GET", "/v1/node", get_node},
        {"GET", "/v1/topology", get_topology},
        {"GET", "/v1/topology.svg", draw_topology},
        {"GET",
         "/v1/enclaves",
         [](Call& c) { return list_records(c, HOBBES_ENCLAVE); },
         {"root", "limit", "cursor", "state", "label"}},
        {"POST", "/v1/enclaves", create, {"root", "dryRun"}},
        {"GET", "/v1/enclaves/{id}", get_enclave, {"root"}},
        {"PATCH", "/v1/enclaves/{id}", change, {"root", "dryRun"}},
        {"DELETE", "/v1/enclaves/{id}", remove, {"root", "force"}},
        {"GET", "/v1/enclaves/{id}/logs", get_logs, {"root", "tail"}},
        {"GET",
         "/v1/segments",
         [](Call& c) { return list_records(c, HOBBES_SEGMENT); },
         {"limit", "cursor"}},
        {"GET",
         "/v1/attachments",
         [](Call& c) { return list_records(c, HOBBES_ATTACHMENT); },
         {"limit", "cursor"}},
        {"GET",
         "/v1/processes",
         [](Call& c) { return list_records(c, HOBBES_PROCESS); },
         {"limit", "cursor", "state"}},
        {"POST", "/v1/processes/{id}/kill", kill_process},
        {"GET",
         "/v1/names",
         [](Call& c) { return list_records(c, HOBBES_NAME); },
         {"limit", "cursor"}},
        {"GET",
         "/v1/services",
         [](Call& c) { return list_records(c, HOBBES_NAME, "service"); },
         {"limit", "cursor"}},
        {"POST", "/v1/services/{name}/{procedure}", call_service, {"owner"}},
        {"GET",
         "/v1/apps",
         [](Call& c) { return list_records(c, HOBBES_APP); },
         {"limit", "cursor", "state"}},
        {"GET",
         "/v1/compositions",
         [](Call& c) { return list_records(c, HOBBES_COMPOSITION); },
         {"limit", "cursor", "state"}},
        {"GET", "/v1/operations/{id}", get_operation},
        {"GET", "/v1/operations/{id}/logs", get_operation_logs},
        {"GET", "/v1/events",
         [](Call& c) { return stream_events(c.request, c.response, c.peer.uid); }},
        {"GET", "/metrics", get_metrics},
        {"GET", "/openapi.yaml", [](Call& c) -> Result<void> {
           c.response.set_content(openapi_text(), "application/yaml");
           return {};
         }}};
    for (const char* verb : {"start", "kill", "pause", "resume", "exec"})
      out.push_back({"POST", "", [verb](Call& c) { return act(c, verb); }, {"root"}});
    static const char* const paths[] = {"/v1/enclaves/{id}/start", "/v1/enclaves/{id}/kill",
                                        "/v1/enclaves/{id}/pause", "/v1/enclaves/{id}/resume",
                                        "/v1/enclaves/{id}/exec"};
    for (std::size_t i = 0; i < 5; ++i) out[out.size() - 5 + i].path = paths[i];
    return out;
  }();
  return table;
}

std::string pattern_of(const std::string& path) {
  static const std::regex parameter("\\{[a-z]+\\}"), dot("\\.");
  return std::regex_replace(std::regex_replace(path, dot, "\\."), parameter, "([^/]{1,127})");
}

void serve(const Route& route, const Identify& identify, const Dispatch& dispatch,
           const httplib::Request& request, httplib::Response& response) {
  try {
    auto peer = identify(request);
    if (!peer) {
      response.set_header("WWW-Authenticate", "Bearer");
      answer_problem(response, peer.error(), 401);
      return;
    }
    Call call{request,       response, std::move(*peer), dispatch, query_of(request.target),
              Json::object()};
    for (const auto& [name, unused] : call.query)
      if (route.parameters.count(name) == 0) {
        answer_problem(response, {Code::invalid, "read the request's parameters",
                                  "\"" + name + "\" is unknown", "see /openapi.yaml"});
        return;
      }
    if (request.get_header_value("Content-Type").rfind("multipart/", 0) == 0) {
      answer_problem(
          response,
          {Code::invalid, "read the request's body", "it is no JSON", "send application/json"},
          415);
      return;
    }
    if (!request.body.empty()) {
      auto body = parse_json(request.body, "the request's body");
      if (!body || !body->is_object()) {
        answer_problem(response, body ? Error{Code::invalid, "read the request's body",
                                              "it is no JSON object", "send an object"}
                                      : body.error());
        return;
      }
      call.body = std::move(*body);
    }
    if (auto answered = route.answer(call); !answered) answer_problem(response, answered.error());
  } catch (const std::exception& e) {  // a field of an unexpected type
    answer_problem(response, {Code::invalid, "answer the request", e.what(), "see /openapi.yaml"});
  }
}

}  // namespace

std::vector<RouteName> route_names() {
  std::vector<RouteName> out;
  for (const Route& route : routes()) out.push_back({route.method, route.path});
  return out;
}

void add_routes(httplib::Server& server, const Identify& identify, const Dispatch& dispatch) {
  for (const Route& route : routes()) {
    auto handler = [&route, identify, dispatch](const httplib::Request& request,
                                                httplib::Response& response) {
      serve(route, identify, dispatch, request, response);
    };
    std::string method = route.method, pattern = pattern_of(route.path);
    if (method == "GET") server.Get(pattern, handler);
    if (method == "POST") server.Post(pattern, handler);
    if (method == "PATCH") server.Patch(pattern, handler);
    if (method == "DELETE") server.Delete(pattern, handler);
  }
  server.set_payload_max_length(json_size_limit);
  // The limit above is one of Content-Length only: a chunked or compressed body would be unpacked
  // without one.
  // Overlapping ranges would make a large answer of a small request.
  server.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
    if (request.has_header("Range")) {
      answer_problem(response,
                     {Code::invalid, "answer a part", "ranges are not served", "ask for all of it"},
                     416);
      return httplib::Server::HandlerResponse::Handled;
    }
    if (!request.has_header("Transfer-Encoding") && !request.has_header("Content-Encoding"))
      return httplib::Server::HandlerResponse::Unhandled;
    response.set_header("Connection", "close");
    answer_problem(response,
                   {Code::invalid, "read the request's body", "it is chunked or compressed",
                    "send it plain, with Content-Length"},
                   411);
    return httplib::Server::HandlerResponse::Handled;
  });
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    if (response.status == 404) {
      // A resource that is there under other methods.
      std::string allowed;
      for (const Route& route : routes())
        if (std::regex_match(request.path, std::regex(pattern_of(route.path))))
          allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      if (!allowed.empty()) {
        response.set_header("Allow", allowed);
        answer_problem(response,
                       {Code::invalid, request.method + " " + request.path.substr(0, 100),
                        "this resource has " + allowed + " only", "see /openapi.yaml"},
                       405);
        return;
      }
      answer_problem(response, {Code::not_found, request.method + " " + request.path.substr(0, 100),
                                "there is no such resource", "see /openapi.yaml"});
      return;
    }
    const char* why = response.status == 413 ? "the body is too large" : "the request is malformed";
    answer_problem(response,
                   {Code::invalid, request.method + " " + request.path.substr(0, 100), why,
                    "see /openapi.yaml"},
                   response.status);
  });
}

}  // namespace hobbes
