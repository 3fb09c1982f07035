// The table of what the REST API answers, and how each request is answered. openapi.yaml describes
// the same table; a test compares them.
#pragma once
#include <httplib.h>

#include <functional>
#include <string>
#include <vector>

#include "api/server.h"
#include "core/result.h"
#include "ipc/peer.h"

namespace hobbes {

/// Who sent a request: the Unix peer, or the user a token stands for.
using Identify = std::function<Result<Peer>(const httplib::Request&)>;

struct RouteName {
  std::string method;  ///< "GET"
  std::string path;    ///< as in OpenAPI: "/v1/enclaves/{id}"
};

/// Every route, in the order they are tried.
std::vector<RouteName> route_names();
/// Adds them all to a server. `identify` and `dispatch` are called in the thread that serves the
/// request.
void add_routes(httplib::Server& server, const Identify& identify, const Dispatch& dispatch);
/// Where the OpenAPI document describes a kind of problem (RFC 9457, "type").
inline std::string problem_type(const std::string& code) {
  return "/openapi.yaml#/x-problems/" + code;
}
/// The OpenAPI document.
const char* openapi_text();

}  // namespace hobbes
