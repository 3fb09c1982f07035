#include "enclave/drivers/palacios/archive.h"

#include <fcntl.h>
#include <fts.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "core/file.h"
#include "core/size.h"

namespace hobbes {
namespace {

class Packer {
 public:
  Packer(int out, std::uint64_t limit) : out_(out), limit_(limit) {}

  Result<void> add(const std::string& name, const struct stat& info, const std::string& source) {
    std::string link;
    Fd file;
    std::uint64_t size = 0;
    if (S_ISLNK(info.st_mode)) {
      HOBBES_TRY(target, read_link(source));
      link = target;
      size = link.size();
    } else if (S_ISREG(info.st_mode)) {
      file.reset(::open(source.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!file) return os_error("read " + source, errno);
      size = static_cast<std::uint64_t>(info.st_size);
    }
    if (size > limit_ - std::min(limit_, written_))
      return Error{Code::exhausted, "pack the root file system", "it is larger than " + format_size(limit_),
                   "raise memory.size, or use a disk image (vm.image)"};
    HOBBES_CHECK(head(name, info.st_mode, info.st_uid, info.st_gid, size));
    HOBBES_CHECK(write(link));
    char data[64 * 1024];
    for (std::uint64_t left = file ? size : 0; left > 0;) {
      ssize_t n = ::read(file.get(), data, std::min<std::uint64_t>(left, sizeof data));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Error{Code::os, "read " + source, "it became shorter meanwhile", "pack it again"};
      HOBBES_CHECK(write({data, static_cast<std::size_t>(n)}));
      left -= static_cast<std::uint64_t>(n);
    }
    return pad();
  }

  Result<void> end() {
    HOBBES_CHECK(head("TRAILER!!!", 0, 0, 0, 0));
    return pad();
  }

 private:
  Result<void> head(const std::string& name, mode_t mode, uid_t uid, gid_t gid, std::uint64_t size) {
    char text[128];
    std::snprintf(text, sizeof text, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ++inode_, mode, uid, gid, 1U, 0U,
                  static_cast<unsigned>(size), 0U, 0U, 0U, 0U, static_cast<unsigned>(name.size() + 1), 0U);
    HOBBES_CHECK(write(text));
    HOBBES_CHECK(write({name.c_str(), name.size() + 1}));
    return pad();
  }
  Result<void> write(std::string_view bytes) {
    written_ += bytes.size();
    return write_all(out_, bytes, "the archive");
  }
  Result<void> pad() { return write(std::string_view("\0\0\0", (4 - written_ % 4) % 4)); }

  int out_;
  std::uint64_t limit_, written_ = 0;
  unsigned inode_ = 0;
};

}  // namespace

Result<Fd> pack_tree(const std::string& folder, const std::string& prefix, std::uint64_t limit) {
  Fd out(::memfd_create("archive", MFD_CLOEXEC));
  if (!out) return os_error("pack " + folder, errno);
  Packer packer(out.get(), limit);
  char* roots[] = {const_cast<char*>(folder.c_str()), nullptr};
  std::unique_ptr<FTS, int (*)(FTS*)> walk(::fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr), ::fts_close);
  if (!walk) return os_error("pack " + folder, errno);
  while (FTSENT* entry = ::fts_read(walk.get())) {
    if (entry->fts_info == FTS_DP) continue;
    if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR || entry->fts_info == FTS_NS)
      return os_error("pack " + std::string(entry->fts_path), entry->fts_errno);
    mode_t type = entry->fts_statp->st_mode & static_cast<mode_t>(S_IFMT);
    if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK) continue;
    HOBBES_CHECK(packer.add(prefix + std::string(entry->fts_path + folder.size()), *entry->fts_statp, entry->fts_path));
  }
  HOBBES_CHECK(packer.end());
  return out;
}

}  // namespace hobbes
