// Doorbells of segments between programs of the guest and the rest of the node: each such program
// holds a stream, of which only the arrival of bytes matters.
#pragma once
#include <list>
#include <map>
#include <string>

#include "core/event_loop.h"
#include "core/fd.h"
#include "xemem/segment.h"

namespace hobbes::vmm {

/// On the loop's thread. What a guest says of its programs is believed: it can deceive only itself.
class DoorbellRelay {
 public:
  explicit DoorbellRelay(EventLoop& loop) : loop_(loop) {}
  DoorbellRelay(const DoorbellRelay&) = delete;
  DoorbellRelay& operator=(const DoorbellRelay&) = delete;
  ~DoorbellRelay();

  /// From now on bytes of `stream` ring the segment's doorbell, and with `listens` a byte is sent
  /// there whenever others ring: of the node, or of the guest but not its process `program`. Until
  /// the stream ends, or the segment's bell can be rung no more. Errors: those of
  /// SegmentAccess::get and Doorbell::listen; Code::exhausted.
  Result<void> connect(SegmentAccess access, Fd stream, std::int64_t program, bool listens);

 private:
  struct Stream {
    Fd fd;
    std::int64_t program = 0;
    bool listens = false;
  };
  struct Bell {
    explicit Bell(SegmentAccess&& got) : access(std::move(got)) {}
    SegmentAccess access;
    std::list<Stream> streams;
    int descriptor = -1;
  };
  using Bells = std::map<std::uint64_t, Bell>;  // by the segment's handle

  void heard_from_guest(Bells::iterator bell, std::list<Stream>::iterator from);
  void heard_from_node(Bell& bell) const;
  void end(Bells::iterator bell);

  EventLoop& loop_;
  Bells doorbells_;
};

}  // namespace hobbes::vmm
