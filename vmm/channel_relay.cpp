#include "vmm/channel_relay.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "abi/channel.h"
#include "ipc/client.h"
#include "vmm/relay.h"

namespace hobbes::vmm {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t listener_limit = 32;
constexpr std::size_t channels_most = 36;   // places of the window are left for segments
constexpr std::ptrdiff_t waiting_most = 8;  // of one listener
constexpr std::chrono::seconds introduction_limit(30);

Result<Message> ask_manager(const std::string& op, Json request) {
  HOBBES_TRY(client, Client::connect(false));
  return client.call(op, std::move(request), {}, manager_limit);
}

// What the guest chooses of a request, and nothing else.
Json only(const Json& request, std::initializer_list<const char*> fields) {
  Json out = Json::object();
  for (const char* field : fields)
    if (request.contains(field)) out[field] = request[field];
  return out;
}

// Of a pipe or a stream: false at its end. One who rings without end holds nobody up.
bool drain(const Fd& fd) {
  char said[4096];
  ssize_t n = ::read(fd.get(), said, sizeof said);
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace

ChannelRelay::~ChannelRelay() {
  while (!listeners_.empty()) end(listeners_.begin());
  for (auto& channel : channels_) {
    loop_.unwatch(channel.stream.get());
    if (!channel.peer_ended) loop_.unwatch(channel.hears.get());
    WindowPlaces::unmap(channel.place);
  }
}

bool ChannelRelay::answers(const std::string& op) {
  return op == "channel.connect" || op == "channel.take" || op == "name.publish" || op == "self";
}

void ChannelRelay::serve(const Json& request, Fd stream) {
  const std::string op = text_at(request, "op");
  FrameStream asker(Fd(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0)));
  auto answer = [&]() -> Result<Json> {
    if (op == "self") {
      HOBBES_TRY(self, ask_manager("self", Json::object()));
      return std::move(self.body);
    }
    if (op == "channel.connect") {
      HOBBES_TRY(introduction,
                 ask_manager("channel.connect", only(request, {"name", "scope", "owner"})));
      return begin(std::move(introduction), std::move(stream));
    }
    if (op == "channel.take") {
      auto at = introductions_.find(static_cast<std::uint64_t>(number_at(request, "id")));
      if (at == introductions_.end())
        return Error{Code::not_found, "take a channel", "nobody waits under that number", ""};
      Message introduction = std::move(at->second.introduction);
      introductions_.erase(at);
      return begin(std::move(introduction), std::move(stream));
    }
    HOBBES_CHECK(listen(request, std::move(stream)));
    return Json{{"handle", listeners_.back().handle}};
  }();
  (void)asker.send(answer ? *answer : Json{{"error", to_json(answer.error())}});
}

Result<Json> ChannelRelay::begin(Message introduction, Fd stream) {
  const std::string attempt = "show a channel to the guest";
  if (channels_.size() >= channels_most)
    return Error{Code::exhausted, attempt, "the guest has " + std::to_string(channels_most),
                 "close some"};
  if (introduction.fds.size() != 3)
    return Error{Code::corrupt, attempt, "its memory did not come with it", ""};
  struct stat info {};
  if (::fstat(introduction.fds[0].get(), &info) != 0) return os_error(attempt, errno);
  const auto size = static_cast<std::uint64_t>(info.st_size);
  void* host =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, introduction.fds[0].get(), 0);
  if (host == MAP_FAILED) return os_error(attempt, errno);
  auto place = places_.show(host, size, false, attempt);
  if (!place) {
    ::munmap(host, size);
    return std::move(place).error();
  }
  (void)::fcntl(stream.get(), F_SETFL, O_NONBLOCK);
  channels_.push_back(
      {std::move(stream), std::move(introduction.fds[1]), std::move(introduction.fds[2]), *place});
  auto channel = std::prev(channels_.end());
  auto watched = loop_.watch(channel->stream.get(), EPOLLIN | EPOLLRDHUP,
                             [this, channel](auto) { heard_from_guest(channel); });
  if (watched) {
    watched = loop_.watch(channel->hears.get(), EPOLLIN,
                          [this, channel](auto) { heard_from_peer(channel); });
    if (!watched) loop_.unwatch(channel->stream.get());
  }
  if (!watched) {
    if (places_.hide(channel->place)) channels_.erase(channel);
    return std::move(watched).error();
  }
  Json out = only(introduction.body, {"enclave", "pid", "uid", "gid"});
  out["address"] = channel->place.address();
  out["size"] = size;
  return out;
}

