#include "subscriber.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace hobbes::adios {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds look_again(1000), send_limit(5000);

}  // namespace

Subscriber::Subscriber(const std::string& name, milliseconds timeout)
    : channel_(hobbes_connect(name.c_str(), nullptr, static_cast<int>(timeout.count()))) {
  if (channel_ == nullptr) throw std::runtime_error(hobbes_error());
}

Subscriber::~Subscriber() { hobbes_channel_close(channel_); }

bool Subscriber::receive(milliseconds timeout) {
  Message message;
  const std::int64_t size =
      hobbes_receive(channel_, &message, sizeof message, static_cast<int>(timeout.count()));
  if (size == -EAGAIN) return false;
  if (size == sizeof message && message.kind == Message::step)
    steps_.push_back(message);
  else if (size == sizeof message && message.kind == Message::end)
    ended_ = true;
  else
    failed_ = true;
  return true;
}

Subscriber::Next Subscriber::next(bool newest, std::optional<milliseconds> timeout) {
  const auto due = timeout ? std::optional(Clock::now() + *timeout) : std::nullopt;
  auto over = [&] { return ended_ || failed_; };
  while (!over() && receive(milliseconds(0))) continue;
  while (steps_.empty() && !over()) {
    milliseconds wait = look_again;
    if (due) {
      const auto left = std::chrono::duration_cast<milliseconds>(*due - Clock::now());
      if (left.count() <= 0) return {Status::late, 0, {}};
      wait = std::min(wait, left);
    }
    (void)receive(wait);
  }
  if (steps_.empty()) return {ended_ ? Status::ended : Status::failed, 0, {}};
  while (newest && steps_.size() > 1) {
    release(steps_.front().number);
    steps_.pop_front();
  }
  const Message found = steps_.front();
  steps_.pop_front();
  return {Status::ready, found.number, found.place};
}

void Subscriber::release(std::uint64_t number) {
  const Message message{Message::release, 1, number, {}};
  // A writer that has ended needs to know nothing.
  (void)hobbes_send(channel_, &message, sizeof message, static_cast<int>(send_limit.count()));
}

}  // namespace hobbes::adios
