// The foreground terminal: carries bytes between this process's terminal and the enclave's.
#pragma once
#include <poll.h>
#include <termios.h>

#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Restores the terminal's mode when destroyed. Move-only.
class Relay {
 public:
  /// Makes a private console socket for the driver to send the terminal to.
  static Result<Relay> open();
  Relay(Relay&& other) noexcept;
  Relay& operator=(Relay&&) = delete;
  ~Relay();

  [[nodiscard]] std::string socket_path() const { return folder_ + "/console"; }
  Result<void> receive();  ///< takes the terminal and switches ours to raw mode
  void watch(pollfd& ours, pollfd& theirs) const;
  /// Never waits for a program that reads nothing.
  void move(const pollfd& ours, const pollfd& theirs);
  void resize() const;
  void drain();  ///< what the ended program left to be read

 private:
  Relay() = default;
  void hand_on_keys();
  std::string folder_;
  Fd listening_, master_;
  std::string typed_;  // what the enclave's terminal has no room for yet; nothing more is read meanwhile
  termios saved_{};
  bool raw_ = false, input_open_ = true;
};

}  // namespace hobbes
