#include "vmm/frames.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "enclave/drivers/palacios/agent_connection.h"

namespace hobbes::vmm {

FrameStream::FrameStream(Fd stream) : stream_(std::move(stream)) {
  (void)::fcntl(stream_.get(), F_SETFL, O_NONBLOCK);
}

bool FrameStream::send(const Json& json) const {
  std::string text = framed(HOBBES_FRAME_JSON, to_text(json));
  return ::send(stream_.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

std::optional<std::vector<Json>> FrameStream::receive() { return take(16 * 1024); }

std::optional<std::vector<Json>> FrameStream::receive_one() {
  hobbes_frame head{};
  if (received_.size() < sizeof head) return take(sizeof head - received_.size());
  std::memcpy(&head, received_.data(), sizeof head);
  return take(std::min<std::size_t>(sizeof head + head.length - received_.size(), 16 * 1024));
}

std::optional<std::vector<Json>> FrameStream::take(std::size_t limit) {
  char data[16 * 1024];
  ssize_t n = ::recv(stream_.get(), data, limit, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return std::nullopt;
  if (n > 0) received_.append(data, static_cast<std::size_t>(n));
  std::vector<Json> out;
  for (;;) {
    hobbes_frame head{};
    if (received_.size() < sizeof head) return out;
    std::memcpy(&head, received_.data(), sizeof head);
    if (head.length > HOBBES_FRAME_LIMIT) return std::nullopt;
    if (received_.size() < sizeof head + head.length) return out;
    auto json = parse_json(received_.substr(sizeof head, head.length), "a frame");
    received_.erase(0, sizeof head + head.length);
    if (head.type != HOBBES_FRAME_JSON || !json || !json->is_object()) return std::nullopt;
    out.push_back(std::move(*json));
  }
}

Fd FrameStream::release() && {
  (void)::fcntl(stream_.get(), F_SETFL, 0);
  return std::move(stream_);
}

}  // namespace hobbes::vmm
