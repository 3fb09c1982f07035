// Server-sent events (WHATWG HTML, section 9.2) from the mirror's change log.
#pragma once
#include <httplib.h>

#include "core/result.h"

namespace hobbes {

/// Streams changes from Last-Event-ID (or from now on) until the client goes. 410 when that point
/// is already overwritten. At most `event_stream_limit` clients at once, of them `streams_per_user`
/// of one user other than root. Errors: Code::exhausted beyond that.
Result<void> stream_events(const httplib::Request& request, httplib::Response& response, uid_t uid);

inline constexpr int event_stream_limit = 16, streams_per_user = 4, streams_for_root = 4;

}  // namespace hobbes
