#include "bounce.h"

#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/uio.h>

#include "system.h"

namespace proxy {
namespace {

constexpr std::uint64_t buffer_size = 1ULL << 20U, part_size = 0x10000;
constexpr long efault = -14;

// A buffer for one call: threads have their own.
class Buffer {
 public:
  Buffer()
      : at_(call(__NR_mmap, 0, buffer_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                 0)) {}
  ~Buffer() {
    if (at_ >= 0) (void)call(__NR_munmap, at_, buffer_size);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] long at() const { return at_; }

 private:
  long at_;
};

}  // namespace

long copy(void* to, const void* from, std::uint64_t size) {
  int ends[2];
  if (long bad = call(__NR_pipe2, as_long(ends), O_CLOEXEC); bad < 0) return bad;
  long out = 0;
  for (std::uint64_t done = 0; done < size && out == 0;) {
    std::uint64_t part = size - done < part_size ? size - done : part_size;
    long written =
        call(__NR_write, ends[1], as_long(from) + static_cast<long>(done), static_cast<long>(part));
    long got = written <= 0
                   ? written
                   : call(__NR_read, ends[0], as_long(to) + static_cast<long>(done), written);
    if (got <= 0 || got != written)
      out = efault;
    else
      done += static_cast<std::uint64_t>(got);
  }
  (void)call(__NR_close, ends[0]);
  (void)call(__NR_close, ends[1]);
  return out;
}

bool can_bounce(std::uint64_t number) {
  switch (number) {
    case __NR_read:
    case __NR_write:
    case __NR_pread64:
    case __NR_pwrite64:
    case __NR_readv:
    case __NR_writev:
    case __NR_preadv:
    case __NR_pwritev:
      return true;
    default:
      return false;
  }
}

long read_bounced(long file, void* to, std::uint64_t size, std::uint64_t offset) {
  Buffer buffer;
  if (buffer.at() < 0) return buffer.at();
  if (size > buffer_size) size = buffer_size;
  long got =
      call(__NR_pread64, file, buffer.at(), static_cast<long>(size), static_cast<long>(offset));
  if (got <= 0) return got;
  long bad = copy(to, reinterpret_cast<const void*>(buffer.at()), static_cast<std::uint64_t>(got));
  return bad != 0 ? bad : got;
}

long bounce(const hobbes_call& frame) {
  const std::uint64_t number = frame.number & ~HOBBES_FORWARD_ALWAYS;
  std::uint64_t address = frame.argument[1], size = frame.argument[2];
  const long offset = static_cast<long>(frame.argument[3]);
  const bool vector = number == __NR_readv || number == __NR_writev || number == __NR_preadv ||
                      number == __NR_pwritev;
  if (vector) {
    // The first part that is not empty: a short count is an answer, too.
    iovec part{};
    std::uint64_t count = size;
    for (size = 0; count > 0 && size == 0; --count, address += sizeof part) {
      if (long bad = copy(&part, reinterpret_cast<const void*>(address), sizeof part); bad != 0)
        return bad;
      size = part.iov_len;
    }
    address = reinterpret_cast<std::uint64_t>(part.iov_base);
  }
  if (size == 0) return 0;
  if (size > buffer_size) size = buffer_size;
  Buffer buffer;
  if (buffer.at() < 0) return buffer.at();
  auto* mine = reinterpret_cast<void*>(buffer.at());
  auto* theirs = reinterpret_cast<void*>(address);
  const long file = static_cast<long>(frame.argument[0]), bytes = static_cast<long>(size);
  switch (number) {
    case __NR_read:
    case __NR_readv:
    case __NR_pread64:
    case __NR_preadv: {
      // Where it cannot be stored nothing is taken from the file.
      if (long bad = copy(mine, theirs, size); bad != 0) return bad;
      bool positioned = number == __NR_pread64 || number == __NR_preadv;
      long got = positioned ? call(__NR_pread64, file, buffer.at(), bytes, offset)
                            : call(__NR_read, file, buffer.at(), bytes);
      if (got <= 0) return got;
      long bad = copy(theirs, mine, static_cast<std::uint64_t>(got));
      return bad != 0 ? bad : got;
    }
    default: {
      if (long bad = copy(mine, theirs, size); bad != 0) return bad;
      bool positioned = number == __NR_pwrite64 || number == __NR_pwritev;
      return positioned ? call(__NR_pwrite64, file, buffer.at(), bytes, offset)
                        : call(__NR_write, file, buffer.at(), bytes);
    }
  }
}

}  // namespace proxy
