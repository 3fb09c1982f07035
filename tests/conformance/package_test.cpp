// The RPM, made by rpmbuild from this build tree, installed by rpm below a folder and used from
// there.
#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

TEST(Package, TheRpmHoldsAWorkingHobbes) {
  Node node;
  std::string rpm = node.folder() + "/rpm", root = node.folder() + "/root";
  Outcome made = node.run({HOBBES_SOURCE_DIR "/packaging/rpm", rpm, HOBBES_BUILD_DIR}, 200);
  ASSERT_EQ(made.wait_status, 0) << made.err;
  node.good({"sh", "-c",
             "mkdir " + root + " && rpm --root " + root + " --nodeps --noscripts -i " + rpm +
                 "/RPMS/*/hobbes-*.rpm 2>&1"},
            120);

  EXPECT_NE(Files::system()
                .read(root + "/usr/lib/systemd/system/hobbesd.service")
                .value_or("")
                .find("ExecStart=/usr/sbin/hobbesd\n"),
            std::string::npos);
  // Its programs find each other: this one starts its hobbesd and executes what a bundle says.
  Outcome run = node.run({root + "/usr/bin/hobbes-run", "run", "--bundle",
                          node.busybox_bundle("b", "echo installed"), "a"});
  EXPECT_EQ(run.out, "installed\n") << run.err;
  EXPECT_NE(node.good({"readlink", "/proc/" + std::to_string(node.daemon()) + "/exe"})
                .find(root + "/usr/sbin/hobbesd"),
            std::string::npos);
  // The module's sources are complete: this is what DKMS does with them.
  node.good({"sh", "-c",
             "set -e; cd " + root +
                 "/usr/src/hobbes-*; make -s -C $(ls -d /lib/modules/*/build | tail -1) M=$PWD "
                 "HOBBES_RUNTIME=$PWD modules; "
                 "test -s hobbes.ko"},
            120);
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
