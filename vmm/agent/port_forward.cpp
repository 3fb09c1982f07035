#include "vmm/agent/port_forward.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "core/byte_relay.h"

namespace hobbes::agent {
namespace {

struct Listener {
  Fd socket;
  std::uint16_t port = 0;
};

Result<Listener> listen_on_loopback() {
  const std::string attempt = "listen on the guest's loopback";
  Listener out{Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!out.socket || ::bind(out.socket.get(), generic, size) != 0 ||
      ::listen(out.socket.get(), 1) != 0 || ::getsockname(out.socket.get(), generic, &size) != 0)
    return os_error(attempt, errno);
  out.port = ntohs(address.sin_port);
  return out;
}

// Nothing when the node has hung up before anybody has connected.
Fd accept_one(const Listener& listener, const Fd& node) {
  for (;;) {
    pollfd watched[2] = {{listener.socket.get(), POLLIN, 0}, {node.get(), POLLIN, 0}};
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) return {};
    if (watched[1].revents != 0) return {};
    Fd out(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (out) return out;
  }
}

}  // namespace

void forward_port(AgentConnection node) {
  auto listener = listen_on_loopback();
  if (!listener) {
    (void)node.send({{"error", to_json(listener.error())}});
    return;
  }
  if (!node.send({{"port", listener->port}})) return;
  Fd stream = std::move(node).release();
  Fd connection = accept_one(*listener, stream);
  listener->socket.reset();
  if (connection) relay_bytes(connection, stream);
}

}  // namespace hobbes::agent
