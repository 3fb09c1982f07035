// Boxes of arrays: what a reader selects is put together from the blocks that writers have put.
#pragma once
#include <cstddef>

#include "format.h"

namespace hobbes::adios {

/// A part of an array, in row-major order.
struct Box {
  Dimensions start, count;
};

/// Bytes of a box whose elements have `size` bytes; of one element without dimensions. Throws
/// std::overflow_error for more than can be counted.
std::uint64_t bytes_of(const Dimensions& count, std::size_t size);

/// Copies what `source` and `target` have in common from memory that holds `source` to memory that
/// holds `target`. Both lie in the same array, with as many dimensions; `size` is an element's. The
/// memories have room for bytes_of(count, size) bytes.
void copy_common(const Box& source, const char* from, const Box& target, char* to,
                 std::size_t size);

/// `inner` lies in memory whose box is `outer`, beginning at `offset` there: copies it from
/// (`pack`) or to that memory, the other side being dense. Throws std::invalid_argument when it
/// does not fit.
void copy_embedded(const Dimensions& inner, const Dimensions& offset, const Dimensions& outer,
                   char* embedded, char* dense, std::size_t size, bool pack);

}  // namespace hobbes::adios
