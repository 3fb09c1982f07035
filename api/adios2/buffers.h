// The memory of steps. A writer's rank places what is put into segments, which it uses again when
// no reader needs their step any more; readers attach each of them once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "format.h"

namespace hobbes::adios {

/// One rank's segments. Throws std::runtime_error with what hobbesd says.
class BufferPool {
 public:
  /// Segments are called NAME.PID.RANK.N and have permission bits `mode`.
  BufferPool(std::string name, int rank, unsigned mode);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// From now on places belong to this step.
  void begin(std::uint64_t step);
  /// Room for `size` bytes of the step, aligned to 64. Its memory is at `address` here.
  Place allocate(std::size_t size, char** address);
  /// Steps that are in `held` no more leave their segments.
  void keep_only(const std::set<std::uint64_t>& held);

 private:
  struct Buffer {
    std::int64_t segment = -1;
    char* base = nullptr;
    std::size_t size = 0, used = 0;
    std::uint64_t step = 0;
    bool free = true;
  };
  Buffer& buffer_for(std::size_t size);
  void drop_smaller(std::size_t size);

  std::string name_;
  int rank_;
  unsigned mode_, next_ = 0;
  std::vector<Buffer> buffers_;
  std::size_t current_ = SIZE_MAX;  // of the step that is being put
  std::uint64_t step_ = 0;
  std::size_t step_size_ = 0, largest_step_ = 0;
};

/// The writers' segments as a reader has attached them, read-only.
class Attachments {
 public:
  Attachments() = default;
  ~Attachments();
  Attachments(const Attachments&) = delete;
  Attachments& operator=(const Attachments&) = delete;

  /// The bytes of a place; they stay attached. Throws std::runtime_error when the segment cannot be
  /// attached or is shorter than the place says.
  const char* at(const Place& place);
  /// A step has been read: segments that the last eight have not used are detached, since writers
  /// whose steps grow leave them.
  void step_ended();

 private:
  struct Attachment {
    std::int64_t access = -1;
    char* base = nullptr;
    std::uint64_t size = 0, used = 0;
  };
  std::map<std::int64_t, Attachment> segments_;
  std::uint64_t steps_ = 0;
};

}  // namespace hobbes::adios
