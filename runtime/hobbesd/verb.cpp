#include "hobbesd/verb.h"

#include <functional>
#include <map>
#include <set>

#include "core/identity.h"
#include "core/signal_name.h"
#include "core/size.h"

namespace hobbes {
namespace {

class Reader {
 public:
  Reader(const Json& request, Verb& verb) : request_(request), verb_(verb) {}

  Result<void> only(const std::set<std::string>& fields) const {
    static const std::set<std::string> common = {"op", "verb", "root", "id", "key"};
    for (const auto& [name, unused] : request_.items())
      if (common.count(name) == 0 && fields.count(name) == 0)
        return wrong(name, "a field that '" + verb_.name + "' has");
    return {};
  }
  /// "--option=value": a value that begins with a dash stays a value.
  Result<void> absolute_path(const char* field, const char* option, bool needed) {
    if (!request_.contains(field))
      return needed ? wrong(field, "an absolute path") : Result<void>();
    std::string path = text_at(request_, field);
    if (path.empty() || path.front() != '/' || path.find('\0') != std::string::npos)
      return wrong(field, "an absolute path");
    verb_.words.push_back(std::string(option) + "=" + path);
    return {};
  }
  Result<void> words(const char* field, const std::function<void(const std::string&)>& use) const {
    if (!request_.contains(field)) return {};
    if (!request_[field].is_array()) return wrong(field, "a list of words");
    for (const Json& one : request_[field]) {
      if (!one.is_string() || one.get<std::string>().find('\0') != std::string::npos)
        return wrong(field, "a list of words");
      use(one.get<std::string>());
    }
    return {};
  }
  Result<void> labels() {
    if (!request_.contains("labels")) return {};
    if (!request_["labels"].is_object()) return wrong("labels", "an object of strings");
    for (const auto& [key, value] : request_["labels"].items()) {
      bool text = value.is_string() && value.get<std::string>().find('\0') == std::string::npos;
      if (!text || key.empty() || key.find_first_of(std::string("=\0", 2)) != std::string::npos)
        return wrong("labels/" + key, "a text under a name without =");
      verb_.words.push_back("--label=" + key + "=" + value.get<std::string>());
    }
    return {};
  }
  Result<bool> flag(const char* field) const {
    if (!request_.contains(field)) return false;
    if (!request_[field].is_boolean()) return wrong(field, "true or false");
    return request_[field].get<bool>();
  }
  [[nodiscard]] Error wrong(const std::string& field, const std::string& wanted) const {
    return {Code::invalid, verb_.name + " enclave '" + verb_.id + "'",
            "\"" + field + "\" is not " + wanted, "see docs/CONTROL.md"};
  }
  [[nodiscard]] const Json& at(const char* field) const { return request_[field]; }
  [[nodiscard]] bool has(const char* field) const { return request_.contains(field); }
  Verb& verb() { return verb_; }
  void add(const std::string& word) { verb_.words.push_back(word); }

