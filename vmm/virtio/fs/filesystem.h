// A folder of the node, for the guest to mount by its tag (virtio 1.2, 5.11).
#pragma once
#include <linux/virtio_fs.h>

#include <atomic>
#include <string>

#include "vmm/virtio/fs/folder.h"
#include "vmm/virtio/transport.h"

namespace hobbes::vmm {

/// Its requests wait for disks, so they are served by a thread of their own, which holds no lock
/// meanwhile: vCPUs and other devices run on.
class FileSystem final : public VirtioDevice {
 public:
  /// `tag`: at most 36 bytes. `window`: the folder's, if it has one; outlives this. `wake`: makes
  /// the serving thread call serve() soon, from any thread.
  FileSystem(Folder folder, const std::string& tag, const DaxWindow* window,
             std::function<void()> wake);
  /// What waits in the queues; on the serving thread alone.
  void serve();
  [[nodiscard]] Folder& folder() { return folder_; }

  [[nodiscard]] std::uint32_t type() const override { return 26; }
  [[nodiscard]] unsigned queues() const override { return 2; }  // forgetting, and all else
  [[nodiscard]] std::span<const std::byte> configuration() const override {
    return std::as_bytes(std::span(&configuration_, 1));
  }
  [[nodiscard]] SharedMemory shared_memory() const override {
    return window_ == nullptr ? SharedMemory{} : SharedMemory{window_->address(), window_->size()};
  }
  Result<void> notified(unsigned queue) override;
  void reset() override;

 private:
  bool serve_one(unsigned queue);

  Folder folder_;
  const DaxWindow* window_;
  std::function<void()> wake_;
  virtio_fs_config configuration_{};
  std::uint64_t epoch_ = 0;  // of the driver, counted by its resets; under the transport's lock
  std::uint64_t served_epoch_ = 0;  // the one that the folder knows; the serving thread's
};

}  // namespace hobbes::vmm
