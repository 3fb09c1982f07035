#include "enclave/drivers/linux/id_mapping.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/file.h"
#include "core/process.h"

namespace hobbes {
namespace {

std::string map_text(const IdMaps& maps) {
  std::string out;
  for (const oci::IdMapping& map : maps)
    out += std::to_string(map.container_id) + " " + std::to_string(map.host_id) + " " +
           std::to_string(map.size) + "\n";
  return out;
}

Result<void> write_id_map(pid_t process, const char* file, const char* helper, const IdMaps& maps,
                          std::uint32_t own) {
  if (maps.empty()) return {};
  bool simple = maps.size() == 1 && maps[0].size == 1 && maps[0].host_id == own;
  if (::geteuid() == 0 || simple)
    return Files::system().write("/proc/" + std::to_string(process) + "/" + file, map_text(maps));
  Command command;
  command.argv = {helper, std::to_string(process)};
  for (const oci::IdMapping& map : maps)
    for (std::uint32_t number : {map.container_id, map.host_id, map.size})
      command.argv.push_back(std::to_string(number));
  auto outcome = run(command);
  if (outcome && outcome->good()) return {};
  return Error{Code::denied, std::string("map ids by ") + helper,
               outcome ? outcome->err : outcome.error().cause,
               "install it (Debian: uidmap) and have /etc/subuid and /etc/subgid grant the ids, or "
               "map only yourself"};
}

}  // namespace

Result<void> write_id_maps(pid_t process, const IdMaps& uids, const IdMaps& gids) {
  bool alone = gids.size() == 1 && gids[0].size == 1;
  if (::geteuid() != 0 && alone)
    HOBBES_CHECK(Files::system().write("/proc/" + std::to_string(process) + "/setgroups", "deny"));
  HOBBES_CHECK(write_id_map(process, "uid_map", "newuidmap", uids, ::geteuid()));
  return write_id_map(process, "gid_map", "newgidmap", gids, ::getegid());
}

std::uint32_t first_id(const IdMaps& maps) {
  bool root = maps.empty() || std::any_of(maps.begin(), maps.end(), [](const oci::IdMapping& map) {
                return map.container_id == 0;
              });
  return root ? 0 : maps.front().container_id;
}

Result<Fd> make_user_namespace(const IdMaps& uids, const IdMaps& gids) {
  clone_args args{};
  args.flags = CLONE_NEWUSER;
  args.exit_signal = SIGCHLD;
  const pid_t maker = ::getpid();
  auto holder = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
  // The holder lives until the namespace has a descriptor, and no longer than its maker.
  if (holder == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (::getppid() == maker) ::pause();
    ::_exit(0);
  }
  if (holder < 0) return os_error("make a user namespace", errno);
  auto take = [&]() -> Result<Fd> {
    HOBBES_CHECK(write_id_maps(holder, uids, gids));
    Fd space(
        ::open(("/proc/" + std::to_string(holder) + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
    if (!space) return os_error("open a new user namespace", errno);
    return space;
  };
  auto taken = take();
  ::kill(holder, SIGKILL);
  while (::waitpid(holder, nullptr, 0) < 0 && errno == EINTR) {
  }
  return taken;
}

}  // namespace hobbes
