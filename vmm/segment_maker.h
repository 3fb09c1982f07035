// Segments that programs of the guest make. Their memory is the node's, shown in the window, so
// that everybody may attach it; each lives as long as the stream it was asked for by.
#pragma once
#include <list>

#include "core/event_loop.h"
#include "core/json.h"
#include "vmm/frames.h"
#include "vmm/window_places.h"
#include "xemem/segment.h"

namespace hobbes::vmm {

/// On the loop's thread. hobbesd knows this process as their maker.
class SegmentMaker {
 public:
  /// `room`: bytes that all of them may have together.
  SegmentMaker(EventLoop& loop, WindowPlaces& places, std::uint64_t room)
      : loop_(loop), places_(places), room_(room) {}
  SegmentMaker(const SegmentMaker&) = delete;
  SegmentMaker& operator=(const SegmentMaker&) = delete;
  ~SegmentMaker();

  /// Whether it answers this request (abi/agent.h) of a stream, which is its own then.
  static bool answers(const std::string& op) { return op == "segment.make"; }
  void serve(const Json& request, Fd stream);
  /// Whether a program of the guest has made this segment.
  [[nodiscard]] bool has_made(std::uint64_t handle) const;
  /// Takes the name of one away; its memory stays while the stream does. Errors: Code::not_found.
  Result<void> remove(std::uint64_t handle);

 private:
  struct Made {
    FrameStream stream;
    Segment segment;
    WindowPlaces::Place place;
    std::string name;  // once it is published
    bool ended = false;
  };
  using Segments = std::list<Made>;

  Result<Segments::iterator> reserve(const Json& request, FrameStream& stream);
  Result<Json> publish(Made& made, const Json& request);
  void heard_from_guest(Segments::iterator made);
  void end(Segments::iterator made);

  EventLoop& loop_;
  WindowPlaces& places_;
  const std::uint64_t room_;
  std::uint64_t used_ = 0;
  Segments segments_;
};

}  // namespace hobbes::vmm
