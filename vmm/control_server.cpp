#include "vmm/control_server.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <chrono>

namespace hobbes::vmm {

using std::chrono::milliseconds;

// The client that asked for the start may take this long to connect and to hear why it failed.
constexpr milliseconds failure_patience(1000);

ControlServer::~ControlServer() {
  for (const MessageSocket& client : clients_) loop_.unwatch(client.fd());
}

Result<void> ControlServer::begin() {
  return loop_.watch(listening_, EPOLLIN, [this](auto) { accept_one(); });
}

void ControlServer::accept_one() {
  int connection = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
  if (connection < 0) return;
  Fd accepted(connection);
  if (clients_.size() >= 64) return;
  clients_.emplace_back(std::move(accepted));
  auto client = std::prev(clients_.end());
  auto watched = loop_.watch(connection, EPOLLIN | EPOLLRDHUP, [this, client](auto) {
    auto request = client->receive(milliseconds(100));
    bool kept = request && answer(*client, *request);
    if (kept) return;
    loop_.unwatch(client->fd());
    starters_.remove(&*client);
    clients_.erase(client);
  });
  if (!watched) clients_.erase(client);
}

// False when the client is not worth keeping.
bool ControlServer::answer(MessageSocket& client, const Message& request) {
  if (text_at(request.body, "op") == "started" && waiting_) {
    starters_.push_back(&client);
    return true;
  }
  std::vector<Fd> out;
  auto done = act_(request.body, out);
  Json body = done ? *done : Json{{"error", to_json(done.error())}};
  body["ok"] = static_cast<bool>(done);
  std::vector<int> fds;
  for (const Fd& fd : out) fds.push_back(fd.get());
  return static_cast<bool>(client.send(body, fds));
}

void ControlServer::answer_starters(const std::optional<Error>& error) {
  for (MessageSocket* client : starters_) {
    Json body = {{"ok", !error}};
    if (error) body["error"] = to_json(*error);
    (void)client->send(body);
    answered_failure_ = answered_failure_ || error;
  }
  starters_.clear();
}

void ControlServer::started() {
  waiting_ = false;
  answer_starters({});
}

void ControlServer::failed(const Error& error) {
  answer_starters(error);
  const auto until = std::chrono::steady_clock::now() + failure_patience;
  while (!answered_failure_ && std::chrono::steady_clock::now() < until) {
    pollfd coming{listening_, POLLIN, 0};
    if (::poll(&coming, 1, 10) == 1) accept_one();
    for (auto client = clients_.begin(); client != clients_.end();) client = refuse(client, error);
  }
}

std::list<MessageSocket>::iterator ControlServer::refuse(std::list<MessageSocket>::iterator client,
                                                         const Error& error) {
  auto request = client->receive(milliseconds(0));
  if (!request && request.error().code == Code::timeout) return std::next(client);
  if (request) {
    (void)client->send({{"ok", false}, {"error", to_json(error)}});
    if (text_at(request->body, "op") == "started") answered_failure_ = true;
  }
  loop_.unwatch(client->fd());
  return clients_.erase(client);
}

}  // namespace hobbes::vmm