 private:
  const Json& request_;
  Verb& verb_;
};

Result<void> read_making(Reader& in) {
  HOBBES_CHECK(in.only({"bundle", "labels"}));
  HOBBES_CHECK(in.absolute_path("bundle", "--bundle", true));
  HOBBES_CHECK(in.labels());
  in.add(in.verb().id);
  return {};
}

Result<void> read_plan(Reader& in) {
  in.verb().words = {"--json", "create", "--dry-run"};
  in.verb().has_result = true;
  return read_making(in);
}

Result<void> read_run(Reader& in) {
  in.add("--detach");
  return read_making(in);
}

Result<void> read_plain(Reader& in) {
  HOBBES_CHECK(in.only({}));
  in.add(in.verb().id);
  return {};
}

Result<void> read_kill(Reader& in) {
  HOBBES_CHECK(in.only({"signal"}));
  in.add(in.verb().id);
  if (!in.has("signal")) return {};
  const Json& signal = in.at("signal");
  std::string text = signal.is_string()            ? signal.get<std::string>()
                     : signal.is_number_unsigned() ? to_text(signal)
                                                   : "";
  if (!signal_number(text))
    return in.wrong("signal",
                    "the name or number of a signal, found " + to_text(signal).substr(0, 40));
  in.add(text);
  return {};
}

Result<void> read_delete(Reader& in) {
  HOBBES_CHECK(in.only({"force"}));
  HOBBES_TRY(force, in.flag("force"));
  if (force) in.add("--force");
  in.add(in.verb().id);
  return {};
}

// A size is a number of bytes, or text such as "2GiB".
Result<void> read_update(Reader& in) {
  HOBBES_CHECK(in.only({"cores", "memory", "dryRun"}));
  HOBBES_TRY(dry_run, in.flag("dryRun"));
  if (dry_run) {
    in.verb().words = {"--json", "update", "--dry-run"};
    in.verb().has_result = true;
  }
  if (!in.has("cores") && !in.has("memory"))
    return in.wrong("cores", "there, and neither is \"memory\"");
  if (in.has("cores")) {
    if (!in.at("cores").is_number_unsigned() || in.at("cores") == 0 || in.at("cores") > 65536)
      return in.wrong("cores", "a number of cores above 0");
    in.add("--cores=" + to_text(in.at("cores")));
  }
  if (in.has("memory")) {
    const Json& memory = in.at("memory");
    bool size = memory.is_string() ? parse_size(memory.get<std::string>()).value_or(0) > 0
                                   : memory.is_number_unsigned() && memory > 0;
    if (!size) return in.wrong("memory", "a size above 0");
    in.add("--memory-size=" + (memory.is_string() ? memory.get<std::string>() : to_text(memory)));
  }
  in.add(in.verb().id);
  return {};
}

Result<void> read_exec(Reader& in) {
  HOBBES_CHECK(in.only({"args", "cwd", "env"}));
  HOBBES_CHECK(in.absolute_path("cwd", "--cwd", false));
  bool named = true;
  HOBBES_CHECK(in.words("env", [&](const std::string& entry) {
    named = named && entry.find('=') != std::string::npos && entry.front() != '=';
    in.add("--env=" + entry);
  }));
  if (!named) return in.wrong("env", "a list of NAME=value");
  in.add(in.verb().id);
  if (!in.has("args") || !in.at("args").is_array() || in.at("args").empty())
    return in.wrong("args", "a list of words");
  return in.words("args", [&](const std::string& word) { in.add(word); });
}

}  // namespace

Result<Verb> read_verb(const Json& request, const std::string& default_root) {
  using Read = Result<void> (*)(Reader&);
  static const std::map<std::string, Read> verbs = {
      {"plan", read_plan},   {"create", read_making}, {"run", read_run},
      {"start", read_plain}, {"pause", read_plain},   {"resume", read_plain},
      {"kill", read_kill},   {"delete", read_delete}, {"update", read_update},
      {"exec", read_exec}};
  Verb verb;
  verb.name = text_at(request, "verb");
  auto known = verbs.find(verb.name);
  if (known == verbs.end())
    return Error{Code::invalid, "begin an operation", "the verb '" + verb.name + "' is unknown",
                 "see docs/CONTROL.md"};
  verb.id = text_at(request, "id");
  HOBBES_CHECK(check_id(verb.id));
  verb.root = text_at(request, "root", default_root);
  if (verb.root.empty() || verb.root.front() != '/' || verb.root.find('\0') != std::string::npos)
    return Error{Code::invalid, verb.name + " enclave '" + verb.id + "'",
                 "\"root\" is not an absolute path", ""};
  verb.words = {verb.name};
  Reader reader(request, verb);
  HOBBES_CHECK(known->second(reader));
  verb.words.insert(verb.words.begin(), "--root=" + verb.root);
  return verb;
}

}  // namespace hobbes
