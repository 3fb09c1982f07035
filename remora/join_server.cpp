#include "remora/join_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/membership.h"

namespace hobbes {
namespace {

// A caller that connects and says nothing holds up the composition for so long at most.
constexpr std::chrono::milliseconds caller_patience(200);

}  // namespace

Result<std::unique_ptr<JoinServer>> JoinServer::open(const std::string& composition,
                                                     EventLoop& loop, JoinHandler& handler) {
  std::string path = hosting_socket_path(::geteuid(), composition);
  HOBBES_TRY(listening, listen_at(path, 0600, SOCK_SEQPACKET));
  auto out = std::unique_ptr<JoinServer>(
      new JoinServer(std::move(path), std::move(listening), loop, handler));
  HOBBES_CHECK(loop.watch(out->listening_.get(), EPOLLIN,
                          [server = out.get()](std::uint32_t) { server->serve_one(); }));
  return out;
}

JoinServer::~JoinServer() {
  loop_.unwatch(listening_.get());
  ::unlink(path_.c_str());
}

void JoinServer::serve_one() {
  Fd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return;
  MessageSocket caller(std::move(fd));
  auto request = caller.receive_without_descriptors(caller_patience);
  auto peer = caller.peer();
  if (!request || !peer || peer->uid != ::geteuid()) return;
  Result<Json> reply = [&]() -> Result<Json> {
    try {
      return answer(*peer, request->body);
    } catch (const Json::exception& e) {
      return Error{Code::invalid, "answer a request to join", e.what(), "see docs/COMPOSITION.md"};
    }
  }();
  (void)caller.send(reply ? *reply : Json{{"error", to_json(reply.error())}});
}

Result<Json> JoinServer::answer(const Peer& caller, const Json& request) {
  const std::string operation = text_at(request, "op"), app = text_at(request, "app");
  const auto rank = static_cast<std::int64_t>(number_at(request, "rank", -1));
  if (operation == "join") return handler_.join(app);
  if (operation == "arrive") {
    HOBBES_CHECK(
        handler_.arrive(caller, app, rank, static_cast<std::int64_t>(number_at(request, "pid"))));
    return Json::object();
  }
  if (operation == "leave") {
    HOBBES_CHECK(handler_.leave(app, rank));
    return Json::object();
  }
  return Error{Code::invalid, "answer a request to join",
               "there is no operation '" + operation + "'", "see docs/COMPOSITION.md"};
}

}  // namespace hobbes
