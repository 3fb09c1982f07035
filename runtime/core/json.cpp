#include "core/json.h"

#include <set>

template class nlohmann::basic_json<>;

namespace hobbes {

Result<Json> parse_json(std::string_view text, const std::string& what, Comments comments) {
  auto bad = [&](const std::string& why) {
    return Error{Code::invalid, "read " + what, why,
                 "mend the file; `hobbes-run spec` prints a valid one"};
  };
  if (text.size() > json_size_limit)
    return bad("it has " + std::to_string(text.size()) + " bytes, more than " +
               std::to_string(json_size_limit));
  std::string trouble;
  std::vector<std::set<std::string>> keys;
  auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (!trouble.empty()) return false;
    if (depth > json_depth_limit) {
      trouble = "it nests deeper than " + std::to_string(json_depth_limit) + " levels";
      return false;
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(parsed.get<std::string>()).second)
      trouble = "the key \"" + parsed.get<std::string>() + "\" stands twice in one object";
    return true;
  };
  try {
    Json json = Json::parse(text, watch, true, comments == Comments::ignored);
    if (!trouble.empty()) return bad(trouble);
    return json;
  } catch (const Json::exception& e) {
    if (!trouble.empty()) return bad(trouble);
    std::string why = e.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." -> from "line" on.
    std::size_t at = why.find("line ");
    return bad(at == std::string::npos ? why : "not valid JSON at " + why.substr(at));
  }
}

namespace {

// Only counts how deep values nest: the reader of binary formats goes down by recursion.
struct DepthCheck {
  int depth = 0;
  bool deeper() { return ++depth <= json_depth_limit; }
  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(Json::number_integer_t) { return true; }
  bool number_unsigned(Json::number_unsigned_t) { return true; }
  bool number_float(Json::number_float_t, const Json::string_t&) { return true; }
  bool string(Json::string_t&) { return true; }
  bool binary(Json::binary_t&) { return true; }
  bool start_object(std::size_t) { return deeper(); }
  bool key(Json::string_t&) { return true; }
  bool end_object() { return depth-- > 0; }
  bool start_array(std::size_t) { return deeper(); }
  bool end_array() { return depth-- > 0; }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) { return false; }
};

}  // namespace

Result<Json> parse_cbor(const void* bytes, std::size_t size, const std::string& what) {
  const auto* begin = static_cast<const std::uint8_t*>(bytes);
  auto bad = [&](const std::string& why) {
    return Error{Code::invalid, "read " + what, why, "send one value as CBOR (RFC 8949)"};
  };
  if (size > json_size_limit) return bad("it has " + std::to_string(size) + " bytes");
  try {
    DepthCheck check;
    if (!Json::sax_parse(begin, begin + size, &check, Json::input_format_t::cbor))
      return bad(check.depth > json_depth_limit ? "it nests too deep" : "it is not valid CBOR");
    return Json::from_cbor(begin, begin + size);
  } catch (const std::exception& e) {
    return bad(e.what());
  }
}

std::string to_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string text_at(const Json& json, const char* key, const std::string& fallback) {
  auto at = json.find(key);
  return at != json.end() && at->is_string() ? at->get<std::string>() : fallback;
}

std::int64_t number_at(const Json& json, const char* key, std::int64_t fallback) {
  auto at = json.find(key);
  if (at == json.end() || !at->is_number_integer()) return fallback;
  if (at->is_number_unsigned() && at->get<std::uint64_t>() > INT64_MAX) return fallback;
  return at->get<std::int64_t>();
}

Json to_json(const Error& error) {
  return {{"code", name_of(error.code)},
          {"attempt", error.attempt},
          {"cause", error.cause},
          {"remedy", error.remedy}};
}

Error error_from(const Json& json) {
  return {code_named(text_at(json, "code")), text_at(json, "attempt", "act"),
          text_at(json, "cause", "unknown"), text_at(json, "remedy")};
}

}  // namespace hobbes
