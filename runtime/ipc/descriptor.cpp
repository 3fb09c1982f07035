#include "ipc/descriptor.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace hobbes {

Result<Fd> connect_receiver(const std::string& path, const std::string& what,
                            const std::string& remedy) {
  const std::string attempt = "connect to " + what + " '" + path + "'";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return Error{Code::invalid, attempt, "the path is empty or too long", remedy};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{10, 0};
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return os_error(attempt, errno, remedy);
  return fd;
}

Result<void> send_descriptor(const Fd& socket, const std::string& text, const Fd& fd,
                             const std::string& what) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(rights), &number, sizeof number);
  const ssize_t sent = ::sendmsg(socket.get(), &header, MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(text.size())) return {};
  return os_error("send " + what, sent < 0 ? errno : EMSGSIZE,
                  "see whether its receiver reads the socket");
}

Result<ReceivedDescriptor> receive_descriptor(const Fd& listening, std::chrono::milliseconds limit,
                                              const std::string& what) {
  const std::string attempt = "receive " + what;
  auto await = [&](const Fd& fd) -> Result<void> {
    pollfd ready{fd.get(), POLLIN, 0};
    int n = ::poll(&ready, 1, static_cast<int>(limit.count()));
    if (n < 0) return os_error(attempt, errno);
    if (n == 0)
      return Error{Code::timeout, attempt,
                   "nothing came within " + std::to_string(limit.count()) + " ms", "try again"};
    return {};
  };
  HOBBES_CHECK(await(listening));
  Fd connection(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection) return os_error(attempt, errno);
  HOBBES_CHECK(await(connection));
  char text[16384];
  iovec part{text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t size = ::recvmsg(connection.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) return os_error(attempt, errno);
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  if (size == 0 || rights == nullptr || rights->cmsg_level != SOL_SOCKET ||
      rights->cmsg_type != SCM_RIGHTS)
    return Error{Code::corrupt, attempt, "no descriptor was sent", ""};
  int number = -1;
  std::memcpy(&number, CMSG_DATA(rights), sizeof number);
  return ReceivedDescriptor{Fd(number), std::string(text, static_cast<std::size_t>(size))};
}

}  // namespace hobbes
