// JSON from untrusted places.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/result.h"

// Compiled once, in json.cpp: it was a quarter of a test's time to compile.
extern template class nlohmann::basic_json<>;

namespace hobbes {

using Json = nlohmann::json;

inline constexpr std::size_t json_size_limit = 4 << 20;  ///< bytes
inline constexpr int json_depth_limit = 64;              ///< nested arrays and objects

enum class Comments { refused, ignored };  ///< "// ..." and "/* ... */"

/// Parses strict JSON (RFC 8259: UTF-8, no duplicate keys at one level), for files that people
/// write with comments if wanted. `what` names the source in the error, which gives line and
/// column. Errors: Code::invalid for syntax, encoding, size, depth and duplicate keys.
Result<Json> parse_json(std::string_view text, const std::string& what,
                        Comments comments = Comments::refused);

/// Parses CBOR (RFC 8949), which may come from anybody. Errors: Code::invalid for syntax, size and
/// depth.
Result<Json> parse_cbor(const void* bytes, std::size_t size, const std::string& what);

/// Serialises without ever throwing: bytes that are not UTF-8 become U+FFFD.
std::string to_text(const Json& json, int indent = -1);

/// `json[key]` when it is a string, else `fallback`. For messages whose absence has a meaning.
std::string text_at(const Json& json, const char* key, const std::string& fallback = {});
/// `json[key]` when it is a whole number that fits, else `fallback`.
std::int64_t number_at(const Json& json, const char* key, std::int64_t fallback = 0);

/// An Error as JSON and back, for the control socket and the REST API.
Json to_json(const Error& error);
Error error_from(const Json& json);

}  // namespace hobbes
