// The door for ranks that others start: docs/COMPOSITION.md, "Joining".
#pragma once
#include <string>

#include "core/event_loop.h"
#include "core/json.h"
#include "core/result.h"
#include "ipc/message_socket.h"

namespace hobbes {

/// Whom the server asks. All of it comes from processes of the same user, but may be nonsense.
class JoinHandler {
 public:
  virtual ~JoinHandler() = default;
  /// The next free rank of an app: its number, environment and mounts.
  virtual Result<Json> join(const std::string& app) = 0;
  /// The process `pid` is the rank with that number (-1: the first of `app` that has joined and for
  /// which no process has arrived).
  virtual Result<void> arrive(const Peer& caller, const std::string& app, std::int64_t rank,
                              std::int64_t pid) = 0;
  /// Nobody comes as that rank after all.
  virtual Result<void> leave(const std::string& app, std::int64_t rank) = 0;
};

/// RAII: its end takes the socket away. One thread; `loop` and `handler` outlive it.
class JoinServer {
 public:
  /// Listens for a composition of this user. Errors: Code::os, Code::busy.
  static Result<std::unique_ptr<JoinServer>> open(const std::string& composition, EventLoop& loop,
                                                  JoinHandler& handler);
  ~JoinServer();
  JoinServer(const JoinServer&) = delete;
  JoinServer& operator=(const JoinServer&) = delete;

 private:
  JoinServer(std::string path, Fd listening, EventLoop& loop, JoinHandler& handler)
      : path_(std::move(path)), listening_(std::move(listening)), loop_(loop), handler_(handler) {}
  void serve_one();
  Result<Json> answer(const Peer& caller, const Json& request);

  std::string path_;
  Fd listening_;
  EventLoop& loop_;
  JoinHandler& handler_;
};

}  // namespace hobbes
