// A channel's ring whose other side writes what it likes, and what stands in the messages: the
// input is a list of steps.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/json.h"
#include "ipc/message_ring.h"

namespace {

using hobbes::MessageRing;
constexpr std::size_t size = 4096;

struct Input {
  const std::uint8_t* data;
  std::size_t left;
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t out = 0;
    const std::size_t count = bytes < left ? bytes : left;
    std::memcpy(&out, data, count);
    data += count;
    left -= count;
    return out;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  Input input{data, bytes};
  hobbes_channel_ring shared{};
  // Of exactly its size: what reads beyond it is found.
  std::vector<std::uint64_t> memory(size / 8);
  const MessageRing ring{&shared, reinterpret_cast<std::uint8_t*>(memory.data()), size};
  hobbes::MessageWriter writer(ring);
  hobbes::MessageReader reader(ring);
  std::vector<std::uint8_t> message(ring.largest());
  while (input.left > 0) {
    switch (input.number(1) % 6) {
      case 0:
        memory[input.number(2) % memory.size()] = input.number(8);
        break;
      case 1:
        memory[input.number(2) % memory.size()] = input.number(1) << 32U | input.number(2);
        break;
      case 2:
        shared.read = input.number(8);
        break;
      case 3:
        shared.reader_sleeps = shared.writer_sleeps = static_cast<std::uint32_t>(input.number(1));
        break;
      case 4: {
        const std::size_t first = input.number(2) % message.size();
        (void)writer.put(message.data(), first, message.data(), input.number(1));
        (void)writer.reader_sleeps();
        break;
      }
      default: {
        std::size_t got = 0;
        if (reader.peek(&got) != MessageRing::Status::good) break;
        if (got > ring.largest()) std::abort();
        reader.take(message.data(), got);
        (void)reader.writer_surely_sleeps();
        (void)hobbes::parse_cbor(message.data(), got, "a message");
      }
    }
  }
  (void)hobbes::parse_cbor(data, bytes, "the input");
  return 0;
}
