// The RPM, made by rpmbuild from this build tree, installed by rpm below a folder and used from
// there.
#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

// The programs below `root` find each other: this one starts its hobbesd and executes what a bundle
// says.
void expect_working(const Node& node, const std::string& root) {
  Outcome run = node.run({root + "/usr/bin/hobbes-run", "run", "--bundle",
                          node.busybox_bundle("b", "echo installed"), "a"});
  EXPECT_EQ(run.out, "installed\n") << run.err;
  EXPECT_NE(node.good({"readlink", "/proc/" + std::to_string(node.daemon()) + "/exe"})
                .find(root + "/usr/sbin/hobbesd"),
            std::string::npos);
}

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
  expect_working(node, root);
  // The module's sources are complete: this is what DKMS does with them.
  node.good({"sh", "-c",
             "set -e; cd " + root +
                 "/usr/src/hobbes-*; make -s -C $(ls -d /lib/modules/*/build | tail -1) M=$PWD "
                 "HOBBES_RUNTIME=$PWD modules; "
                 "test -s hobbes.ko"},
            120);
  node.expect_clean();
}

// Debian's, split as a distribution would: a file that no package has is an error of packaging/deb.
TEST(Package, TheDebsHoldAWorkingHobbes) {
  Node node;
  const std::string debs = node.folder() + "/debs", root = node.folder() + "/root";
  Outcome made = node.run({"env", "DPKG_DEB_COMPRESSOR_TYPE=none",
                           HOBBES_SOURCE_DIR "/packaging/deb", debs, HOBBES_BUILD_DIR},
                          200);
  ASSERT_EQ(made.wait_status, 0) << made.out << made.err;
  auto field = [&](const std::string& package, const std::string& name) {
    return node.good({"sh", "-c", "dpkg-deb -f " + debs + "/" + package + "_*.deb " + name});
  };
  EXPECT_NE(field("hobbes", "Depends").find("librocksdb"), std::string::npos);
  EXPECT_EQ(field("hobbes", "Depends").find("lammps"), std::string::npos) << "of the examples only";
  EXPECT_NE(field("python3-hobbes", "Depends").find("libhobbes0 (="), std::string::npos);
  EXPECT_EQ(field("hobbes-dkms", "Architecture"), "all\n");
  // The scripts are shell that can be read.
  node.good({"sh", "-c",
             "set -e; mkdir " + root + "; for deb in " + debs + "/*.deb; do dpkg-deb -e $deb " +
                 node.folder() + "/control; for script in postinst prerm postrm; do f=" +
                 node.folder() + "/control/$script; if [ -e $f ]; then sh -n $f; fi; done; rm -r " +
                 node.folder() + "/control; dpkg-deb -x $deb " + root + "; done"});
  expect_working(node, root);
  EXPECT_EQ(node.good({"env", "PYTHONPATH=" + root + "/usr/lib/python3/dist-packages",
                       "LD_LIBRARY_PATH=" + root + "/usr/lib", "/usr/bin/python3", "-c",
                       "import hobbes; print(len(list(hobbes.enclaves())))"}),
            "0\n");
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
