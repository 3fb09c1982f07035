#include "remora/progress_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace hobbes {

Result<ProgressFile> ProgressFile::make(const std::string& path, std::size_t ranks) {
  ProgressFile out;
  out.fd_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!out.fd_ ||
      ::ftruncate(out.fd_.get(), static_cast<off_t>(ranks * sizeof(remora_progress))) != 0)
    return os_error("make " + path, errno);
  return out;
}

remora_progress ProgressFile::of(std::size_t rank) const {
  remora_progress out{};
  const auto at = static_cast<off_t>(rank * sizeof out);
  if (::pread(fd_.get(), &out, sizeof out, at) != sizeof out) return {};
  return out;
}

}  // namespace hobbes
