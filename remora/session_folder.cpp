#include "remora/session_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "core/file.h"
#include "core/process.h"

namespace hobbes {
namespace {

// By name: the pid in it tells whether its maker lives.
void sweep() {
  auto names = Files::system().list("/dev/shm");
  if (!names) return;
  for (const std::string& name : *names) {
    int pid = 0;
    unsigned long long start = 0;
    struct stat info {};
    std::string path = "/dev/shm/" + name;
    if (std::sscanf(name.c_str(), "remora-%d-%llu-", &pid, &start) != 2 ||
        ::lstat(path.c_str(), &info) != 0)
      continue;
    if (info.st_uid == ::geteuid() && !ProcessId{pid, start}.alive()) (void)remove_tree(path);
  }
}

}  // namespace

Result<SessionFolder> SessionFolder::make(const std::string& composition) {
  sweep();
  SessionFolder out;
  auto self = ProcessId::of(::getpid());
  out.path_ = "/dev/shm/remora-" + std::to_string(::getpid()) + "-" +
              std::to_string(self ? self->start_ticks : 0) + "-" + composition;
  if (::mkdir(out.path_.c_str(), 0700) != 0)
    return os_error("make the composition's folder " + out.path_, errno);
  HOBBES_CHECK(make_directories(out.shared_memory(), 01777));
  ::chmod(out.shared_memory().c_str(), 01777);
  HOBBES_CHECK(make_directories(out.pmix(), 0700));
  HOBBES_CHECK(make_directories(out.bundles(), 0700));
  return out;
}

SessionFolder::~SessionFolder() {
  if (path_.empty()) return;
  (void)remove_tree(path_);
  (void)remove_tree(bundles());
}

}  // namespace hobbes
