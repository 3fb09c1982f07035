// The monitor's socket: hobbes-run and the driver ask here, and wait here for the guest's start.
#pragma once
#include <functional>
#include <list>
#include <optional>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"
#include "ipc/message_socket.h"

namespace hobbes::vmm {

/// On the loop's thread. At most 64 clients; one that sends half a request holds up the loop for at
/// most 100 ms.
class ControlServer {
 public:
  /// Answers a request; descriptors that belong to the answer are added to `fds`.
  using Act = std::function<Result<Json>(const Json& request, std::vector<Fd>& fds)>;

  /// `listening` stays the caller's. Until started() or failed(), requests "started" wait if
  /// `wait_for_start`.
  ControlServer(EventLoop& loop, int listening, bool wait_for_start, Act act)
      : loop_(loop), listening_(listening), waiting_(wait_for_start), act_(std::move(act)) {}
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();

  Result<void> begin();
  /// The guest has started: the clients that wait for that are told.
  void started();
  /// The guest will never start: tells those who wait, and for one second those who come to ask,
  /// since the one that asked for the start connects about now.
  void failed(const Error& error);

 private:
  void accept_one();
  bool answer(MessageSocket& client, const Message& request);
  void answer_starters(const std::optional<Error>& error);
  std::list<MessageSocket>::iterator refuse(std::list<MessageSocket>::iterator client,
                                            const Error& error);

  EventLoop& loop_;
  int listening_;
  bool waiting_, answered_failure_ = false;
  Act act_;
  std::list<MessageSocket> clients_;
  std::list<MessageSocket*> starters_;
};

}  // namespace hobbes::vmm
