// Channels between programs of the guest and the rest of the node. Their memory is shown to the
// guest; what goes through the monitor are the wake-ups, as bytes of a stream for each channel.
#pragma once
#include <chrono>
#include <list>
#include <map>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/json.h"
#include "ipc/message_socket.h"
#include "vmm/frames.h"
#include "vmm/window_places.h"

namespace hobbes::vmm {

/// On the loop's thread. hobbesd vouches for this process, whose enclave the guest is; which of its
/// programs it is, is the guest's own matter.
class ChannelRelay {
 public:
  ChannelRelay(EventLoop& loop, WindowPlaces& places) : loop_(loop), places_(places) {}
  ChannelRelay(const ChannelRelay&) = delete;
  ChannelRelay& operator=(const ChannelRelay&) = delete;
  ~ChannelRelay();

  /// Whether it answers this request (abi/agent.h) of a stream, which is its own then.
  static bool answers(const std::string& op);
  void serve(const Json& request, Fd stream);

 private:
  struct Open {
    Fd stream, hears, rings;
    WindowPlaces::Place place;
    bool peer_ended = false;
  };
  using Channels = std::list<Open>;
  struct Listening {
    FrameStream stream;
    MessageSocket inbox;
    Fd delivery;  // hobbesd's end of it, for the next hobbesd
    std::uint64_t handle = 0;
  };
  using Listeners = std::list<Listening>;

  Result<Json> begin(Message introduction, Fd stream);
  Result<void> listen(const Json& request, Fd stream);
  void introduce(Listeners::iterator listener);
  void heard_from_guest(Channels::iterator channel);
  void heard_from_peer(Channels::iterator channel);
  void end(Channels::iterator channel);
  void end(Listeners::iterator listener);

  EventLoop& loop_;
  WindowPlaces& places_;
  Channels channels_;
  Listeners listeners_;
  // Not fetched by the guest yet.
  struct Waiting {
    Message introduction;
    std::uint64_t listener = 0;
    std::chrono::steady_clock::time_point since;
  };
  std::map<std::uint64_t, Waiting> introductions_;
  std::uint64_t next_ = 1;
};

}  // namespace hobbes::vmm
