// What a command tells beside its output: errors and warnings on standard error, and all of it in
// the file that --log names.
#pragma once
#include <string>

#include "core/json.h"

namespace hobbes {

enum class LogLevel { debug, info, warning, error };

struct LogSettings {
  std::string program;  ///< stands before each line on standard error
  std::string path;     ///< appended to; empty: none
  bool json = false;    ///< lines on standard error are JSON objects, as those below
  bool file_json =
      false;  ///< the file's lines are JSON objects with level, msg and time, else logfmt
  LogLevel least = LogLevel::warning;     ///< what is less important is dropped
  LogLevel file_least = LogLevel::error;  ///< likewise, of the file: engines take its lines for the
                                          ///< reason of a failure
};

/// Once at the start of a program, before it has threads.
void set_log(LogSettings settings);
/// Warnings and errors go to standard error and to the file; the rest to the file, or to standard
/// error where there is none. A file that cannot be written is ignored. Thread-safe. `more`: an
/// object, further fields of a JSON line.
void log(LogLevel level, const std::string& text, const Json& more = Json::object());

}  // namespace hobbes
