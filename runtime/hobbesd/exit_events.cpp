#include "hobbesd/exit_events.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace hobbes {
namespace {

constexpr std::size_t subscription_size = NLMSG_LENGTH(sizeof(cn_msg) + sizeof(proc_cn_mcast_op));

}  // namespace

Result<ExitEvents> ExitEvents::open() {
  const char* attempt = "listen for ended processes";
  Fd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR));
  if (!fd) return os_error(attempt, errno);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = CN_IDX_PROC;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return os_error(attempt, errno);
  alignas(NLMSG_ALIGNTO) char request[subscription_size] = {};
  nlmsghdr head{};
  head.nlmsg_len = subscription_size;
  head.nlmsg_type = NLMSG_DONE;
  cn_msg message{};
  message.id = {CN_IDX_PROC, CN_VAL_PROC};
  message.len = sizeof(proc_cn_mcast_op);
  proc_cn_mcast_op listen = PROC_CN_MCAST_LISTEN;
  std::memcpy(request, &head, sizeof head);
  std::memcpy(request + NLMSG_HDRLEN, &message, sizeof message);
  std::memcpy(request + NLMSG_HDRLEN + sizeof message, &listen, sizeof listen);
  if (::send(fd.get(), request, sizeof request, 0) < 0) return os_error(attempt, errno);
  return ExitEvents(std::move(fd));
}

std::vector<std::pair<pid_t, int>> ExitEvents::take() const {
  std::vector<std::pair<pid_t, int>> out;
  alignas(NLMSG_ALIGNTO) char buffer[8192];
  for (int left = 4096; left > 0; --left) {  // more waits for the next turn: a storm of ends must not keep us here
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    ssize_t size = ::recvfrom(fd_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0 && (errno == EINTR || errno == ENOBUFS)) continue;
    if (size <= 0) return out;
    if (from.nl_pid != 0) continue;  // only the kernel is believed
    constexpr std::size_t event_at = NLMSG_HDRLEN + sizeof(cn_msg);
    proc_event event{};
    if (static_cast<std::size_t>(size) < event_at + offsetof(proc_event, event_data)) continue;
    std::memcpy(&event, buffer + event_at, std::min(sizeof event, static_cast<std::size_t>(size) - event_at));
    const auto& exit = event.event_data.exit;
    if (event.what == proc_event::PROC_EVENT_EXIT && exit.process_pid == exit.process_tgid)
      out.emplace_back(exit.process_tgid, static_cast<int>(exit.exit_code));
  }
  return out;
}

}  // namespace hobbes
