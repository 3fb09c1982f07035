// The page that shows the node (docs/DASHBOARD.md): static files, compiled in. They hold nothing
// of the node; everything that they show they ask the REST API for.
#pragma once
#include <httplib.h>

#include <functional>

namespace hobbes {

/// Adds `GET /` and the files that it names. `enter` is asked before `/` is answered; when it
/// returns true it has answered itself. Every answer forbids other origins by a
/// Content-Security-Policy (W3C CSP Level 3).
void add_page(
    httplib::Server& server,
    const std::function<bool(const httplib::Request&, httplib::Response&)>& enter = nullptr);

}  // namespace hobbes
