// Guest-physical addresses at which a guest maps files of a shared folder (virtio 1.2, 5.11.6.4:
// the DAX window). What is mapped there is the node's page cache itself, so that both sides share
// memory by mapping the same file.
#pragma once
#include <sys/types.h>

#include <map>
#include <mutex>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "vmm/layout.h"

namespace hobbes::vmm {

/// Thread-safe. All offsets and sizes are bytes, whole pages.
///
/// A file can be cut by anybody while the guest has it mapped. Linux would send a process SIGBUS
/// then; a virtual machine would end. Therefore the pages behind a file's end are memory of the
/// window's own, which begins as zeros and which nobody else sees. When the file has grown they
/// become the file's as soon as the guest is told its size.
class DaxWindow {
 public:
  /// Reserves addresses of this process; memory is taken by what is mapped. Errors: Code::os.
  static Result<DaxWindow> make(Gpa address, std::uint64_t size);
  DaxWindow(DaxWindow&& other) noexcept;
  DaxWindow& operator=(DaxWindow&&) = delete;
  ~DaxWindow();

  [[nodiscard]] Gpa address() const { return address_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] void* host() const { return host_; }

  /// Shows `size` bytes of `file`, from `offset` on, at `at` of the window, instead of whatever was
  /// there. `file` is open for writing when `writable`. Returns 0 or why not (errno): EINVAL for
  /// what is not whole pages or not in the window, ENFILE for too many mappings.
  int map(Fd file, std::uint64_t offset, std::uint64_t size, std::uint64_t at, bool writable);
  /// Takes away what is shown in a part of the window. Returns 0 or why not (errno).
  int unmap(std::uint64_t at, std::uint64_t size);
  /// Takes everything away. `used`: whether the guest's kernel has said that it maps files here.
  void reset(bool used = false);
  [[nodiscard]] bool used() const;
  /// How many mappings there are; each has a descriptor of this process.
  [[nodiscard]] std::size_t mappings() const;
  /// A file has so many bytes now, which the guest is about to be told.
  void follow_size(dev_t device, ino_t number, std::uint64_t bytes);
  /// Compares all mappings with the sizes that their files have now, after an access that failed.
  /// Returns whether any was not right any more.
  bool follow_sizes();

 private:
  struct Mapping {
    Fd file;
    dev_t device = 0;
    ino_t number = 0;
    std::uint64_t offset = 0, size = 0;
    std::uint64_t shown = 0;  ///< so many bytes of it are the file's
    bool writable = false;
  };
  DaxWindow() = default;
  [[nodiscard]] bool holds(std::uint64_t at, std::uint64_t size) const;
  // Each returns 0 or why not (errno), and the window is as before then.
  int show_file(std::uint64_t at, const Mapping& mapping, std::uint64_t from, std::uint64_t to);
  int show_memory(std::uint64_t at, std::uint64_t size, int protection);
  int place(void* fresh, std::uint64_t at, std::uint64_t size);
  int unmap_locked(std::uint64_t at, std::uint64_t size);
  bool follow_size(std::uint64_t at, Mapping& mapping, std::uint64_t bytes);

  mutable std::mutex lock_;
  Gpa address_ = 0;
  std::uint64_t size_ = 0;
  std::byte* host_ = nullptr;
  bool used_ = false;
  std::map<std::uint64_t, Mapping> mappings_;  ///< by their places, which do not overlap
};

}  // namespace hobbes::vmm
