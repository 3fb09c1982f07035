#include "hobbesd/exit_events.h"

#include <arpa/inet.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>

namespace hobbes {
namespace {

constexpr std::size_t subscription_size = NLMSG_LENGTH(sizeof(cn_msg) + sizeof(proc_cn_mcast_op));
// PROC_EVENT_EXIT; linux/cn_proc.h has it in different scopes before and since Linux 6.6.
constexpr std::uint32_t process_ended = 0x80000000;
constexpr std::uint32_t event_at = NLMSG_HDRLEN + sizeof(cn_msg);

// Only ends of whole processes wake us, not every fork, execve and thread of the node.
Result<void> pass_only_ends(const Fd& fd) {
  constexpr std::uint32_t data_at = event_at + offsetof(proc_event, event_data);
  // BPF loads in network order.
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, event_at + offsetof(proc_event, what)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(process_ended), 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, data_at),  // process_pid
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, data_at + sizeof(std::int32_t)),  // process_tgid
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0)
    return os_error("filter the events of processes", errno);
  return {};
}

// Asks the kernel for events of processes, or for no more.
bool ask(const Fd& fd, proc_cn_mcast_op what) {
  alignas(NLMSG_ALIGNTO) char request[subscription_size] = {};
  nlmsghdr head{};
  head.nlmsg_len = subscription_size;
  head.nlmsg_type = NLMSG_DONE;
  cn_msg message{};
  message.id = {CN_IDX_PROC, CN_VAL_PROC};
  message.len = sizeof what;
  std::memcpy(request, &head, sizeof head);
  std::memcpy(request + NLMSG_HDRLEN, &message, sizeof message);
  std::memcpy(request + NLMSG_HDRLEN + sizeof message, &what, sizeof what);
  return ::send(fd.get(), request, sizeof request, 0) >= 0;
}

}  // namespace

Result<ExitEvents> ExitEvents::open() {
  const char* attempt = "listen for ended processes";
  Fd fd(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR));
  if (!fd) return os_error(attempt, errno);
  HOBBES_CHECK(pass_only_ends(fd));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = CN_IDX_PROC;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return os_error(attempt, errno);
  if (!ask(fd, PROC_CN_MCAST_LISTEN)) return os_error(attempt, errno);
  return ExitEvents(std::move(fd));
}

ExitEvents::~ExitEvents() {
  // Closing alone leaves older kernels (before Linux 6.6) telling events to nobody.
  if (fd_) (void)ask(fd_, PROC_CN_MCAST_IGNORE);
}

std::vector<std::pair<pid_t, int>> ExitEvents::take() const {
  std::vector<std::pair<pid_t, int>> out;
  alignas(NLMSG_ALIGNTO) char buffer[8192];
  for (int left = 4096; left > 0;
       --left) {  // more waits for the next turn: a storm of ends must not keep us here
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    ssize_t size = ::recvfrom(fd_.get(), buffer, sizeof buffer, 0,
                              reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0 && (errno == EINTR || errno == ENOBUFS)) continue;
    if (size <= 0) return out;
    if (from.nl_pid != 0) continue;  // only the kernel is believed
    proc_event event{};
    if (static_cast<std::size_t>(size) < event_at + offsetof(proc_event, event_data)) continue;
    std::memcpy(&event, buffer + event_at,
                std::min(sizeof event, static_cast<std::size_t>(size) - event_at));
    const auto& exit = event.event_data.exit;
    if (static_cast<std::uint32_t>(event.what) == process_ended &&
        exit.process_pid == exit.process_tgid)
      out.emplace_back(exit.process_tgid, static_cast<int>(exit.exit_code));
  }
  return out;
}

}  // namespace hobbes
