// A program's connection to hobbesd.
#pragma once
#include "ipc/message_socket.h"

namespace hobbes {

/// Closing it undoes what was begun and not finished over it. Not thread-safe.
class Client {
 public:
  /// Connects; a privileged caller starts hobbesd when nobody listens (once, however many callers
  /// race). Errors: Code::unavailable or Code::denied with whom to ask.
  static Result<Client> connect(bool start_on_demand = true);
  /// One request and its answer; hobbesd's refusal becomes the error.
  Result<Message> call(const std::string& op, Json request, const std::vector<int>& fds = {},
                       std::chrono::milliseconds deadline = std::chrono::milliseconds(30000));

 private:
  explicit Client(MessageSocket channel) : channel_(std::move(channel)) {}
  MessageSocket channel_;
};

/// Sends an "enclave.event" if hobbesd runs. Its books are not what an enclave lives by: nobody
/// waits long for them.
void tell_manager(std::uint64_t handle, Json event);

}  // namespace hobbes
