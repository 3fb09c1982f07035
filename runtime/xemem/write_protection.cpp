#include "xemem/write_protection.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "core/fd.h"

namespace hobbes {
namespace {

const char* const protecting = "protect a segment's memory";

// With the right to be told of the kernel's own accesses where the system gives it; without, system
// calls that write to a protected page fail with EFAULT instead of waiting.
Result<Fd> open_userfaultfd() {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK;
  Fd out(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
  if (!out && errno == EPERM) {
    if (Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)); device)
      out.reset(::ioctl(device.get(), USERFAULTFD_IOC_NEW, flags));
    if (!out) out.reset(static_cast<int>(::syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY)));
  }
  if (out) return out;
  if (errno == ENOSYS)
    return Error{Code::unsupported, protecting, "this kernel has no userfaultfd",
                 "take snapshots by copying"};
  if (errno == EPERM)
    return Error{Code::unsupported, protecting, "userfaultfd is forbidden here",
                 "let the enclave's system-call filter allow it with UFFD_USER_MODE_ONLY, or take "
                 "snapshots by copying"};
  return os_error(protecting, errno);
}

class UserFault final : public WriteProtection {
 public:
  UserFault(Fd fd, uffdio_range range) : fd_(std::move(fd)), range_(range) {}
  // A child of fork may hold the descriptor, so that closing it here would release nothing.
  ~UserFault() override { (void)::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range_); }
  std::optional<std::uintptr_t> next_write() override {
    uffd_msg message{};
    while (::read(fd_.get(), &message, sizeof message) == sizeof message)
      if (message.event == UFFD_EVENT_PAGEFAULT)
        return static_cast<std::uintptr_t>(message.arg.pagefault.address);
    return {};
  }
  void release(std::uintptr_t page, std::uint64_t size) override {
    uffdio_writeprotect pages{{page, size}, 0};
    while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &pages) != 0 && errno == EAGAIN) {
    }
  }
  [[nodiscard]] int descriptor() const override { return fd_.get(); }

 private:
  Fd fd_;
  uffdio_range range_;
};

}  // namespace

Result<std::unique_ptr<WriteProtection>> WriteProtection::begin(void* start, std::uint64_t size) {
  HOBBES_TRY(fd, open_userfaultfd());
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0)
    return Error{Code::unsupported, protecting,
                 "this kernel cannot protect shared memory against writing",
                 "use Linux 5.19 or newer, or take snapshots by copying"};
  uffdio_register memory{};
  memory.range = {reinterpret_cast<std::uintptr_t>(start), size};
  memory.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd.get(), UFFDIO_REGISTER, &memory) != 0) return os_error(protecting, errno);
  std::unique_ptr<WriteProtection> out = std::make_unique<UserFault>(std::move(fd), memory.range);
  uffdio_writeprotect all{memory.range, UFFDIO_WRITEPROTECT_MODE_WP};
  while (::ioctl(out->descriptor(), UFFDIO_WRITEPROTECT, &all) != 0)
    if (errno != EAGAIN) return os_error(protecting, errno);
  return out;
}

}  // namespace hobbes
