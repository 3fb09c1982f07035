// Commands: calls by name over a channel, many at once, each with a deadline. A server answers them
// in its own order; a client polls, waits or is called back. docs/FABRIC.md; abi/command.h.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "abi/command.h"
#include "ipc/channel.h"
#include "ipc/listener.h"

namespace hobbes {

using Bytes = std::vector<std::uint8_t>;
using Deadline = std::optional<std::chrono::steady_clock::time_point>;

/// The deadline of the command that this thread is serving: calls it makes meanwhile end with it.
Deadline current_deadline();

class CommandServer;
struct CommandConnection;

/// A call, as its server sees it. It is answered once, in its handler or later, by the thread that
/// serves; one that is dropped unanswered fails. Move-only.
class ServerCall {
 public:
  ServerCall(std::shared_ptr<CommandConnection> connection, std::uint32_t id, std::string name,
             Bytes payload, Deadline deadline);
  ~ServerCall();
  ServerCall(ServerCall&&) noexcept;
  ServerCall& operator=(ServerCall&&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const Bytes& payload() const { return payload_; }
  [[nodiscard]] const ChannelPeer& peer() const;
  /// Whether both came by the same connection.
  [[nodiscard]] bool is_of_client_of(const ServerCall& other) const {
    return connection_ == other.connection_;
  }
  [[nodiscard]] const Deadline& deadline() const { return deadline_; }
  /// Nobody waits for the answer any more: it was cancelled, or its client has gone.
  [[nodiscard]] bool cancelled() const;

  /// A part of the answer. Errors: Code::busy while its client does not read, Code::unavailable.
  Result<void> part(const Bytes& payload);
  void reply(const Bytes& payload);
  void fail(const Error& error);

 private:
  void answer(std::uint16_t kind, const Bytes& payload);
  std::shared_ptr<CommandConnection> connection_;
  std::uint32_t id_;
  std::string name_;
  Bytes payload_;
  Deadline deadline_;
};

/// Serves commands under a name. One thread at a time, but for stop().
class CommandServer {
 public:
  using Handler = std::function<void(ServerCall)>;
  /// Errors: those of Listener::open.
  static Result<CommandServer> open(const std::string& name, const Listener::Options& options = {});
  ~CommandServer();
  CommandServer(CommandServer&&) noexcept;
  CommandServer& operator=(CommandServer&&) = delete;

  /// Replaces what served that name before. "" serves every name that has no handler of its own.
  void add(const std::string& name, Handler handler);
  /// Serves until stop(), or for that long; negative: for ever. A client's error ends his
  /// connection and nothing else. Errors: Code::os.
  Result<void> serve(std::chrono::milliseconds patience);
  /// From any thread or signal handler: serve() returns soon.
  void stop();
  /// For poll(2): readable when serve(0) has something to do.
  [[nodiscard]] int descriptor() const;
  void set_waiting(Waiting waiting);

 private:
  struct State;
  explicit CommandServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// A client's end. One thread at a time.
class CommandClient {
 public:
  using milliseconds = std::chrono::milliseconds;
  using Id = std::uint32_t;
  /// Told of every part, and at last of the end of a call.
  using Callback = std::function<void(Result<Bytes> answer, bool last)>;

  explicit CommandClient(Channel channel);
  static Result<CommandClient> connect(const std::string& name, const ConnectOptions& options = {},
                                       milliseconds patience = milliseconds(0));

  /// Sends a call, which ends by itself after `timeout` (negative: never, but with the command that
  /// this thread serves). With a callback its answer is told by poll() or wait(); without one
  /// wait() returns it. Errors: Code::busy, HOBBES_COMMAND_DEPTH are under way or the ring is full:
  /// poll() and try again; Code::invalid, too large; Code::unavailable, the server has gone.
  Result<Id> issue(const std::string& name, const Bytes& payload, milliseconds timeout,
                   Callback callback = {});
  /// Takes the answers that are there, waiting up to `patience` for the first. How many calls are
  /// still under way. Errors: Code::unavailable, Code::corrupt; every call has then failed.
  Result<std::size_t> poll(milliseconds patience);
  /// The answer of one call without a callback. Errors: Code::timeout, the server's own error, and
  /// those of poll().
  Result<Bytes> wait(Id id);
  /// The call's answer is of no interest any more. Without a callback from then on.
  void cancel(Id id);
  /// issue() and wait(), until there is room for the call.
  Result<Bytes> call(const std::string& name, const Bytes& payload, milliseconds timeout);

  [[nodiscard]] const Channel& channel() const { return channel_; }
  void set_waiting(Waiting waiting) { channel_.set_waiting(waiting); }

 private:
  struct Call {
    Deadline deadline;
    Callback callback;
    std::optional<Result<Bytes>> answer;
  };
  Result<void> take(milliseconds patience);
  void finish(std::map<Id, Call>::iterator call, Result<Bytes> answer);
  void expire();
  void fail_all(const Error& error);
  Result<void> send(std::uint16_t kind, Id id, std::uint64_t timeout_ns, const std::string& name,
                    const Bytes& payload);

  Channel channel_;
  Bytes buffer_;
  std::map<Id, Call> calls_;
  Id next_ = 1;
};

}  // namespace hobbes
