#include "core/standard_streams.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iostream>

namespace hobbes {

void prepare_standard_streams() {
  for (int stream = 0; stream < 3; ++stream) {
    int flags = ::fcntl(stream, F_GETFL);
    if (flags < 0) {
      (void)::open("/dev/null",
                   stream == 0 ? O_RDONLY : O_WRONLY);  // the lowest free number, which is this one
      continue;
    }
    if (stream == 0 || (flags & O_NONBLOCK) == 0) continue;
    // A description of our own: others may count on theirs not blocking.
    int again = ::open(("/proc/self/fd/" + std::to_string(stream)).c_str(),
                       O_WRONLY | O_CLOEXEC | O_NOCTTY | (flags & O_APPEND));
    if (again < 0) continue;
    (void)::dup2(again, stream);
    ::close(again);
  }
}

Result<void> flush_standard_output() {
  errno = 0;
  std::cout.flush();
  bool good = std::cout.good();
  good = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && good;
  if (good) return {};
  return os_error("write to standard output", errno != 0 ? errno : ENOSPC,
                  "what it was to say is not all there");
}

Result<void> OutputStream::flush_some() {
  while (!pending_.empty()) {
    pollfd room{fd_, POLLOUT, 0};
    if (::poll(&room, 1, 0) <= 0) return {};
    // A pipe that has room has room for so much, also when it would block.
    ssize_t n = ::write(fd_, pending_.data(), std::min<std::size_t>(pending_.size(), PIPE_BUF));
    if (n > 0) {
      pending_.erase(0, static_cast<std::size_t>(n));
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      failed_ = true;
      pending_.clear();
      return os_error(fd_ == STDERR_FILENO ? "write to standard error" : "write to standard output",
                      errno);
    } else {
      return {};
    }
  }
  return {};
}

}  // namespace hobbes
