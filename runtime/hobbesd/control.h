// The control socket: one connection per program, requests answered in order.
#pragma once
#include <map>
#include <memory>

#include "hobbesd/loop.h"
#include "hobbesd/manager.h"
#include "ipc/message_socket.h"

namespace hobbes {

class ControlServer {
 public:
  /// Serves `listening` (SOCK_SEQPACKET) from inside the loop.
  static Result<std::unique_ptr<ControlServer>> make(Loop& loop, Manager& manager, Fd listening);

 private:
  struct Connection {
    MessageSocket channel;
    Session session;
  };
  ControlServer(Loop& loop, Manager& manager, Fd listening)
      : loop_(loop), manager_(manager), listening_(std::move(listening)) {}
  void accept_all();
  void serve(int fd);

  Loop& loop_;
  Manager& manager_;
  Fd listening_;
  std::map<int, std::unique_ptr<Connection>> connections_;
};

}  // namespace hobbes
