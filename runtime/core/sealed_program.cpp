#include "core/sealed_program.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/fd.h"

namespace hobbes {
namespace {

constexpr int all_seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
constexpr char prefix[] = "/memfd:", suffix[] = " (deleted)";

std::string own_link() {
  char self[PATH_MAX];
  ssize_t n = ::readlink("/proc/self/exe", self, sizeof self);
  return n > 0 ? std::string(self, static_cast<std::size_t>(n)) : std::string();
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
  std::string link = own_link();
  std::size_t begin = sizeof prefix - 1, ends = sizeof suffix - 1;
  bool copy = link.rfind(prefix, 0) == 0 && link.size() > begin + ends;
  return copy ? link.substr(begin, link.size() - begin - ends) : link;
}

Result<void> continue_as_sealed_copy(char** argv) {
  const std::string attempt = "continue as a sealed copy of this program", file = program_file();
  Fd program(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (!program) return os_error(attempt, errno, "mount proc at /proc");
  if (is_sealed_copy(program.get())) {
    (void)::prctl(PR_SET_NAME,
                  file.c_str() + file.rfind('/') + 1);  // it would be the descriptor's number
    return {};
  }
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
