// A service: procedures with typed arguments, called by name from any enclave. C++ values travel as
// CBOR (RFC 8949), by way of nlohmann/json. A service describes itself. docs/FABRIC.md.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/json.h"
#include "ipc/command_queue.h"

namespace hobbes {

/// The JSON Schema (2020-12) of what a type becomes. A type of one's own may have `static Json
/// schema()`; without it, it is "object".
template <class T>
Json schema_of() {
  if constexpr (std::is_same_v<T, Json>) {
    return Json::object();
  } else if constexpr (std::is_same_v<T, bool>) {
    return {{"type", "boolean"}};
  } else if constexpr (std::is_integral_v<T>) {
    return {{"type", "integer"}};
  } else if constexpr (std::is_floating_point_v<T>) {
    return {{"type", "number"}};
  } else if constexpr (std::is_convertible_v<T, std::string>) {
    return {{"type", "string"}};
  } else if constexpr (requires { T::schema(); }) {
    return T::schema();
  } else if constexpr (requires { typename T::mapped_type; }) {
    return {{"type", "object"}, {"additionalProperties", schema_of<typename T::mapped_type>()}};
  } else if constexpr (requires(T t) {
                         t.begin();
                         typename T::value_type;
                       }) {
    return {{"type", "array"}, {"items", schema_of<typename T::value_type>()}};
  } else {
    return {{"type", "object"}};
  }
}

/// What a value is in a message, and back. Errors: Code::invalid, Code::corrupt.
Bytes to_cbor(const Json& value);
Result<Json> from_cbor(const Bytes& bytes, const std::string& what);
template <class T>
Result<T> value_of(const Json& json, const std::string& what) {
  try {
    return json.get<T>();
  } catch (const std::exception& e) {
    return Error{Code::invalid, "read " + what, e.what(), "see the service's schema"};
  }
}

/// Procedures under one name. One thread at a time, but for stop().
class Service {
 public:
  struct About {
    std::string description;
    Json arguments, result;  ///< JSON Schemas; null: not told
  };
  /// Of a procedure: answers the command, now or later.
  using Handler = std::function<void(ServerCall call, Json arguments)>;

  /// Errors: those of Listener::open.
  static Result<Service> open(const std::string& name, const Listener::Options& options = {});

  /// A procedure in full: it may answer later, in parts, or not at all.
  void add_procedure(const std::string& procedure, About about, Handler handler);
  /// A procedure of bytes (C): its arguments are not read.
  void add_bytes(const std::string& procedure, About about, CommandServer::Handler handler);
  /// A function of one argument, which returns a value or a Result. Exceptions become errors.
  template <class Function>
  void add(const std::string& procedure, const std::string& description, Function function) {
    add_function(procedure, description, std::function(std::move(function)));
  }

  Result<void> serve(std::chrono::milliseconds patience) { return server_->serve(patience); }
  void stop() { server_->stop(); }
  [[nodiscard]] CommandServer& commands() { return *server_; }

 private:
  explicit Service(CommandServer server);
  template <class R>
  struct Value {
    using type = R;
    static constexpr bool is_result = false;
  };
  template <class R>
  struct Value<Result<R>> {
    using type = R;
    static constexpr bool is_result = true;
  };
  template <class R>
  static void answer(ServerCall& call, R&& result) {
    using Plain = std::decay_t<R>;
    if constexpr (Value<Plain>::is_result) {
      if (!result) return call.fail(result.error());
      if constexpr (std::is_void_v<typename Value<Plain>::type>)
        call.reply(to_cbor(nullptr));
      else
        call.reply(to_cbor(Json(*result)));
    } else {
      call.reply(to_cbor(Json(result)));
    }
  }
  template <class R, class A>
  void add_function(const std::string& procedure, const std::string& description,
                    std::function<R(A)> function) {
    using Argument = std::decay_t<A>;
    using Out = typename Value<R>::type;
    About about{description, schema_of<Argument>(), nullptr};
    if constexpr (std::is_void_v<Out>)
      about.result = {{"type", "null"}};
    else
      about.result = schema_of<Out>();
    add_procedure(
        procedure, std::move(about),
        [procedure, function = std::move(function)](ServerCall call, Json arguments) {
          auto argument = value_of<Argument>(arguments, "the arguments of '" + procedure + "'");
          if (!argument) return call.fail(argument.error());
          try {
            if constexpr (std::is_void_v<R>) {
              function(std::move(*argument));
              call.reply(to_cbor(nullptr));
            } else {
              answer(call, function(std::move(*argument)));
            }
          } catch (const std::exception& e) {
            call.fail({Code::os, "run '" + procedure + "'", e.what(), "see the service's log"});
          }
        });
  }

  struct Table;
  std::shared_ptr<Table> table_;
  std::unique_ptr<CommandServer> server_;
};

/// Calls procedures of one service. One thread at a time.
class ServiceClient {
 public:
  using milliseconds = std::chrono::milliseconds;
  explicit ServiceClient(CommandClient client) : client_(std::move(client)) {}
  /// Errors: those of Channel::connect.
  static Result<ServiceClient> connect(const std::string& name, const ConnectOptions& options = {},
                                       milliseconds patience = milliseconds(0));

  /// One call and its answer. Errors: the service's own, Code::timeout, Code::unavailable,
  /// Code::invalid for an answer that is no `R`.
  template <class R = Json, class A = Json>
  Result<R> call(const std::string& procedure, const A& arguments,
                 milliseconds timeout = milliseconds(30000)) {
    HOBBES_TRY(answer, call_json(procedure, Json(arguments), timeout));
    if constexpr (std::is_same_v<R, Json>)
      return answer;
    else
      return value_of<R>(answer, "the answer of '" + procedure + "'");
  }
  /// One call that is answered in parts; the last answer is returned.
  Result<Json> stream(const std::string& procedure, const Json& arguments,
                      const std::function<void(Json)>& part, milliseconds timeout);
  [[nodiscard]] CommandClient& commands() { return client_; }

 private:
  Result<Json> call_json(const std::string& procedure, const Json& arguments, milliseconds timeout);
  CommandClient client_;
};

/// The procedure that every service has: {"name", "procedures": {NAME: {"description", "arguments",
/// "result"}}}.
inline constexpr const char* describe_procedure = "describe";

}  // namespace hobbes
