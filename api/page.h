// The page that shows the node (docs/DASHBOARD.md): static files, compiled in. They hold nothing
// of the node; everything that they show they ask the REST API for.
#pragma once
#include <httplib.h>

namespace hobbes {

/// Adds `GET /` and the files that it names; they are answered to everybody. Every answer forbids
/// other origins by a Content-Security-Policy (W3C CSP Level 3).
void add_page(httplib::Server& server);

}  // namespace hobbes
