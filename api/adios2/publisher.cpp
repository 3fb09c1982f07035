#include "publisher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <vector>

namespace hobbes::adios {
namespace {

constexpr int retry_ms = 20;                          // of what a reader has no room for
constexpr std::chrono::milliseconds look_again(500);  // a wait has no other limit

}  // namespace

Publisher::Publisher(const std::string& name, const Options& options) : options_(options) {
  // Who may read a stream's segments may connect: "write" is the right to connect.
  hobbes_listen_options listen{};
  listen.mode = options.mode >> 1U & 0222U;
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) throw std::runtime_error("cannot make an eventfd for the stream '" + name + "'");
  listener_ = hobbes_listen(name.c_str(), &listen);
  if (listener_ == nullptr) {
    ::close(wake_);
    throw std::runtime_error(hobbes_error());
  }
  try {
    thread_ = std::thread([this] { serve(); });
  } catch (const std::exception&) {
    hobbes_listener_close(listener_);
    ::close(wake_);
    throw;
  }
}

Publisher::~Publisher() {
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  accept_all();  // readers that have come since are told of the end, too
  for (Reader& reader : readers_) hobbes_channel_close(reader.channel);
  hobbes_listener_close(listener_);
  ::close(wake_);
}

void Publisher::wake() const {
  const std::uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof one);
}

void Publisher::serve() {
  for (;;) {
    std::vector<pollfd> watched = {{wake_, POLLIN, 0},
                                   {hobbes_listener_descriptor(listener_), POLLIN, 0}};
    int timeout = -1;
    {
      std::lock_guard guard(lock_);
      if (stopping_) return;
      for (const Reader& reader : readers_) {
        watched.push_back({hobbes_channel_descriptor(reader.channel), POLLIN, 0});
        if (!reader.unsent.empty()) timeout = retry_ms;
      }
    }
    (void)::poll(watched.data(), watched.size(), timeout);
    std::uint64_t rung = 0;
    (void)!::read(wake_, &rung, sizeof rung);
    std::lock_guard guard(lock_);
    for (Reader& reader : readers_) {
      receive_from(reader);
      flush(reader);
    }
    remove_gone();
    accept_all();
    changed_.notify_all();
  }
}

void Publisher::accept_all() {
  while (hobbes_channel* channel = hobbes_accept(listener_, 0)) {
    readers_.emplace_back();
    readers_.back().channel = channel;
    receive_from(readers_.back());  // which also has the reader ring for what it sends from now on
    if (ended_) send_to(readers_.back(), {Message::end, 1, 0, {}});
  }
}

void Publisher::receive_from(Reader& reader) {
  constexpr int at_once = 1024;  // the others wait meanwhile
  for (int i = 0; i < at_once && !reader.gone; ++i) {
    Message message;
    const std::int64_t size = hobbes_receive(reader.channel, &message, sizeof message, 0);
    if (size == -EAGAIN) return;
    if (size == sizeof message && message.kind == Message::release)
      reader.holds.erase(message.number);
    else
      reader.gone = true;  // it has ended, or does not speak as readers do
  }
}

void Publisher::send_to(Reader& reader, const Message& message) {
  reader.unsent.push_back(message);
  flush(reader);
}

void Publisher::flush(Reader& reader) {
  while (!reader.gone && !reader.unsent.empty()) {
    const int sent = hobbes_send(reader.channel, &reader.unsent.front(), sizeof(Message), 0);
    if (sent == -EAGAIN) return;
    if (sent < 0) reader.gone = true;
    reader.unsent.pop_front();
  }
}

void Publisher::remove_gone() {
  for (auto at = readers_.begin(); at != readers_.end();) {
    if (!at->gone) {
      ++at;
      continue;
    }
    hobbes_channel_close(at->channel);
    at = readers_.erase(at);
  }
}

std::set<std::uint64_t> Publisher::held_locked() const {
  std::set<std::uint64_t> out;
  for (const Reader& reader : readers_)
    if (!reader.gone) out.insert(reader.holds.begin(), reader.holds.end());
  return out;
}

std::set<std::uint64_t> Publisher::held() {
  std::lock_guard guard(lock_);
  return held_locked();
}

bool Publisher::wait_for_readers(std::size_t count, std::chrono::milliseconds timeout) {
  std::unique_lock guard(lock_);
  return changed_.wait_for(guard, timeout, [&] { return readers_.size() >= count; });
}

bool Publisher::has_room() {
  std::unique_lock guard(lock_);
  auto room = [&] { return options_.queue == 0 || held_locked().size() < options_.queue; };
  if (options_.discard) return room();
  while (!changed_.wait_for(guard, look_again, room)) continue;
  return true;
}

void Publisher::publish(std::uint64_t number, const Place& description) {
  bool unsent = false;
  {
    std::lock_guard guard(lock_);
    for (Reader& reader : readers_) {
      if (reader.gone) continue;
      reader.holds.insert(number);
      send_to(reader, {Message::step, 1, number, description});
      unsent = unsent || !reader.unsent.empty() || reader.gone;
    }
  }
  if (unsent) wake();
}

bool Publisher::end(std::chrono::milliseconds timeout) {
  std::unique_lock guard(lock_);
  ended_ = true;
  for (Reader& reader : readers_) send_to(reader, {Message::end, 1, 0, {}});
  wake();
  return changed_.wait_for(guard, timeout, [&] {
    for (const Reader& reader : readers_)
      if (!reader.gone && !reader.unsent.empty()) return false;
    return held_locked().empty();
  });
}

}  // namespace hobbes::adios
