// podman as a user of a private Hobbes node.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {

/// podman with its own storage and an image made of busybox, so that nothing is downloaded.
class Podman {
 public:
  explicit Podman(const Node& node) : node_(node) {
    node.wake_daemon();
    std::string f = node.folder();
    node.good({"sh", "-c",
               "mkdir -p " + f + "/image/bin " + f + "/image/etc && cp /bin/busybox " + f +
                   "/image/bin/ && for t in sh echo sleep cat id hostname env true stty; do ln -sf "
                   "busybox " +
                   f +
                   "/image/bin/$t; done; "
                   "printf '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' > " +
                   f + "/policy.json; tar -C " + f + "/image -cf " + f + "/image.tar ."});
    // conmon clears the environment, so the runtime is a wrapper that names the private node.
    EXPECT_TRUE(replace_file(f + "/hobbes-run",
                             "#!/bin/sh\nexport HOBBES_RUN_DIR=" + node.run_folder() +
                                 " HOBBES_STATE_DIR=" + f +
                                 "/state\nexec " HOBBES_BUILD_DIR "/bin/hobbes-run \"$@\"\n",
                             0755));
    EXPECT_TRUE(replace_file(f + "/containers.conf",
                             "[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger="
                             "\"file\"\nruntime=\"hobbes-run\"\nruntime_supports_json="
                             "[\"hobbes-run\"]\n[engine.runtimes]\nhobbes-run=[\"" +
                                 f +
                                 "/hobbes-run\"]\n[containers]\ndefault_ulimits=[\"nofile=1024:"
                                 "1024\",\"nproc=4096:4096\"]\n"));
    good("import " + f + "/image.tar box:1 2>/dev/null");
  }
  ~Podman() { (void)run("rm -af"); }
  Outcome run(const std::string& words) const {
    std::string f = node_.folder();
    return node_.run(
        {"sh", "-c",
         "CONTAINERS_CONF=" + f + "/containers.conf podman --root " + f + "/storage --runroot " +
             f + "/runroot --tmpdir " + f + "/tmp --storage-driver vfs " + words},
        150);
  }
  std::string good(const std::string& words) const {
    Outcome outcome = run(words);
    EXPECT_EQ(outcome.wait_status, 0) << words << "\n" << outcome.out << outcome.err;
    return outcome.out;
  }

 private:
  const Node& node_;
};

}  // namespace hobbes::test
