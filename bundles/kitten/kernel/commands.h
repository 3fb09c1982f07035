// The command channel: what Linux asks of this kernel. A command is a function in a table that the
// linker collects.
#pragma once
#include <cstddef>
#include <cstdint>

#include "abi/kitten.h"

namespace kitten {

/// A request's payload and the room for its reply's. Everything in the payload is untrusted.
class Exchange {
 public:
  Exchange(const std::uint8_t* payload, std::size_t size, std::uint8_t* reply, std::size_t room)
      : payload_(payload), size_(size), reply_(reply), room_(room) {}

  [[nodiscard]] std::size_t size() const { return size_; }
  /// The payload at an offset as a T. False: it is too short.
  template <class T>
  bool get(T* out, std::size_t offset = 0) const {
    if (offset > size_ || size_ - offset < sizeof(T)) return false;
    __builtin_memcpy(out, payload_ + offset, sizeof(T));
    return true;
  }
  /// Adds bytes to the reply. False: no room.
  bool put(const void* bytes, std::size_t size) {
    if (size > room_ - replied_) return false;
    __builtin_memcpy(reply_ + replied_, bytes, size);
    replied_ += size;
    return true;
  }
  [[nodiscard]] const std::uint8_t* payload() const { return payload_; }
  [[nodiscard]] std::size_t replied() const { return replied_; }

 private:
  const std::uint8_t* payload_;
  std::size_t size_;
  std::uint8_t* reply_;
  std::size_t room_, replied_ = 0;
};

/// Answers with 0 or an errno.
struct Command {
  std::uint64_t operation;
  int (*run)(Exchange&);
};

#define KITTEN_COMMAND(operation, function)                                                    \
  [[gnu::section(".commands"), gnu::used]] static const ::kitten::Command command_##function { \
    (operation), (function)                                                                    \
  }

/// Core 0, once: the channel is there.
void begin_commands();
/// Core 0: one request of Linux's. False: there is none.
bool serve_request_of_linux();
/// Core 0 shows that it lives.
void beat();
/// The heartbeat alone, while core 0 waits for Linux: a slow Linux is no hang of this kernel.
void show_life();
/// The doorbell towards Linux: to the enclave's control process, and to views.
void ring_linux();
void ring_for_views();

}  // namespace kitten
