// The class of CVE-2025-31133: what hides a path is /dev/null of the image, and the image's
// /dev/null is what its author likes.
#include <sys/sysmacros.h>

#include "attack.h"

namespace hobbes::test {
namespace {

// Tells what became of a masked path: what it is, what can be read, and whether it can be changed.
std::string look_at(const std::string& path) {
  return "busybox stat -c '%F %t:%T' " + path + "; busybox timeout 5 head -c 60 " + path + "; " +
         tell_writable(path);
}

// A mask is the null device, or something else that is empty and stays so.
void expect_masked(const Outcome& outcome, const std::string& what) {
  if (outcome.wait_status != 0) return;  // refused
  bool null_device = outcome.out == "character special file 1:3\n";
  bool empty_file = outcome.out == "regular empty file 0:0\n";
  EXPECT_TRUE(null_device || empty_file) << what << ": " << outcome.out;
}

std::string bundle_without_dev(const Node& node, const std::string& name) {
  std::string bundle = node.busybox_bundle(name, look_at("/proc/timer_list"), no_lease_writable());
  edit(bundle, [](Json& config) {
    keep_mounts(config, [](const std::string& at) { return at == "/proc"; });
  });
  EXPECT_TRUE(make_directories(bundle + "/rootfs/dev"));
  return bundle;
}

TEST(MaskDevice, AMaskIsTheNullDeviceWhateverTheImageHasUnderItsName) {
  Node node;
  std::string null = "/rootfs/dev/null";
  struct Case {
    std::string name;
    std::function<void(const std::string&)> plant;
  };
  auto link_to = [](const char* target) {
    return [=](const std::string& path) { EXPECT_EQ(::symlink(target, path.c_str()), 0); };
  };
  for (const Case& c : std::vector<Case>{
           {"file",
            [](const std::string& path) { EXPECT_TRUE(replace_file(path, "of the image\n")); }},
           {"link-to-file", link_to("/bin/busybox")},
           {"link-to-what-is-masked", link_to("/proc/timer_list")},
           {"link-to-kernel", link_to("/proc/self/environ")},
           {"random",
            [](const std::string& path) {
              EXPECT_EQ(::mknod(path.c_str(), S_IFCHR | 0666, makedev(1, 9)), 0);
            }},
           {"pipe", [](const std::string& path) { EXPECT_EQ(::mkfifo(path.c_str(), 0666), 0); }}}) {
    std::string bundle = bundle_without_dev(node, c.name);
    c.plant(bundle + null);
    expect_masked(node.run({"hobbes-run", "run", "--bundle", bundle, c.name}, 30), c.name);
  }
  node.expect_clean();
}

// The image has no part in this one: a neighbour changes a shared volume at /dev while the enclave
// is made.
TEST(MaskDevice, AMaskIsTheNullDeviceAlsoWhenItsNameIsSwappedMeanwhile) {
  Node node;
  std::string volume = node.folder() + "/volume";
  ASSERT_TRUE(make_directories(volume));
  ASSERT_EQ(::mknod((volume + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::symlink("/proc/timer_list", (volume + "/other").c_str()), 0);
  std::string bundle = bundle_without_dev(node, "b");
  edit(bundle, [&](Json& config) { config["mounts"].push_back(volume_at(volume, "/dev", "rw")); });
  Racer racer([&] { swap_names(volume + "/null", volume + "/other"); });
  for (int i = 0; i < 60 && !HasFailure(); ++i)
    expect_masked(node.run({"hobbes-run", "run", "--bundle", bundle, "a" + std::to_string(i)}),
                  "after " + std::to_string(i + 1) + " starts");
}

}  // namespace
}  // namespace hobbes::test
