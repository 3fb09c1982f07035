// What this process's PMIx server gets to see of its connections: two functions of the C library
// that libpmix calls are replaced here, in all of this program.
//
// `accept`: the server's `native` security believes the user id that a TCP client sends, and
// clients that say nothing hold up everybody else; so strangers are turned away before the library
// sees them.
//
// `epoll_wait`: when several ranks die at once, libpmix 4.2 answers their pending collective once
// for each of them before it takes the collective off its list, and then uses freed memory
// (lost_connection and _mdxcbfunc in its sources). It gets one event at a time, so that each answer
// is finished before the next connection is looked at.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <sstream>
#include <string>

#include "core/fd.h"
#include "core/file.h"

namespace hobbes {
namespace {

// An address as proc(5) writes it in /proc/net/tcp.
std::string written(const sockaddr_in& address) {
  char text[16];
  std::snprintf(text, sizeof text, "%08X:%04X", address.sin_addr.s_addr, ntohs(address.sin_port));
  return text;
}

// Whether the socket at the other end is open and was made by this process's user. The kernel
// knows, whatever user namespace its process is in.
bool is_own(int connection) {
  sockaddr_in here{}, there{};
  socklen_t size = sizeof here, other = sizeof there;
  if (::getsockname(connection, reinterpret_cast<sockaddr*>(&here), &size) != 0 ||
      ::getpeername(connection, reinterpret_cast<sockaddr*>(&there), &other) != 0)
    return false;
  if (here.sin_family != AF_INET) return false;
  auto table = Files::system().read("/proc/net/tcp", 256 << 20);
  if (!table) return false;
  std::istringstream lines(*table);
  const std::string local = written(there), remote = written(here);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string number, from, to, state, queues, timer, retries, timeout;
    unsigned long uid = 0, inode = 0;
    if (!(words >> number >> from >> to >> state >> queues >> timer >> retries >> uid >> timeout >>
          inode))
      continue;
    // A socket that nobody has open any more has inode 0 and user 0, independent of the user who
    // made it.
    if (from == local && to == remote) return inode != 0 && uid == ::geteuid();
  }
  return false;
}

}  // namespace
}  // namespace hobbes

// Listening sockets of other families are none of PMIx's.
extern "C" int accept(int listening, sockaddr* address, socklen_t* size) {
  hobbes::Fd connection(
      static_cast<int>(::syscall(SYS_accept4, listening, nullptr, nullptr, SOCK_CLOEXEC)));
  if (!connection) return -1;
  int family = 0;
  socklen_t length = sizeof family;
  bool tcp = ::getsockopt(connection.get(), SOL_SOCKET, SO_DOMAIN, &family, &length) == 0 &&
             (family == AF_INET || family == AF_INET6);
  if (tcp && !hobbes::is_own(connection.get())) {
    errno = EAGAIN;  // as if nobody had come
    return -1;
  }
  if (address != nullptr && size != nullptr) (void)::getpeername(connection.get(), address, size);
  return connection.release();
}

extern "C" int epoll_wait(int epoll, epoll_event* events, int, int milliseconds) {
  return ::epoll_pwait(epoll, events, 1, milliseconds, nullptr);
}
