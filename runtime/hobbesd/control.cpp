#include "hobbesd/control.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "core/process.h"

namespace hobbes {
namespace {
constexpr std::size_t connection_limit = 4096;
constexpr std::size_t connections_per_user = 256;
}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::make(Loop& loop, Manager& manager,
                                                           Fd listening) {
  std::unique_ptr<ControlServer> server(new ControlServer(loop, manager, std::move(listening)));
  ControlServer* raw = server.get();
  HOBBES_CHECK(loop.watch(raw->listening_.get(), [raw] { raw->accept_all(); }));
  return server;
}

void ControlServer::accept_all() {
  for (;;) {
    Fd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    auto connection = std::make_unique<Connection>(Connection{MessageSocket(std::move(fd)), {}});
    auto peer = connection->channel.peer();
    if (!peer) continue;
    std::size_t same = 0;
    for (const auto& [number, other] : connections_)
      same += other->session.peer.uid == peer->uid ? 1 : 0;
    if (connections_.size() >= connection_limit ||
        (peer->uid != 0 && same >= connections_per_user)) {
      Error error{Code::exhausted, "connect to hobbesd", "too many connections are open",
                  "close some"};
      (void)connection->channel.send({{"ok", false}, {"error", to_json(error)}});
      continue;
    }
    connection->session.peer = std::move(*peer);
    int number = connection->channel.fd();
    if (!loop_.watch(number, [this, number] { serve(number); })) continue;
    connections_[number] = std::move(connection);
  }
}

void ControlServer::serve(int fd) {
  auto at = connections_.find(fd);
  if (at == connections_.end()) return;
  Connection& connection = *at->second;
  auto message = connection.channel.receive_without_descriptors(std::chrono::milliseconds(0));
  if (!message) {
    if (message.error().code == Code::timeout) return;
    if (message.error().code == Code::invalid ||
        message.error().code ==
            Code::denied)  // a malformed request costs its sender nothing but an answer
      (void)connection.channel.send({{"ok", false}, {"error", to_json(message.error())}});
    if (message.error().code == Code::invalid) return;
    loop_.unwatch(fd);
    Session session = std::move(connection.session);
    if (message.error().code == Code::denied)
      if (auto closed = close_in_child(std::move(connection.channel).take()); !closed)
        spdlog::error("{}", closed.error().text());
    connections_.erase(at);
    manager_.leave(session);
    return;
  }
  auto reply = manager_.handle(connection.session, message->body);
  Json answer = reply ? std::move(reply->body) : Json{{"error", to_json(reply.error())}};
  answer["ok"] = static_cast<bool>(reply);
  std::vector<int> fds;
  if (reply)
    for (const Fd& one : reply->fds) fds.push_back(one.get());
  // A peer that does not read its answers fills only its own socket; the answer is dropped, not
  // waited for.
  if (auto sent = connection.channel.send(answer, fds); !sent)
    spdlog::debug("{}", sent.error().text());
}

}  // namespace hobbes
