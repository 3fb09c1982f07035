#include "ipc/message_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace hobbes {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error{Code::invalid, "use socket " + path, "the path is longer than 107 characters",
                 "set HOBBES_RUN_DIR to a shorter one"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

Result<MessageSocket> MessageSocket::connect(const std::string& path) {
  HOBBES_TRY(address, address_of(path));
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return os_error("open a socket", errno);
  // A peer that is stopped, not dead, lets its queue fill up: neither connecting nor sending may
  // wait for it for ever.
  timeval limit{5, 0};
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ECONNREFUSED)
      return Error{Code::unavailable, "reach hobbesd at " + path, "nobody listens there",
                   "start hobbesd"};
    return os_error("reach hobbesd at " + path, errno,
                    "start hobbesd, or ask the administrator to");
  }
  return MessageSocket(std::move(fd));
}

Result<void> MessageSocket::send(const Json& body, const std::vector<int>& fds) {
  return send(body, fds, 0);
}
Result<void> MessageSocket::send_now(const Json& body, const std::vector<int>& fds) {
  return send(body, fds, MSG_DONTWAIT);
}

Result<void> MessageSocket::send(const Json& body, const std::vector<int>& fds, int flags) {
  std::string text = to_text(body);
  if (text.size() > message_limit)
    return Error{Code::invalid, "send a message",
                 "it has " + std::to_string(text.size()) + " bytes",
                 "at most " + std::to_string(message_limit) + " are allowed"};
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * message_fd_limit)] = {};
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t n = 0;
  do {
    n = ::sendmsg(fd_.get(), &header, MSG_NOSIGNAL | flags);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return os_error("send a message", errno);
  return {};
}

Result<Message> MessageSocket::receive(std::chrono::milliseconds deadline) {
  return receive(deadline, true);
}
Result<Message> MessageSocket::receive_without_descriptors(std::chrono::milliseconds deadline) {
  return receive(deadline, false);
}

Result<Message> MessageSocket::receive(std::chrono::milliseconds deadline, bool descriptors) {
  auto end = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                    end - std::chrono::steady_clock::now())
                    .count();
    pollfd ready{fd_.get(), POLLIN, 0};
    int n = ::poll(&ready, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, INT32_MAX)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error("wait for an answer", errno);
    if (n == 0)
      return Error{Code::timeout, "wait for an answer",
                   "none came within " + std::to_string(deadline.count()) + " ms",
                   "see whether hobbesd is alive with `hobbes node`"};
    break;
  }
  // First only its size: most messages are small, and the limit is not.
  msghdr look{};
  const ssize_t waiting = ::recvmsg(fd_.get(), &look, MSG_PEEK | MSG_TRUNC);
  if (!descriptors && waiting >= 0 && (look.msg_flags & MSG_CTRUNC) != 0)
    return Error{Code::denied, "receive a message", "it carries descriptors",
                 "name them by their numbers"};
  std::string text(std::min(static_cast<std::size_t>(std::max<ssize_t>(waiting, 0)), message_limit),
                   '\0');
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * message_fd_limit)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (descriptors) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
  }
  ssize_t n = 0;
  do {
    n = ::recvmsg(fd_.get(), &header, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return os_error("receive a message", errno);
  Message message;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      message.fds.emplace_back(fd);
    }
  }
  if (n == 0)
    return Error{Code::unavailable, "receive a message", "the other side closed the connection",
                 "see whether hobbesd is alive with `hobbes node`"};
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return Error{Code::invalid, "receive a message", "it is larger than allowed", ""};
  text.resize(static_cast<std::size_t>(n));
  HOBBES_TRY(body, parse_json(text, "a control message"));
  if (!body.is_object())
    return Error{Code::invalid, "receive a message", "it is no JSON object", ""};
  message.body = std::move(body);
  return message;
}

Result<Fd> listen_at(const std::string& path, mode_t mode, int type) {
  HOBBES_TRY(address, address_of(path));
  const auto* where = reinterpret_cast<const sockaddr*>(&address);
  Fd probe(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe && ::connect(probe.get(), where, sizeof address) == 0)
    return Error{Code::busy, "listen at " + path, "another process listens there",
                 "stop it, or set HOBBES_RUN_DIR to another folder"};
  ::unlink(path.c_str());
  Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return os_error("open a socket", errno);
  if (::bind(fd.get(), where, sizeof address) != 0 || ::chmod(path.c_str(), mode) != 0 ||
      ::listen(fd.get(), 512) != 0)
    return os_error("listen at " + path, errno);
  return fd;
}

}  // namespace hobbes
