// What a step of a stream looks like to its readers: the description of its variables and
// attributes, which lies in a segment of the writer's first rank, and the messages by which writer
// and readers tell each other of steps. Version 1; docs/ADIOS2.md is its document.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace hobbes::adios {

constexpr std::uint64_t magic = 0x3153'4f49'4441'4248;  // "HBADIOS1", little-endian

/// How a variable is shaped; the numbers are part of the format.
enum class Shape : std::uint8_t { global_value, global_array, local_array };

/// Dimensions in row-major order, whatever the writer's language.
using Dimensions = std::vector<std::uint64_t>;

/// Where bytes are: in a segment that the reader attaches by its id.
struct Place {
  std::int64_t segment = -1;
  std::uint64_t offset = 0, size = 0;  ///< bytes
};

struct Block {
  std::uint32_t writer = 0;  ///< its rank
  Dimensions start, count;   ///< `start` is empty for local arrays
  Place data;
};

struct Variable {
  std::string name, type;  ///< the type's name as ADIOS2 writes it: "double"
  Shape shape = Shape::global_array;
  Dimensions global;         ///< of global arrays
  std::int32_t joined = -1;  ///< the dimension along which blocks are joined; -1: none
  bool local_value = false;  ///< one value of each rank: an array for readers
  std::vector<Block> blocks;
};

struct Attribute {
  std::string name, type;
  bool single = true;
  std::vector<std::string> elements;  ///< the bytes of each element
};

struct Step {
  std::uint64_t number = 0;
  std::vector<Variable> variables;
  std::vector<Attribute> attributes;
};

/// The bytes of a step.
std::string encode(const Step& step);
/// Throws std::runtime_error for bytes that no writer of this version makes: they are hostile until
/// this has returned. Places are not looked at.
Step decode(const char* bytes, std::size_t size);

/// What a reader relies on and a rank's own part need not have: names are there once, the blocks of
/// a variable have its dimensions and, in a global array, a place. Throws std::runtime_error.
void check_complete(const Step& step);

/// One message of a channel.
struct Message {
  enum Kind : std::uint32_t {
    step = 1,     ///< writer: there is a new one, described at `place`
    end = 2,      ///< writer: there will be no more
    release = 3,  ///< reader: step `number` is of no more use
  };
  std::uint32_t kind = 0, version = 1;
  std::uint64_t number = 0;
  Place place;
};
static_assert(sizeof(Message) == 40 && sizeof(Place) == 24);

}  // namespace hobbes::adios
