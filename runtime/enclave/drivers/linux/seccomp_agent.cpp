#include "enclave/drivers/linux/seccomp_agent.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "bundles/oci.h"

namespace hobbes {

Result<Fd> connect_seccomp_agent(const std::string& path) {
  const std::string attempt = "connect to the seccomp agent " + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Error{Code::invalid, attempt, "the path is too long for a socket", ""};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return os_error(attempt, errno, "start the agent, or name its socket in linux.seccomp.listenerPath");
  return fd;
}

Result<void> give_seccomp_listener(const Fd& agent, const Fd& listener, const Json& state, const std::string& metadata) {
  Json process = {{"ociVersion", state["ociVersion"]}, {"fds", {"seccompFd"}}, {"pid", state["pid"]}, {"state", state}};
  if (!metadata.empty()) process["metadata"] = metadata;
  std::string text = to_text(process);
  iovec part{text.data(), text.size()};
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
  int fd = listener.get();
  std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  const timeval limit{10, 0};
  (void)::setsockopt(agent.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  ssize_t sent = ::sendmsg(agent.get(), &header, MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(text.size())) return {};
  return os_error("hand system calls to the seccomp agent", sent < 0 ? errno : EMSGSIZE, "see whether the agent reads its socket");
}

}  // namespace hobbes
