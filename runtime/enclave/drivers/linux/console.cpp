#include "enclave/drivers/linux/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/beneath.h"
#include "enclave/drivers/linux/mount.h"
#include "ipc/descriptor.h"

namespace hobbes {

Result<Fd> connect_console(const std::string& path) {
  return connect_receiver(path, "the console socket",
                          "use --console-socket, or set \"terminal\" to false");
}

Result<void> take_console(const Fd& socket, const std::optional<oci::ConsoleSize>& size,
                          uid_t owner, bool at_dev_console) {
  Fd master(::open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) master.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master)
    return os_error("open a pseudo-terminal", errno, "mount devpts at /dev/pts in the bundle");
  int unlock = 0;
  unsigned number = 0;
  if (::ioctl(master.get(), TIOCSPTLCK, &unlock) != 0 ||
      ::ioctl(master.get(), TIOCGPTN, &number) != 0)
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
  HOBBES_CHECK(send_descriptor(socket, name, master, "the terminal to the console socket"));
  (void)::setsid();
  if (::ioctl(slave.get(), TIOCSCTTY, 0) != 0)
    return os_error("make " + name + " the controlling terminal", errno);
  for (int stream = 0; stream < 3; ++stream)
    if (::dup2(slave.get(), stream) < 0)
      return os_error("use " + name + " as standard stream", errno);
  return {};
}

}  // namespace hobbes
