// The configurations that `hobbes-run spec` prints.
#include "bundle/bundle.h"

namespace hobbes {
namespace {

Json mount(const char* destination, const char* type, const char* source, Json options) {
  return {{"destination", destination},
          {"type", type},
          {"source", source},
          {"options", std::move(options)}};
}

Json linux_mounts() {
  return {
      mount("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}),
      mount("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
      mount("/dev/pts", "devpts", "devpts",
            {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}),
      mount("/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
      mount("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
      mount("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}),
  };
}

Json linux_example(bool host_root) {
  Json capabilities = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
                       "CAP_KILL",  "CAP_SETGID",       "CAP_SETUID"};
  Json config = {
      {"ociVersion", "1.3.0"},
      {"process",
       {{"terminal", false},
        {"user", {{"uid", 0}, {"gid", 0}}},
        {"args", {"sh", "-c", "echo hello from an enclave; nproc"}},
        {"env",
         {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}},
        {"cwd", "/"},
        {"capabilities",
         {{"bounding", capabilities}, {"effective", capabilities}, {"permitted", capabilities}}},
        {"noNewPrivileges", true}}},
      {"linux",
       {{"namespaces",
         {{{"type", "pid"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}}}}},
      {"hobbes",
       {{"kind", "linux"},
        {"cores", {{"count", 1}, {"policy", "compact"}}},
        {"memory", {{"size", "256MiB"}}}}},
  };
  if (host_root) {
    config["hobbes"]["root"] = "host";
    return config;
  }
  config["root"] = {{"path", "rootfs"}, {"readonly", true}};
  config["hostname"] = "enclave";
  config["mounts"] = linux_mounts();
  config["linux"]["namespaces"].push_back({{"type", "network"}});
  config["linux"]["maskedPaths"] = {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list",
                                    "/sys/firmware"};
  config["linux"]["readonlyPaths"] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                      "/proc/sysrq-trigger"};
  return config;
}

}  // namespace

Json example_config(Kind kind, bool host_root) {
  if (kind == Kind::linux_) return linux_example(host_root);
  if (kind == Kind::kitten) {
    // The sandbox of its program's calls, and the kernel beside it.
    Json config = linux_example(host_root);
    config["hobbes"]["kind"] = name_of(kind);
    config["hobbes"]["cores"] = {{"count", 2}, {"policy", "local"}};
    config["hobbes"]["memory"] = {{"size", "512MiB"}, {"pageSize", "2MiB"}};
    config["hobbes"]["image"] = {{"kernel", "kitten.img"}};
    return config;
  }
  return {
      {"ociVersion", "1.3.0"},
      {"process",
       {{"args", {"/app/simulate", "--steps", "100"}},
        {"cwd", "/"},
        {"env", {"OMP_NUM_THREADS=2"}}}},
      {"root", {{"path", "rootfs"}}},
      {"hobbes",
       {{"kind", name_of(kind)},
        {"cores", {{"count", 2}, {"policy", "compact"}}},
        {"memory", {{"size", "512MiB"}, {"pageSize", "2MiB"}}},
        {"image", {{"kernel", "vmlinuz"}, {"cmdline", "console=ttyS0"}}}}},
  };
}

}  // namespace hobbes
