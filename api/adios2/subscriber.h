// The readers' end of a stream: the next step, in the first of their ranks.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "format.h"
#include "hobbes.h"

namespace hobbes::adios {

/// One thread's. Throws std::runtime_error.
class Subscriber {
 public:
  enum class Status : std::uint8_t { ready, late, ended, failed };
  struct Next {
    Status status = Status::late;
    std::uint64_t number = 0;
    Place description;  ///< when ready
  };

  /// Waits up to `timeout` for a writer.
  Subscriber(const std::string& name, std::chrono::milliseconds timeout);
  ~Subscriber();
  Subscriber(const Subscriber&) = delete;
  Subscriber& operator=(const Subscriber&) = delete;

  /// The oldest step that was not read, or, with `newest`, the newest, and those before it are
  /// released. No timeout: until there is one or there will be none. `failed`: the writer has ended
  /// without saying so.
  Next next(bool newest, std::optional<std::chrono::milliseconds> timeout);
  /// The step is of no more use: its writer may use its memory again.
  void release(std::uint64_t number);

 private:
  /// False when the time was over.
  bool receive(std::chrono::milliseconds timeout);

  hobbes_channel* channel_ = nullptr;
  std::deque<Message> steps_;
  bool ended_ = false, failed_ = false;
};

}  // namespace hobbes::adios
