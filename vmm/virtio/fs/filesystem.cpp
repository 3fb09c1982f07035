#include "vmm/virtio/fs/filesystem.h"

namespace hobbes::vmm {

FileSystem::FileSystem(Folder folder, const std::string& tag, const DaxWindow* window,
                       std::function<void()> wake)
    : folder_(std::move(folder)), window_(window), wake_(std::move(wake)) {
  std::memcpy(configuration_.tag, tag.data(), std::min(tag.size(), sizeof configuration_.tag));
  configuration_.num_request_queues = 1;
}

Result<void> FileSystem::notified(unsigned) {
  wake_();
  return {};
}

void FileSystem::reset() {
  ++epoch_;
  wake_();
}

void FileSystem::serve() {
  while (serve_one(0) || serve_one(1)) {
  }
}

// A request is the guest's memory, which stays; whether somebody still waits for its answer is
// known by the epoch.
bool FileSystem::serve_one(unsigned queue) {
  std::optional<DescriptorChain> chain;
  std::uint64_t epoch = 0;
  transport().locked([&]() -> Result<void> {
    epoch = epoch_;
    if (!transport().running()) return {};
    HOBBES_TRY(next, transport().queue(queue).pop(transport().memory()));
    chain = std::move(next);
    return {};
  });
  if (epoch != served_epoch_) folder_.reset();
  served_epoch_ = epoch;
  if (!chain) return false;
  std::uint64_t written = folder_.serve(*chain);
  transport().locked([&]() -> Result<void> {
    if (epoch == epoch_ && transport().running()) transport().finish(queue, chain->head, written);
    return {};
  });
  return true;
}

}  // namespace hobbes::vmm
