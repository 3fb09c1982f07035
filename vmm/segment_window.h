// What a guest sees of its node's memory: the mirror, the segments that its bundle lists or its
// programs make, and its channels. Asked for by programs of the guest over streams of their own.
#pragma once
#include <sys/stat.h>

#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "core/json.h"
#include "enclave/drivers/palacios/plan.h"
#include "vmm/channel_relay.h"
#include "vmm/doorbell_relay.h"
#include "vmm/frames.h"
#include "vmm/guest_memory_map.h"
#include "vmm/layout.h"
#include "vmm/segment_maker.h"
#include "vmm/window_places.h"
#include "xemem/segment.h"

namespace hobbes::vmm {

/// On the loop's thread. A guest that lies takes memory from itself only.
class SegmentWindow {
 public:
  /// `listed`: what the bundle lets the guest attach; `room`: bytes of segments it may make.
  SegmentWindow(GuestMemoryMap& memory, EventLoop& loop, std::vector<VmPlan::SegmentGrant> listed,
                std::uint64_t room)
      : places_(memory), loop_(loop), listed_(std::move(listed)), maker_(loop, places_, room) {}
  SegmentWindow(const SegmentWindow&) = delete;
  SegmentWindow& operator=(const SegmentWindow&) = delete;
  ~SegmentWindow();

  struct Place {
    Gpa address = 0;
    std::uint64_t size = 0;
  };
  /// Shows the mirror read-only, again when hobbesd has made a new one. Where it is now, if that
  /// has changed; nothing when there is no mirror or no change. Errors: the guest cannot see it.
  Result<std::optional<Place>> show_mirror(const std::string& path);
  /// A program of the guest has connected: its requests are answered until it hangs up.
  void serve(Fd stream);
  /// How many segments are shown.
  [[nodiscard]] std::size_t size() const { return shown_.size(); }

 private:
  struct Shown {
    SegmentAccess access;
    WindowPlaces::Place place;
    std::uint64_t uses = 0;  // how often it was attached
  };
  using ShownSegments =
      std::map<std::pair<std::uint64_t, bool>, Shown>;  // by handle and whether it is writable

  /// The right to a segment that the bundle lists, or that the guest has made.
  Result<SegmentAccess> get(const Json& request, const std::string& attempt) const;
  /// Whether only a segment of the enclave's composition is meant.
  [[nodiscard]] Result<bool> check_listed(const std::string& name, bool writable,
                                          const std::string& attempt) const;
  Result<void> replace_mirror(void* mapped, std::uint64_t size);
  Result<Json> attach(const Json& request);
  Result<Shown> show_segment(SegmentAccess access, const std::string& attempt);
  static Json place_of(const ShownSegments::value_type& one);
  Result<Json> hide(const Json& request);
  Result<Json> answer(const Json& request);
  void connect_bell(const Json& request, Fd stream);

  WindowPlaces places_;
  EventLoop& loop_;
  std::vector<VmPlan::SegmentGrant> listed_;
  void* mirror_ = nullptr;
  std::uint64_t mirror_size_ = 0;
  ino_t mirror_inode_ = 0;
  ShownSegments shown_;
  DoorbellRelay doorbells_{loop_};
  ChannelRelay channels_{loop_, places_};
  SegmentMaker maker_;
  std::list<FrameStream> guests_;
};

}  // namespace hobbes::vmm
