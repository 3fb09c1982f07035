#include "ipc/listener.h"

#include <utility>

#include "ipc/client.h"

namespace hobbes {

Result<Listener> Listener::open(const std::string& name, const Options& options) {
  HOBBES_TRY(client, Client::connect());
  HOBBES_TRY(answer, client.call("name.publish", {{"name", name},
                                                  {"kind", "service"},
                                                  {"scope", options.scope},
                                                  {"mode", options.mode},
                                                  {"ring", options.size}}));
  if (answer.fds.size() != 2)
    return Error{Code::corrupt, "listen as '" + name + "'", "no queue came with the answer",
                 "this process may have too many descriptors open"};
  Listener out;
  out.name_ = name;
  out.handle_ = static_cast<std::uint64_t>(number_at(answer.body, "handle"));
  out.inbox_ = std::move(answer.fds[0]);
  out.delivery_ = std::move(answer.fds[1]);
  return out;
}

Listener::Listener(Listener&& other) noexcept
    : name_(std::move(other.name_)),
      handle_(std::exchange(other.handle_, 0)),
      inbox_(std::move(other.inbox_)),
      delivery_(std::move(other.delivery_)) {}

Listener::~Listener() {
  if (handle_ == 0) return;
  if (auto client = Client::connect(false))
    (void)client->call("name.withdraw", {{"handle", handle_}});
}

Result<Channel> Listener::accept(std::chrono::milliseconds patience) {
  MessageSocket inbox(std::move(inbox_));
  auto introduction = inbox.receive(patience.count() < 0 ? std::chrono::hours(24 * 365) : patience);
  inbox_ = std::move(inbox).take();
  if (!introduction) return std::move(introduction.error()).within("accept as '" + name_ + "'");
  return Channel::of(std::move(*introduction), true);
}

}  // namespace hobbes