void ChannelRelay::heard_from_guest(Channels::iterator channel) {
  if (!drain(channel->stream)) return end(channel);
  (void)!::write(channel->rings.get(), "!", 1);
}

void ChannelRelay::heard_from_peer(Channels::iterator channel) {
  if (!drain(channel->hears)) {
    // The guest's end learns it as from a peer that has closed, and reads what is left.
    auto* header = static_cast<hobbes_channel_header*>(channel->place.host);
    for (hobbes_channel_ring& ring : header->ring)
      __atomic_store_n(&ring.closed, 1U, __ATOMIC_SEQ_CST);
    loop_.unwatch(channel->hears.get());
    channel->peer_ended = true;
  }
  send_wake_up(channel->stream);
}

void ChannelRelay::end(Channels::iterator channel) {
  loop_.unwatch(channel->stream.get());
  if (!channel->peer_ended) loop_.unwatch(channel->hears.get());
  channel->stream.reset();
  channel->hears.reset();
  channel->rings.reset();  // tells the peer
  if (places_.hide(channel->place)) channels_.erase(channel);
}

Result<void> ChannelRelay::listen(const Json& request, Fd stream) {
  const std::string attempt = "listen as '" + text_at(request, "name") + "'";
  if (text_at(request, "kind") != "service")
    return Error{Code::unsupported, attempt,
                 "programs of a virtual machine publish services, no more",
                 "publish it outside of the machine"};
  if (listeners_.size() >= listener_limit)
    return Error{Code::exhausted, attempt, "too many programs of the guest listen", ""};
  HOBBES_TRY(published,
             ask_manager("name.publish", only(request, {"name", "kind", "scope", "mode", "ring"})));
  if (published.fds.size() != 2) return Error{Code::corrupt, attempt, "no queue came with it", ""};
  listeners_.push_back({FrameStream(std::move(stream)), MessageSocket(std::move(published.fds[0])),
                        std::move(published.fds[1]),
                        static_cast<std::uint64_t>(number_at(published.body, "handle"))});
  auto listener = std::prev(listeners_.end());
  auto watched = loop_.watch(listener->stream.fd(), EPOLLIN | EPOLLRDHUP,
                             [this, listener](auto) { end(listener); });
  if (watched) {
    watched =
        loop_.watch(listener->inbox.fd(), EPOLLIN, [this, listener](auto) { introduce(listener); });
    if (!watched) loop_.unwatch(listener->stream.fd());
  }
  if (!watched) {
    (void)ask_manager("name.withdraw", {{"handle", listener->handle}});
    listeners_.erase(listener);
  }
  return watched;
}

void ChannelRelay::introduce(Listeners::iterator listener) {
  auto introduction = listener->inbox.receive(milliseconds(0));
  if (!introduction) return;
  // What the guest has not fetched by now it will not; who connected learns it by its pipe.
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(introductions_,
                [&](const auto& one) { return now - one.second.since > introduction_limit; });
  const auto waiting =
      std::count_if(introductions_.begin(), introductions_.end(),
                    [&](const auto& one) { return one.second.listener == listener->handle; });
  if (waiting >= waiting_most || channels_.size() >= channels_most) return;
  const std::uint64_t id = next_++;
  introductions_.emplace(id, Waiting{std::move(*introduction), listener->handle, now});
  if (!listener->stream.send({{"id", id}})) introductions_.erase(id);
}

void ChannelRelay::end(Listeners::iterator listener) {
  loop_.unwatch(listener->stream.fd());
  loop_.unwatch(listener->inbox.fd());
  (void)ask_manager("name.withdraw", {{"handle", listener->handle}});
  std::erase_if(introductions_,
                [&](const auto& one) { return one.second.listener == listener->handle; });
  listeners_.erase(listener);
}

}  // namespace hobbes::vmm
