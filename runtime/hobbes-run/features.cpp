// `features`: what this runtime and this node can do, in the runtime-spec's features format.
#include <iostream>

#include "bundle/mount_options.h"
#include "core/json.h"
#include "enclave/driver.h"
#include "hobbes-run/verbs.h"
#include "partition/cgroup.h"

namespace hobbes {

Result<int> features() {
  Json kinds = Json::object();
  for (Kind kind : {Kind::linux_, Kind::kitten, Kind::palacios}) {
    auto obstacle = driver_for(kind).obstacle();
    kinds[name_of(kind)] =
        obstacle
            ? Json{{"available", false}, {"why", obstacle->cause}, {"remedy", obstacle->remedy}}
            : Json{{"available", true}};
  }
  auto layout = CgroupLayout::detect();
  Json out = {
      {"ociVersionMin", "1.0.0"},
      {"ociVersionMax", "1.3.0"},
      {"hooks",
       {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}},
      {"mountOptions", known_mount_options()},
      {"linux",
       {{"namespaces", {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}},
        {"cgroup",
         {{"v1", layout && !layout->v1.empty()},
          {"v2", layout && !layout->v2.empty()},
          {"systemd", false},
          {"systemdUser", false}}},
        {"seccomp",
         {{"enabled", true},
          {"actions",
           {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP"}},
          {"operators",
           {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}},
          {"archs", {"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"}}}},
        {"apparmor", {{"enabled", true}}},
        {"selinux", {{"enabled", true}}},
        {"mountExtensions", {{"idmap", {{"enabled", true}}}}}}},
      {"annotations", {{"org.hobbes.version", HOBBES_VERSION}}},
      {"hobbes", {{"kinds", kinds}, {"cgroupMode", layout ? layout->mode() : "none"}}}};
  std::cout << to_text(out, 2) << "\n";
  return 0;
}

}  // namespace hobbes
