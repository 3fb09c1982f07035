#include "xemem/pinned_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "core/file.h"

namespace hobbes {
namespace {

std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

// The mount a descriptor is on (proc(5), fdinfo), which the kernel knows without asking a file
// system.
std::string mount_of(const Fd& fd) {
  auto text = Files::system().read("/proc/self/fdinfo/" + std::to_string(fd.get()));
  std::size_t at = text ? text->find("mnt_id:") : std::string::npos;
  return at == std::string::npos ? "" : text->substr(at, text->find('\n', at) - at);
}

// One for normal pages, one for each size of huge pages the kernel has.
const std::vector<std::string>& memory_mounts() {
  static const std::vector<std::string> mounts = [] {
    std::vector<std::string> out;
    for (unsigned flags : {0U, MFD_HUGETLB | MFD_HUGE_2MB, MFD_HUGETLB | MFD_HUGE_1GB})
      if (Fd probe(::memfd_create("probe", MFD_CLOEXEC | flags)); probe)
        out.push_back(mount_of(probe));
    return out;
  }();
  return mounts;
}

}  // namespace

Result<Fd> open_memory_of(pid_t pid, int number) {
  const std::string attempt = "take the memory behind descriptor " + std::to_string(number) +
                              " of process " + std::to_string(pid);
  const Error refusal{Code::invalid, attempt, "it is not memory sealed against shrinking",
                      "make it with memfd_create and F_SEAL_SHRINK"};
  Fd pin(::open(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(number)).c_str(),
                O_PATH | O_CLOEXEC));
  if (!pin) return os_error(attempt, errno);
  const auto& mounts = memory_mounts();
  if (std::find(mounts.begin(), mounts.end(), mount_of(pin)) == mounts.end()) return refusal;
  Fd out(::open(path_of(pin).c_str(), O_RDWR | O_CLOEXEC));
  if (!out) return os_error(attempt, errno);
  int seals = ::fcntl(out.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return refusal;
  return out;
}

}  // namespace hobbes
