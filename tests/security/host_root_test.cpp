// A host-root enclave has the host's tree to read: what it must not have is the host itself, by its
// kernel's parameters or by its people's terminals.
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>

#include "attack.h"
#include "core/fd.h"

namespace hobbes::test {
namespace {

// What "core_pattern" names, the kernel runs as root.
TEST(HostRoot, AnEnclaveOfRootCannotChangeTheKernelsParameters) {
  Node node;
  std::string script = tell_writable(
      "/proc/sysrq-trigger $(find /proc/sys /proc/irq /proc/bus /proc/fs /proc/acpi -type f "
      "2>/dev/null)");
  std::string bundle = node.bundle("b", script);
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "own"}), "");
  edit(bundle, [](Json& config) { set_namespace(config, "pid", ""); });
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "hosts"}), "")
      << "the host's pid namespace";
  ASSERT_EQ(node.create("a", node.bundle("c", "exec sleep 1000")).wait_status, 0);
  node.good({"hobbes-run", "start", "a"});
  EXPECT_EQ(node.good({"hobbes-run", "exec", "a", "sh", "-c", script}), "");
  node.good({"hobbes-run", "delete", "--force", "a"});
}

// Somebody types a password at a terminal of the host.
TEST(HostRoot, AnEnclaveDoesNotReadTheHostsTerminals) {
  Node node;
  Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(master && ::grantpt(master.get()) == 0 && ::unlockpt(master.get()) == 0);
  char name[64];
  ASSERT_EQ(::ptsname_r(master.get(), name, sizeof name), 0);
  Fd slave(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(slave);
  std::string typed = "a password\n";
  ASSERT_EQ(::write(master.get(), typed.data(), typed.size()), static_cast<ssize_t>(typed.size()));
  std::string script = R"(python3 -c 'import os, select, sys
try: fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NOCTTY)
except OSError: sys.exit(0)
if select.select([fd], [], [], 2)[0]: print(os.read(fd, 100))' )" +
                       std::string(name);
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", node.bundle("b", script), "a"}), "");
}

}  // namespace
}  // namespace hobbes::test
