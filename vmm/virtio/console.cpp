#include "vmm/virtio/console.h"

#include <algorithm>
#include <utility>

namespace hobbes::vmm {
namespace {

constexpr unsigned to_guest = 0;  // the other queue is the guest's own

}  // namespace

Result<void> Console::notified(unsigned number) {
  if (number == to_guest) {
    if (std::exchange(room_wanted_, false)) room_();
    return {};
  }
  return transport().each(number, [this](const DescriptorChain& chain) -> Result<std::uint64_t> {
    std::uint64_t size = std::min(chain.readable_size(), request_limit);
    char text[piece];
    for (std::uint64_t at = 0; at < size; at += piece) {
      std::size_t length = std::min<std::uint64_t>(size - at, piece);
      if (!chain.take(at, std::as_writable_bytes(std::span(text).first(length)))) break;
      used_ = true;
      sink_({text, length});
    }
    return 0;
  });
}

void Console::reset() {
  used_ = false;
  if (std::exchange(room_wanted_, false)) room_();
}

std::size_t Console::type(std::string_view text) {
  std::size_t taken = 0;
  transport().locked([&]() -> Result<void> {
    // A guest can give buffers of no size.
    for (unsigned buffers = 0;
         taken < text.size() && transport().running() && buffers < queue_size_limit; ++buffers) {
      HOBBES_TRY(chain, transport().queue(to_guest).pop(transport().memory()));
      if (!chain) break;
      std::uint64_t written = chain->give(0, std::as_bytes(std::span(text.substr(taken))));
      transport().finish(to_guest, chain->head, written);
      taken += written;
    }
    room_wanted_ = taken < text.size();
    return {};
  });
  return taken;
}

void Console::resize(std::uint16_t columns, std::uint16_t rows) {
  transport().locked([&]() -> Result<void> {
    config_.cols = columns;
    config_.rows = rows;
    transport().configuration_changed();
    return {};
  });
}

}  // namespace hobbes::vmm
