#include "vmm/agent/monitor.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sys/socket.h>

#include <cerrno>

#include "enclave/drivers/palacios/agent_connection.h"

namespace hobbes::agent {
namespace {

Result<AgentConnection> reach_monitor() {
  Fd host(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  // From a port that only root may have: the monitor hears nobody else.
  address.svm_cid = VMADDR_CID_ANY;
  for (address.svm_port = 1023;
       ::bind(host.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0;
       --address.svm_port)
    if (!host || errno != EADDRINUSE || address.svm_port == 512)
      return os_error("ask the monitor", errno);
  address.svm_cid = VMADDR_CID_HOST;
  address.svm_port = HOBBES_MONITOR_PORT;
  if (!host ||
      ::connect(host.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return os_error("ask the monitor", errno);
  return AgentConnection(std::move(host));
}

}  // namespace

Result<Json> ask_monitor(const Json& request) {
  HOBBES_TRY(monitor, reach_monitor());
  return monitor.ask(request, std::chrono::seconds(30));
}

Result<Opened> open_stream(const Json& request) {
  HOBBES_TRY(monitor, reach_monitor());
  HOBBES_TRY(answer, monitor.ask(request, std::chrono::seconds(30)));
  Opened out{std::move(answer), std::move(monitor).release()};
  if (::fcntl(out.stream.get(), F_SETFL, O_NONBLOCK) != 0)
    return os_error("ask the monitor", errno);
  return out;
}

Result<Json> ask_again(Opened& opened, const Json& request) {
  (void)::fcntl(opened.stream.get(), F_SETFL, 0);
  AgentConnection monitor(std::move(opened.stream));
  auto answer = monitor.ask(request, std::chrono::seconds(30));
  opened.stream = std::move(monitor).release();
  (void)::fcntl(opened.stream.get(), F_SETFL, O_NONBLOCK);
  return answer;
}

Result<Fd> connect_bell(Json request) {
  request["op"] = "bell";
  HOBBES_TRY(opened, open_stream(request));
  return std::move(opened.stream);
}

}  // namespace hobbes::agent
