#include "format.h"

#include <set>

namespace hobbes::adios {
namespace {

constexpr std::uint64_t dimensions_most = 32, blocks_most = 1U << 20U, names_most = 1U << 20U;

class Encoder {
 public:
  void number(std::uint64_t value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(const std::string& value) {
    number(value.size());
    bytes_ += value;
  }
  void dimensions(const Dimensions& value) {
    number(value.size());
    for (std::uint64_t one : value) number(one);
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Decoder {
 public:
  Decoder(const char* bytes, std::size_t size) : at_(bytes), left_(size) {}
  std::uint64_t number() {
    std::uint64_t out = 0;
    std::memcpy(&out, take(sizeof out), sizeof out);
    return out;
  }
  std::uint64_t number_up_to(std::uint64_t most) {
    const std::uint64_t out = number();
    if (out > most) fail();
    return out;
  }
  std::string text() {
    const std::uint64_t size = number();
    return {take(size), size};
  }
  Dimensions dimensions() {
    Dimensions out(number_up_to(dimensions_most));
    for (std::uint64_t& one : out) one = number();
    return out;
  }
  void expect_end() const {
    if (left_ != 0) fail();
  }

 private:
  const char* take(std::uint64_t size) {
    if (size > left_) fail();
    const char* out = at_;
    at_ += size;
    left_ -= size;
    return out;
  }
  [[noreturn]] static void fail() {
    throw std::runtime_error("the description of a step is damaged, or of another version");
  }
  const char* at_;
  std::size_t left_;
};

}  // namespace

std::string encode(const Step& step) {
  Encoder out;
  out.number(magic);
  out.number(step.number);
  out.number(step.attributes.size());
  for (const Attribute& one : step.attributes) {
    out.text(one.name);
    out.text(one.type);
    out.number(one.single ? 1 : 0);
    out.number(one.elements.size());
    for (const std::string& element : one.elements) out.text(element);
  }
  out.number(step.variables.size());
  for (const Variable& one : step.variables) {
    out.text(one.name);
    out.text(one.type);
    out.number(static_cast<std::uint64_t>(one.shape));
    out.number(static_cast<std::uint64_t>(one.joined + 1));
    out.number(one.local_value ? 1 : 0);
    out.dimensions(one.global);
    out.number(one.blocks.size());
    for (const Block& block : one.blocks) {
      out.number(block.writer);
      out.dimensions(block.start);
      out.dimensions(block.count);
      out.number(static_cast<std::uint64_t>(block.data.segment));
      out.number(block.data.offset);
      out.number(block.data.size);
    }
  }
  return out.take();
}

Step decode(const char* bytes, std::size_t size) {
  Decoder in(bytes, size);
  Step out;
  if (in.number() != magic)
    throw std::runtime_error("this is no step of a stream, or of another version");
  out.number = in.number();
  for (std::uint64_t n = in.number_up_to(names_most); n > 0; --n) {
    Attribute one;
    one.name = in.text();
    one.type = in.text();
    one.single = in.number_up_to(1) == 1;
    for (std::uint64_t m = in.number_up_to(names_most); m > 0; --m)
      one.elements.push_back(in.text());
    out.attributes.push_back(std::move(one));
  }
  for (std::uint64_t n = in.number_up_to(names_most); n > 0; --n) {
    Variable one;
    one.name = in.text();
    one.type = in.text();
    one.shape = static_cast<Shape>(in.number_up_to(2));
    one.joined = static_cast<std::int32_t>(in.number_up_to(dimensions_most)) - 1;
    one.local_value = in.number_up_to(1) == 1;
    one.global = in.dimensions();
    for (std::uint64_t m = in.number_up_to(blocks_most); m > 0; --m) {
      Block block;
      block.writer = static_cast<std::uint32_t>(in.number_up_to(UINT32_MAX));
      block.start = in.dimensions();
      block.count = in.dimensions();
      block.data.segment = static_cast<std::int64_t>(in.number());
      block.data.offset = in.number();
      block.data.size = in.number();
      one.blocks.push_back(std::move(block));
    }
    out.variables.push_back(std::move(one));
  }
  in.expect_end();
  return out;
}

void check_complete(const Step& step) {
  std::set<std::string> names;
  for (const Variable& one : step.variables) {
    const bool array = one.shape == Shape::global_array;
    const std::size_t rank = one.shape == Shape::global_value ? 0
                             : array                          ? one.global.size()
                             : one.blocks.empty()             ? 0
                                                              : one.blocks.front().count.size();
    bool good = names.insert(one.name).second && !one.blocks.empty();
    for (const Block& block : one.blocks)
      good = good && block.count.size() == rank && block.start.size() == (array ? rank : 0);
    if (!good) throw std::runtime_error("the description of '" + one.name + "' is damaged");
  }
}

}  // namespace hobbes::adios
