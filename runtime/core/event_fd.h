// An event that one thread signals and another polls for (eventfd(2)).
#pragma once
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// A descriptor that polls readable from signal() until drain(). Both never block and may be called
/// from any thread and, signal(), from a signal handler. Move-only.
class EventFd {
 public:
  EventFd() = default;
  /// Errors: no descriptor is left; the error says what was attempted.
  static Result<EventFd> make(std::string attempt) {
    EventFd out;
    out.fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!out.fd_) return os_error(std::move(attempt), errno);
    return out;
  }
  [[nodiscard]] int get() const { return fd_.get(); }
  void signal() const {
    std::uint64_t one = 1;
    (void)!::write(fd_.get(), &one, sizeof one);
  }
  void drain() const {
    std::uint64_t count = 0;
    (void)!::read(fd_.get(), &count, sizeof count);
  }

 private:
  Fd fd_;
};

}  // namespace hobbes
