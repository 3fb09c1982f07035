// XEMEM segments as their users see them: memory with a name that any enclave may attach, without a
// copy.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "ipc/client.h"
#include "xemem/doorbell.h"

namespace hobbes {

class SnapshotSource;

struct SegmentOptions {
  mode_t mode = 0600;                 ///< who may read and write, as of chmod
  std::uint64_t page_size = 0;        ///< 0: normal pages; else 2 MiB or 1 GiB huge pages
  bool persistent = false;            ///< outlives its owner; only while hobbesd keeps running
  std::vector<std::string> enclaves;  ///< only for programs of these enclaves; empty: any
  bool snapshots = false;             ///< who may read it may take snapshots (snapshot.h)
  std::uint64_t snapshot_of = 0;      ///< the segment of which it is one: nobody may write to it
};

/// A segment made by this process, mapped here. Move-only; destruction removes a segment that is
/// not persistent. The memory may be used by many threads; the object by one. In a virtual machine
/// the memory is the node's, shown in the machine's window.
class Segment {
 public:
  /// Makes and maps a segment of at least `size` bytes, zero-filled. Errors: Code::exists,
  /// Code::exhausted (no huge pages).
  static Result<Segment> make(const std::string& name, std::uint64_t size,
                              const SegmentOptions& options = {});
  /// The same in two steps. After the first the memory is there, and nobody else's to attach.
  static Result<Segment> reserve(const std::string& name, std::uint64_t size,
                                 const SegmentOptions& options = {});
  /// Another description than what it was reserved with; before it is published.
  void describe(const std::string& name, mode_t mode, std::uint64_t snapshot_of) {
    name_ = name;
    options_.mode = mode;
    options_.snapshot_of = snapshot_of;
  }
  Result<void> publish(Client& client,
                       std::chrono::milliseconds deadline = std::chrono::seconds(30));
  /// Turns existing private anonymous memory of this process into a segment, in place: [start,
  /// start+size) must be whole pages. Errors: Code::busy unless this is the only thread;
  /// Code::unsupported for memory that is shared, locked or a file's.
  static Result<Segment> make_of(const std::string& name, void* start, std::uint64_t size,
                                 const SegmentOptions& options = {});

  Segment(Segment&& other) noexcept;
  Segment& operator=(Segment&& other) = delete;
  ~Segment();

  [[nodiscard]] void* data() const { return base_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint64_t handle() const { return handle_; }
  /// Takes the name away before destruction does. Idempotent; the memory stays.
  Result<void> remove(std::chrono::milliseconds deadline = std::chrono::seconds(30));
  /// The mapping is the caller's from now on.
  void* release_mapping() {
    unmap_ = false;
    return base_;
  }

 private:
  Segment();
  Result<void> serve_snapshots();

  std::string name_;
  SegmentOptions options_;
  Fd memory_;             // kept open: a restarted hobbesd finds the memory through it
  std::uint64_t at_ = 0;  // of its first byte in memory_
  Fd life_;               // in a virtual machine: its end removes the segment
  void* base_ = nullptr;
  std::uint64_t size_ = 0;
  std::uint64_t handle_ = 0;
  bool remove_ = false;
  bool unmap_ = true;
  pid_t maker_ = 0;  // a child of fork has no part in it
  std::unique_ptr<SnapshotSource> snapshots_;
};

/// Makes a segment that a bundle declares, over the connection that holds the enclave's
/// reservation: it lives as long as the enclave.
Result<void> declare_segment(Client& client, const std::string& name, std::uint64_t size,
                             mode_t mode, std::uint64_t enclave);

/// The right to map a segment. Move-only; destruction gives the right back, mappings made with it
/// stay.
class SegmentAccess {
 public:
  /// Errors: Code::not_found, Code::denied, Code::unavailable (no hobbesd).
  /// `deadline`: how long hobbesd may take. `of_composition`: only a segment that was made in an
  /// enclave of the caller's composition.
  static Result<SegmentAccess> get(std::uint64_t handle, bool writable,
                                   std::chrono::milliseconds deadline = std::chrono::seconds(30),
                                   bool of_composition = false);
  static Result<SegmentAccess> get(const std::string& name, bool writable,
                                   std::chrono::milliseconds deadline = std::chrono::seconds(30));

  SegmentAccess(SegmentAccess&& other) noexcept;
  SegmentAccess& operator=(SegmentAccess&& other) = delete;
  ~SegmentAccess();

  /// Maps whole pages of it; the caller unmaps with munmap(2). Errors: Code::invalid outside the
  /// segment or off page borders.
  Result<void*> map(std::uint64_t offset, std::uint64_t size) const;
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint64_t handle() const { return handle_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool writable() const { return writable_; }
  /// Its part in the segment's doorbell; ends with this.
  [[nodiscard]] Doorbell& doorbell() { return *doorbell_; }

 private:
  SegmentAccess() = default;
  static Result<SegmentAccess> ask(Json request, bool writable, std::chrono::milliseconds deadline);

  Fd memory_;
  std::uint64_t offset_ = 0;  // of its first byte in memory_
  std::uint64_t size_ = 0;
  std::uint64_t attachment_ = 0, handle_ = 0;
  std::string name_;
  bool writable_ = false;
  std::chrono::milliseconds deadline_{30000};
  std::unique_ptr<Doorbell> doorbell_;
};

}  // namespace hobbes
