#include "ipc/peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/pidfd.h"
#include "core/process.h"

namespace hobbes {
namespace {

constexpr int so_peerpidfd = 77;  // asm-generic/socket.h of Linux 6.5

Fd pidfd_of(int socket, const Peer& peer) {
  int number = -1;
  socklen_t size = sizeof number;
  if (::getsockopt(socket, SOL_SOCKET, so_peerpidfd, &number, &size) == 0) return Fd(number);
  if (errno != ENOPROTOOPT) return Fd();  // the kernel knows it, and the process has ended
  Fd process = open_pidfd(peer.pid);
  if (process && !process_has_user(peer.pid, peer.uid)) process.reset();
  return process;
}

}  // namespace

Result<Peer> Peer::of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return os_error("ask who the peer is", errno);
  Peer out;
  out.uid = credentials.uid;
  out.gid = credentials.gid;
  out.pid = credentials.pid;
  size = 0;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &size) != 0 && errno == ERANGE) {
    out.groups.resize(size / sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, out.groups.data(), &size) != 0)
      return os_error("ask for the peer's groups", errno);
  }
  if (Fd process = pidfd_of(socket, out))
    out.process = std::make_shared<const Fd>(std::move(process));
  return out;
}

Result<pid_t> Peer::pid_of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return os_error("ask who the peer is", errno);
  return credentials.pid;
}

bool Peer::alive() const {
  if (!process) return false;
  pollfd ended{process->get(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 0;
}

bool Peer::shares_mount_namespace() const {
  struct stat ours {
  }, theirs{};
  std::string path = "/proc/" + std::to_string(pid) + "/ns/mnt";
  return ::stat("/proc/self/ns/mnt", &ours) == 0 && ::stat(path.c_str(), &theirs) == 0 &&
         ours.st_ino == theirs.st_ino && alive();
}

bool Peer::in_group(gid_t group) const {
  return gid == group || std::find(groups.begin(), groups.end(), group) != groups.end();
}

}  // namespace hobbes
