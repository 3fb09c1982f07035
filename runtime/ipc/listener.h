// Where others connect to: a name, and the queue of those who have.
#pragma once
#include "ipc/channel.h"

namespace hobbes {

/// A name that others connect to. One thread at a time.
class Listener {
 public:
  struct Options {
    mode_t mode = 0600;          ///< who may connect: the write bits of user, group and others
    std::string scope = "node";  ///< "node", "composition" or "enclave"
    std::size_t size = HOBBES_CHANNEL_USUAL;  ///< of each ring
  };
  /// Errors: Code::exists when the caller's user has that name, Code::exhausted (quota),
  /// Code::invalid, Code::unavailable.
  static Result<Listener> open(const std::string& name, const Options& options);
  ~Listener();  ///< withdraws the name
  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) = delete;

  /// The next who connects. Errors: Code::timeout.
  Result<Channel> accept(std::chrono::milliseconds patience);
  /// For poll(2): readable when a caller waits to be accepted.
  [[nodiscard]] int descriptor() const { return inbox_.get(); }

 private:
  Listener() = default;
  std::string name_;
  std::uint64_t handle_ = 0;
  Fd inbox_, delivery_;  // hobbesd's end is kept here, too: so it is found again after its death
};

}  // namespace hobbes
