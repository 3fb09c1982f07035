#include "core/log.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/file.h"

namespace hobbes {
namespace {

LogSettings& settings() {
  static LogSettings instance;
  return instance;
}

const char* name_of(LogLevel level) {
  static constexpr const char* names[] = {"debug", "info", "warning", "error"};
  return names[static_cast<int>(level)];
}

// A logfmt value between quotation marks, on one line.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + "\"";
}

std::string line_of(LogLevel level, const std::string& text, const Json& more, bool json) {
  char when[32];
  std::time_t now = ::time(nullptr);
  std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  if (!json)
    return "time=\"" + std::string(when) + "\" level=" + name_of(level) + " msg=" + quoted(text) +
           "\n";
  Json line = {{"level", name_of(level)}, {"msg", text}, {"time", when}};
  line.update(more);
  return to_text(line) + "\n";
}

}  // namespace

void set_log(LogSettings given) { settings() = std::move(given); }

void log(LogLevel level, const std::string& text, const Json& more) {
  if (level < std::min(settings().least, settings().file_least)) return;
  bool important = level >= LogLevel::warning;
  if (level >= settings().least && (important || settings().path.empty())) {
    std::string prefix = settings().program + ": " +
                         (level == LogLevel::error ? "" : std::string(name_of(level)) + ": ");
    std::string line = settings().json ? line_of(level, text, more, true) : prefix + text + "\n";
    (void)write_all(STDERR_FILENO, line, "standard error");
  }
  if (settings().path.empty() || level < settings().file_least) return;
  Fd file(::open(settings().path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK,
                 0644));
  if (file)
    (void)write_all(file.get(), line_of(level, text, more, settings().file_json), settings().path);
}

}  // namespace hobbes
