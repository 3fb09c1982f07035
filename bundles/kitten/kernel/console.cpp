#include "console.h"

#include "clock.h"
#include "cpu.h"
#include "lock.h"
#include "shared.h"

namespace kitten {
namespace {

constexpr std::uint16_t serial = 0x3f8;
SpinLock console_lock;

void serial_write(const char* text, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    while ((cpu::in8(serial + 5) & 0x20U) == 0) cpu::relax();
    cpu::out8(serial, static_cast<std::uint8_t>(text[i]));
  }
}

void write(const char* text, std::size_t size) {
  if (alone != 0) return serial_write(text, size);
  hobbes::Ring ring(shared_at(HOBBES_CONSOLE_OFFSET), HOBBES_RING_BYTES);
  ring.write(text, size);
}

}  // namespace

void Line::add(char c) {
  if (size_ + 1 < sizeof text_) text_[size_++] = c;
}

Line& Line::operator<<(const char* text) {
  while (*text != '\0') add(*text++);
  return *this;
}

Line& Line::operator<<(std::uint64_t number) {
  char digits[20];
  int count = 0;
  do digits[count++] = static_cast<char>('0' + number % 10);
  while ((number /= 10) != 0);
  while (count > 0) add(digits[--count]);
  return *this;
}

Line& Line::operator<<(int number) {
  if (number >= 0) return *this << static_cast<std::uint64_t>(number);
  add('-');
  return *this << static_cast<std::uint64_t>(-static_cast<std::int64_t>(number));
}

Line& Line::operator<<(Hex number) {
  *this << "0x";
  bool begun = false;
  for (int shift = 60; shift >= 0; shift -= 4) {
    auto digit = static_cast<unsigned>(number.value >> static_cast<unsigned>(shift)) & 15U;
    begun |= digit != 0 || shift == 0;
    if (begun) add("0123456789abcdef"[digit]);
  }
  return *this;
}

void print(const Line& line) {
  Line stamp;
  std::uint64_t ns = uptime_ns();
  stamp << "[" << ns / 1'000'000'000 << ".";
  for (std::uint64_t digit = 100'000'000; digit >= 1'000; digit /= 10) stamp << ns / digit % 10;
  stamp << "] ";
  cpu::Quiet quiet;
  // A core that faulted inside `write` must still be able to report: it waits for a while, then
  // writes all the same.
  bool mine = console_lock.try_for(1'000'000);
  write(stamp.text(), stamp.size());
  write(line.text(), line.size());
  write("\n", 1);
  if (mine) console_lock.release();
}

}  // namespace kitten
