// Signals as people and programs write them.
#pragma once
#include <string>

#include "core/result.h"

namespace hobbes {

/// "TERM", "SIGTERM", "term", "15", "0" (which sends nothing), "RTMIN+3", "RTMAX-1", and the other
/// names of signal(7). Errors: Code::invalid.
Result<int> signal_number(const std::string& text);

}  // namespace hobbes
