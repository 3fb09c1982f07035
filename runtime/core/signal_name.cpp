#include "core/signal_name.h"

#include <signal.h>
#include <string.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "core/number.h"

namespace hobbes {

Result<int> signal_number(const std::string& text) {
  std::string name = text;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  if (name.rfind("SIG", 0) == 0) name = name.substr(3);
  auto count = [](const std::string& digits) {
    return static_cast<int>(whole_number(digits, NSIG).value_or(NSIG));
  };
  // 0 sends nothing and tells whether it could.
  if (int number = count(name); number < NSIG) return number;
  for (const auto& [other, number] :
       {std::pair{"IOT", SIGABRT}, std::pair{"CLD", SIGCHLD}, std::pair{"POLL", SIGIO}})
    if (name == other) return number;
  for (int number = 1; number < NSIG; ++number) {
    const char* known = ::sigabbrev_np(number);
    if (known != nullptr && name == known) return number;
  }
  // RTMIN, RTMIN+3, RTMAX-1 as kill(1) names them.
  if (name == "RTMIN" || name == "RTMAX") return name == "RTMIN" ? SIGRTMIN : SIGRTMAX;
  int beyond = name.size() > 6 ? count(name.substr(6)) : NSIG, most = SIGRTMAX - SIGRTMIN;
  if (name.rfind("RTMIN+", 0) == 0 && beyond <= most) return SIGRTMIN + beyond;
  if (name.rfind("RTMAX-", 0) == 0 && beyond <= most) return SIGRTMAX - beyond;
  return Error{Code::invalid, "send signal '" + text + "'", "there is no such signal",
               "use a name such as TERM or a number"};
}

}  // namespace hobbes
