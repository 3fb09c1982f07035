#include "vmm/serial.h"

#include <algorithm>

namespace hobbes::vmm {
namespace {

enum Register : std::uint64_t {
  data = 0,
  interrupt_enable = 1,
  identification = 2,
  line_control = 3,
  modem_control = 4,
  line_status = 5
};
constexpr std::uint8_t divisor_latch = 0x80, loopback = 0x10;
constexpr std::uint8_t wants_input = 1, wants_output = 2;
constexpr std::uint8_t data_ready = 0x01, transmitter_empty = 0x60;
constexpr std::size_t input_limit = 4096;

}  // namespace

std::uint8_t Serial::identification() {
  constexpr std::uint8_t fifos = 0xc0;
  if ((enabled_ & wants_input) != 0 && !input_.empty()) return fifos | 0x04;
  if ((enabled_ & wants_output) != 0 && transmitter_asks_) {
    transmitter_asks_ = false;  // reading acknowledges it
    return fifos | 0x02;
  }
  return fifos | 0x01;
}

void Serial::raise_if_wanted() {
  if (((enabled_ & wants_input) != 0 && !input_.empty()) ||
      ((enabled_ & wants_output) != 0 && transmitter_asks_))
    interrupt_();
}

std::size_t Serial::type(std::string_view text) {
  std::scoped_lock guard(lock_);
  std::size_t taken = std::min(text.size(), input_limit - input_.size());
  input_.insert(input_.end(), text.begin(), text.begin() + static_cast<std::ptrdiff_t>(taken));
  room_wanted_ = taken < text.size();
  raise_if_wanted();
  return taken;
}

void Serial::read(std::uint64_t offset, std::span<std::byte> data_out) {
  std::scoped_lock guard(lock_);
  std::uint8_t value = 0;
  switch (offset) {
    case data:
      if ((line_ & divisor_latch) != 0) {
        value = static_cast<std::uint8_t>(divisor_);
      } else if (!input_.empty()) {
        value = static_cast<std::uint8_t>(input_.front());
        input_.pop_front();
        raise_if_wanted();
        if (room_wanted_ && input_.empty()) {
          room_wanted_ = false;
          room_();
        }
      }
      break;
    case interrupt_enable:
      value = (line_ & divisor_latch) != 0 ? static_cast<std::uint8_t>(divisor_ >> 8U) : enabled_;
      break;
    case Register::identification:
      value = identification();
      break;
    case line_control:
      value = line_;
      break;
    case modem_control:
      value = modem_;
      break;
    case line_status:
      value = static_cast<std::uint8_t>(transmitter_empty | (input_.empty() ? 0 : data_ready));
      break;
    case 6:  // modem status: carrier, ready; in loopback what modem control says, which is how
             // drivers find the chip
      value = (modem_ & loopback) != 0
                  ? static_cast<std::uint8_t>((modem_ & 0x0cU) << 4U | (modem_ & 0x02U) << 3U |
                                              (modem_ & 0x01U) << 5U)
                  : 0xb0;
      break;
    default:
      value = scratch_;
  }
  for (std::byte& byte : data_out) byte = std::byte{value};
}

void Serial::write(std::uint64_t offset, std::span<const std::byte> data_in) {
  std::scoped_lock guard(lock_);
  auto value = std::to_integer<std::uint8_t>(data_in[0]);
  switch (offset) {
    case data:
      if ((line_ & divisor_latch) != 0) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff00U) | value);
      } else if ((modem_ & loopback) != 0) {
        if (input_.size() < input_limit) input_.push_back(static_cast<char>(value));
      } else {
        sink_(static_cast<char>(value));
        transmitter_asks_ = true;
        raise_if_wanted();
      }
      break;
    case interrupt_enable:
      if ((line_ & divisor_latch) != 0) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xffU) | value << 8U);
      } else {
        transmitter_asks_ =
            transmitter_asks_ || ((value & wants_output) != 0 && (enabled_ & wants_output) == 0);
        enabled_ = value & 0x0fU;
        raise_if_wanted();
      }
      break;
    case line_control:
      line_ = value;
      break;
    case modem_control:
      modem_ = value;
      break;
    case 7:
      scratch_ = value;
      break;
    default:
      break;
  }
}

}  // namespace hobbes::vmm
