#include "vmm/virtio/block.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace hobbes::vmm {
namespace {

constexpr std::uint64_t sector_size = 512;
constexpr std::uint64_t request_limit = 32 << 20;  // bytes; one request is served in one go

}  // namespace

Result<Block> Block::make(Fd file, bool read_only) {
  struct stat info {};
  std::uint64_t bytes = 0;
  if (::fstat(file.get(), &info) != 0) return os_error("use a disk image", errno);
  if (S_ISREG(info.st_mode))
    bytes = static_cast<std::uint64_t>(info.st_size);
  else if (!S_ISBLK(info.st_mode) || ::ioctl(file.get(), BLKGETSIZE64, &bytes) != 0)
    return Error{Code::invalid, "use a disk image", "it is neither a file nor a block device",
                 "give vm.image.path a raw image"};
  if (bytes < sector_size || bytes % sector_size != 0)
    return Error{Code::invalid, "use a disk image",
                 "its size of " + std::to_string(bytes) + " bytes is not made of whole sectors",
                 "give a raw image of a multiple of 512 bytes"};
  Block out;
  out.file_ = std::move(file);
  out.read_only_ = read_only;
  out.sectors_ = bytes / sector_size;
  return out;
}

std::uint64_t Block::features() const {
  return 1ULL << VIRTIO_BLK_F_FLUSH | (read_only_ ? 1ULL << VIRTIO_BLK_F_RO : 0);
}

bool Block::transfer(const DescriptorChain& chain, std::uint64_t sector, bool write) const {
  std::uint64_t length =
      write ? chain.readable_size() - sizeof(virtio_blk_outhdr) : chain.writable_size() - 1;
  if (length % sector_size != 0 || sector > sectors_ || length / sector_size > sectors_ - sector)
    return false;
  std::uint64_t at = sector * sector_size, skip = write ? sizeof(virtio_blk_outhdr) : 0;
  auto move = [&](std::byte* data, std::size_t size) {
    while (size > 0) {
      ssize_t n = write ? ::pwrite(file_.get(), data, size, static_cast<off_t>(at))
                        : ::pread(file_.get(), data, size, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      data += n;
      size -= static_cast<std::size_t>(n);
      at += static_cast<std::uint64_t>(n);
    }
    return true;
  };
  if (write) {
    for (const auto& part : chain.readable) {
      std::uint64_t skipped = std::min<std::uint64_t>(skip, part.size());
      skip -= skipped;
      if (!move(const_cast<std::byte*>(part.data()) + skipped, part.size() - skipped)) return false;
    }
    return true;
  }
  for (const auto& part : chain.writable) {
    std::uint64_t size = std::min<std::uint64_t>(part.size(), length);
    length -= size;
    if (!move(part.data(), size)) return false;
  }
  return true;
}

Block::Answer Block::serve(const DescriptorChain& chain) const {
  virtio_blk_outhdr header{};
  if (!chain.take(0, std::as_writable_bytes(std::span(&header, 1)))) return {VIRTIO_BLK_S_IOERR, 0};
  switch (header.type) {
    case VIRTIO_BLK_T_IN:
      if (!transfer(chain, header.sector, false)) return {VIRTIO_BLK_S_IOERR, 0};
      return {VIRTIO_BLK_S_OK, chain.writable_size() - 1};
    case VIRTIO_BLK_T_OUT:
      return {read_only_ || !transfer(chain, header.sector, true) ? std::uint8_t{VIRTIO_BLK_S_IOERR}
                                                                  : std::uint8_t{VIRTIO_BLK_S_OK},
              0};
    case VIRTIO_BLK_T_FLUSH:
      return {::fdatasync(file_.get()) == 0 ? std::uint8_t{VIRTIO_BLK_S_OK}
                                            : std::uint8_t{VIRTIO_BLK_S_IOERR},
              0};
    case VIRTIO_BLK_T_GET_ID: {
      char id[VIRTIO_BLK_ID_BYTES] = "hobbes";
      std::uint64_t room = std::min<std::uint64_t>(sizeof id, chain.writable_size() - 1);
      return {VIRTIO_BLK_S_OK, chain.give(0, std::as_bytes(std::span(id)).first(room))};
    }
    default:
      return {VIRTIO_BLK_S_UNSUPP, 0};
  }
}

Result<void> Block::notified(unsigned number) {
  return transport().each(number, [this](const DescriptorChain& chain) -> Result<std::uint64_t> {
    // The last writable byte is for the status.
    if (chain.writable.empty())
      return Error{Code::corrupt, "serve a disk request", "it has no place for its status", ""};
    bool bearable =
        chain.readable_size() <= request_limit && chain.writable_size() <= request_limit;
    Answer answer = bearable ? serve(chain) : Answer{VIRTIO_BLK_S_IOERR, 0};
    chain.give(chain.writable_size() - 1, std::as_bytes(std::span(&answer.status, 1)));
    return answer.written + 1;
  });
}

}  // namespace hobbes::vmm
