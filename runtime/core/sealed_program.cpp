#include "core/sealed_program.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "core/fd.h"

namespace hobbes {
namespace {

constexpr int all_seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
constexpr char prefix[] = "/memfd:", suffix[] = " (deleted)";

// Tells the second execution where the first one came from; the kernel no longer does.
constexpr char place_variable[] = "HOBBES_PROGRAM_FILE";

std::string own_link() {
  char self[PATH_MAX];
  ssize_t n = ::readlink("/proc/self/exe", self, sizeof self);
  return n > 0 ? std::string(self, static_cast<std::size_t>(n)) : std::string();
}

std::string& mounted_file() {
  static std::string path;
  return path;
}

// A mount of the file alone. A container engine may make one, too, which is not out of reach; ours
// comes with the variable.
bool is_read_only_mount(int program) {
  struct statvfs options {};
  struct statx info {};
  return ::getenv(place_variable) != nullptr && ::fstatvfs(program, &options) == 0 &&
         (options.f_flag & ST_RDONLY) != 0 && ::statx(program, "", AT_EMPTY_PATH, 0, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

void take_place() {
  if (const char* named = ::getenv(place_variable)) mounted_file() = named;
  ::unsetenv(place_variable);
}

// This returns where such a mount cannot be made. Its only descriptor is closed by the execution,
// which takes the mount out of every namespace: nobody can make it writable again.
void continue_from_read_only_mount(char** argv, const std::string& file) {
  Fd mount(static_cast<int>(
      ::syscall(SYS_open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (!mount || ::syscall(SYS_mount_setattr, mount.get(), "", AT_EMPTY_PATH, &attributes,
                          sizeof attributes) != 0)
    return;
  ::setenv(place_variable, file.c_str(), 1);
  ::fexecve(mount.get(), argv, environ);
  ::unsetenv(place_variable);
}

bool is_sealed_copy(int program) {
  int seals = ::fcntl(program, F_GET_SEALS);  // -1 for what is no memory
  return seals >= 0 && (seals & all_seals) == all_seals;
}

// The end of what the loader maps. Section headers and debugging information come after it.
off_t loaded_size(int program) {
  Elf64_Ehdr head{};
  struct stat info {};
  if (::fstat(program, &info) != 0 || ::pread(program, &head, sizeof head, 0) != sizeof head)
    return 0;
  off_t end = 0;
  for (unsigned i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr part{};
    if (::pread(program, &part, sizeof part, static_cast<off_t>(head.e_phoff + i * sizeof part)) !=
        sizeof part)
      return info.st_size;
    if (part.p_type == PT_LOAD)
      end = std::max(end, static_cast<off_t>(part.p_offset + part.p_filesz));
  }
  return std::min(end, info.st_size);
}

}  // namespace

std::string program_file() {
  if (!mounted_file().empty()) return mounted_file();
  std::string link = own_link();
  std::size_t begin = sizeof prefix - 1, ends = sizeof suffix - 1;
  bool copy = link.rfind(prefix, 0) == 0 && link.size() > begin + ends;
  return copy ? link.substr(begin, link.size() - begin - ends) : link;
}

Result<void> continue_sealed(char** argv) {
  const std::string attempt = "continue as a program that enclaves cannot change";
  Fd program(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (!program) return os_error(attempt, errno, "mount proc at /proc");
  const bool mounted = is_read_only_mount(program.get());
  if (mounted) take_place();
  const std::string file = program_file();
  if (mounted || is_sealed_copy(program.get())) {
    // fexecve(3) names the process by the descriptor's number.
    (void)::prctl(PR_SET_NAME, file.c_str() + file.rfind('/') + 1);
    return {};
  }
  continue_from_read_only_mount(argv, file);
  Fd copy(::memfd_create(file.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!copy)
    return os_error(attempt, errno,
                    errno == EINVAL ? "install it at a path of at most 249 characters" : "");
  off_t size = loaded_size(program.get());
  for (off_t at = 0; at < size;)
    if (::sendfile(copy.get(), program.get(), &at, static_cast<std::size_t>(size - at)) <= 0)
      return os_error(attempt, errno);
  // The loader looks at no sections, and would not find them.
  Elf64_Ehdr head{};
  if (size == 0 || ::pread(copy.get(), &head, sizeof head, 0) != sizeof head)
    return Error{Code::corrupt, attempt, file + " is no ELF program", "install Hobbes completely"};
  head.e_shoff = 0;
  head.e_shnum = head.e_shstrndx = 0;
  if (::pwrite(copy.get(), &head, sizeof head, 0) != sizeof head ||
      ::fchmod(copy.get(), 0555) != 0 || ::fcntl(copy.get(), F_ADD_SEALS, all_seals) != 0)
    return os_error(attempt, errno);
  ::fexecve(copy.get(), argv, environ);
  return os_error(attempt, errno, "allow programs in memory: see /proc/sys/vm/memfd_noexec");
}

}  // namespace hobbes
