// Errors as values. Every library function that can fail returns Result<T>; exceptions never cross
// a module border.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace hobbes {

/// What kind of failure it was; decides exit codes, HTTP status and the engine phrases of
/// `describe`.
enum class Code : std::uint8_t {
  invalid,      ///< the caller's input is wrong
  not_found,    ///< the named thing does not exist
  exists,       ///< the name is taken
  busy,         ///< the state of the thing forbids the operation
  denied,       ///< the caller may not
  exhausted,    ///< not enough cores, memory, quota or space
  unavailable,  ///< a needed service or kernel feature is missing
  unsupported,  ///< this build or node cannot do it
  timeout,      ///< a deadline passed
  corrupt,      ///< stored or shared data failed validation
  os,           ///< a system call failed
};

/// The stable lower-case name of a code, used in JSON.
const char* name_of(Code code);
/// The inverse of name_of; `os` for an unknown name.
Code code_named(std::string_view name);

/// A failure: what was attempted and on what, why it failed, and what to do about it.
struct Error {
  Code code = Code::os;
  std::string attempt;  ///< "create enclave 'a'"
  std::string cause;    ///< "the id is taken"
  std::string remedy;   ///< "choose another id"; may be empty

  /// One line for people: "cannot <attempt>: <cause>; <remedy>".
  [[nodiscard]] std::string text() const;
  /// The same error seen from a caller that attempted something larger.
  [[nodiscard]] Error within(std::string_view outer) &&;
};

/// An Error from errno; picks the code from the number.
[[nodiscard]] Error os_error(std::string attempt, int error_number, std::string remedy = {});

/// A value or an Error. Test with `operator bool`, then use `*r` or `r.error()`; reading the wrong
/// side is a bug.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T operator*() && {
    return std::get<0>(std::move(state_));
  }  // by value: `for (x : *f())` must not dangle
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  Error& error() & { return std::get<1>(state_); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }
  T value_or(T other) && { return *this ? std::get<0>(std::move(state_)) : std::move(other); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}

  explicit operator bool() const { return !failed_; }
  Error& error() & { return error_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

 private:
  Error error_;
  bool failed_ = false;
};

#define HOBBES_JOIN2(a, b) a##b
#define HOBBES_JOIN(a, b) HOBBES_JOIN2(a, b)
/// Declares `name` as the value of `expression`, or returns its error from the enclosing function.
#define HOBBES_TRY(name, expression)                                                     \
  auto HOBBES_JOIN(name, _result) = (expression);                                        \
  if (!HOBBES_JOIN(name, _result)) return std::move(HOBBES_JOIN(name, _result)).error(); \
  auto& name = *HOBBES_JOIN(name, _result)
/// Returns the error of `expression` from the enclosing function, if there is one.
#define HOBBES_CHECK(expression) \
  if (auto check_result = (expression); !check_result) return std::move(check_result).error()

}  // namespace hobbes
