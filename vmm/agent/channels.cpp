#include "vmm/agent/channels.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "core/window.h"
#include "enclave/drivers/palacios/agent_connection.h"
#include "vmm/agent/monitor.h"

namespace hobbes::agent {
namespace {

// Passes on each who connects. Ends with the listener or the monitor.
[[noreturn]] void introduce(Fd stream, Fd inbox) {
  (void)::fcntl(stream.get(), F_SETFL, 0);
  AgentConnection monitor(std::move(stream));
  MessageSocket listener(std::move(inbox));
  for (;;) {
    pollfd watched[2] = {{monitor.fd(), POLLIN, 0}, {listener.fd(), POLLIN, 0}};
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) break;
    if (watched[1].revents != 0) break;  // it says nothing: this is its end
    if (watched[0].revents == 0) continue;
    auto frame = monitor.receive(std::chrono::seconds(5));
    if (!frame) break;
    auto who = parse_json(frame->content, "who connects");
    if (!who) continue;
    auto channel = open_channel({{"op", "channel.take"}, {"id", number_at(*who, "id")}});
    if (!channel) continue;
    std::vector<int> fds;
    for (const Fd& fd : channel->fds) fds.push_back(fd.get());
    if (!listener.send(channel->body, fds)) break;
  }
  ::_exit(0);
}

}  // namespace

Result<Message> open_channel(const Json& request) {
  HOBBES_TRY(memory, open_physical_memory(true));
  HOBBES_TRY(opened, open_stream(request));
  Message out{std::move(opened.answer), {}};
  out.body["offset"] = number_at(out.body, "address");
  Fd rings(::fcntl(opened.stream.get(), F_DUPFD_CLOEXEC, 3));
  if (!rings) return os_error("open a channel", errno);
  out.fds.push_back(std::move(memory));
  out.fds.push_back(std::move(opened.stream));
  out.fds.push_back(std::move(rings));
  return out;
}

Result<Message> publish_service(const Json& request) {
  HOBBES_TRY(opened, open_stream(request));
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return os_error("listen", errno);
  Fd inbox(ends[0]), delivery(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return os_error("listen", errno);
  if (child == 0) {
    inbox.reset();
    if (::fork() != 0) ::_exit(0);
    introduce(std::move(opened.stream), std::move(delivery));
  }
  Message out{{{"handle", number_at(opened.answer, "handle")}}, {}};
  // On the node the second one is for a new hobbesd; here it is of no use.
  Fd copy(::fcntl(inbox.get(), F_DUPFD_CLOEXEC, 3));
  out.fds.push_back(std::move(inbox));
  out.fds.push_back(std::move(copy));
  return out;
}

}  // namespace hobbes::agent
