#include "enclave/drivers/linux/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "enclave/drivers/linux/mount.h"
#include "enclave/drivers/linux/rootfs.h"

namespace hobbes {

Result<Fd> connect_console(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return Error{Code::invalid, "connect to console socket '" + path + "'", "the path is empty or too long",
                 "give --console-socket, or set \"terminal\" to false"};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return os_error("connect to console socket " + path, errno);
  return fd;
}

Result<void> take_console(const Fd& socket, const std::optional<oci::ConsoleSize>& size, uid_t owner, bool at_dev_console) {
  Fd master(::open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) master.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) return os_error("open a pseudo-terminal", errno, "mount devpts at /dev/pts in the bundle");
  int unlock = 0;
  unsigned number = 0;
  if (::ioctl(master.get(), TIOCSPTLCK, &unlock) != 0 || ::ioctl(master.get(), TIOCGPTN, &number) != 0)
    return os_error("unlock the pseudo-terminal", errno);
  std::string name = "/dev/pts/" + std::to_string(number);
  // The other end of this very terminal, whatever its name leads to by now.
  Fd slave(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return os_error("open " + name, errno);
  (void)::fchown(slave.get(), owner, static_cast<gid_t>(-1));
  if (size) {
    winsize window{size->height, size->width, 0, 0};
    (void)::ioctl(slave.get(), TIOCSWINSZ, &window);
  }
  if (at_dev_console) {
    HOBBES_TRY(place, open_target("/", "/dev/console", true));
    HOBBES_TRY(terminal, Mount::clone(slave.get(), "", false));
    HOBBES_CHECK(terminal.attach(place, "the terminal at /dev/console"));
  }
  // The protocol of console sockets: the terminal's name as data, its master as SCM_RIGHTS.
  iovec part{name.data(), name.size()};
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
  int fd = master.get();
  std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  if (::sendmsg(socket.get(), &header, MSG_NOSIGNAL) < 0) return os_error("send the terminal to the console socket", errno);
  (void)::setsid();
  if (::ioctl(slave.get(), TIOCSCTTY, 0) != 0) return os_error("make " + name + " the controlling terminal", errno);
  for (int stream = 0; stream < 3; ++stream)
    if (::dup2(slave.get(), stream) < 0) return os_error("use " + name + " as standard stream", errno);
  return {};
}

}  // namespace hobbes
