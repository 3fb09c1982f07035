// The foreground terminal: carries bytes between this process's terminal and the enclave's.
#pragma once
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "core/standard_streams.h"

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
  void watch(pollfd& ours, pollfd& theirs, pollfd& printed) const;
  /// Never waits for a program that reads nothing.
  void move(const pollfd& ours, const pollfd& theirs);
  void resize() const;
  /// What the ended program left to be read. False while standard output has no room for the rest.
  bool drain();
  /// Why standard output could not be written.
  [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }
  /// Milliseconds until the terminal is to be looked at whatever happens, for poll(2).
  [[nodiscard]] int patience() const { return input_open_ || !master_ ? -1 : 100; }

 private:
  Relay() = default;
  void hand_on_keys();
  void type_end();
  void flush();
  [[nodiscard]] bool readable() const;
  std::string folder_;
  Fd listening_, master_;
  std::string
      typed_;  // what the enclave's terminal has no room for yet; nothing more is read meanwhile
  OutputStream out_{STDOUT_FILENO};
  std::optional<Error> failure_;
  termios saved_{};
  char last_typed_ = '\n';
  bool raw_ = false, input_open_ = true;
};

}  // namespace hobbes
