// Text for people: into the console ring, or out of the serial port when there is no Linux.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kitten {

struct Hex {
  std::uint64_t value;
};

/// One line of text, built on the stack and printed whole, so that lines of several cores do not
/// mix. Longer ones are cut.
class Line {
 public:
  Line& operator<<(const char* text);
  Line& operator<<(std::uint64_t number);
  Line& operator<<(std::uint32_t number) { return *this << static_cast<std::uint64_t>(number); }
  Line& operator<<(int number);
  Line& operator<<(Hex number);
  [[nodiscard]] const char* text() const { return text_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void add(char c);
  char text_[240] = {};
  std::size_t size_ = 0;
};

/// Prints a line and its end. Safe on any core, in interrupts and in fault handlers.
void print(const Line& line);

}  // namespace kitten
