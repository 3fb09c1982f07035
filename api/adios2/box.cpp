#include "box.h"

#include <algorithm>

namespace hobbes::adios {
namespace {

// The distance of neighbours in each dimension, in elements.
Dimensions strides_of(const Dimensions& count) {
  Dimensions out(count.size(), 1);
  for (std::size_t i = count.size(); i > 1; --i) out[i - 2] = out[i - 1] * count[i - 1];
  return out;
}

// Calls `row(source offset, target offset)` for each position in the first `depth` dimensions.
template <class Row>
void for_each_row(const Dimensions& count, std::size_t depth, const Dimensions& source_strides,
                  const Dimensions& target_strides, std::uint64_t source, std::uint64_t target,
                  const Row& row, std::size_t dimension = 0) {
  if (dimension == depth) return row(source, target);
  for (std::uint64_t i = 0; i < count[dimension]; ++i)
    for_each_row(count, depth, source_strides, target_strides,
                 source + i * source_strides[dimension], target + i * target_strides[dimension],
                 row, dimension + 1);
}

}  // namespace

std::uint64_t bytes_of(const Dimensions& count, std::size_t size) {
  std::uint64_t out = size;
  for (std::uint64_t one : count)
    if (__builtin_mul_overflow(out, one, &out))
      throw std::overflow_error("an array has more bytes than can be counted");
  return out;
}

void copy_common(const Box& source, const char* from, const Box& target, char* to,
                 std::size_t size) {
  const std::size_t rank = source.count.size();
  if (rank == 0) {
    std::memcpy(to, from, size);
    return;
  }
  const Dimensions source_strides = strides_of(source.count),
                   target_strides = strides_of(target.count);
  Dimensions common(rank);
  std::uint64_t source_at = 0, target_at = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::uint64_t begin = std::max(source.start[i], target.start[i]);
    const std::uint64_t end =
        std::min(source.start[i] + source.count[i], target.start[i] + target.count[i]);
    if (begin >= end) return;
    common[i] = end - begin;
    source_at += (begin - source.start[i]) * source_strides[i];
    target_at += (begin - target.start[i]) * target_strides[i];
  }
  // Behind the last dimension that one of them has only a part of, memory is contiguous in both.
  std::size_t depth = rank - 1;
  while (depth > 0 && common[depth] == source.count[depth] && common[depth] == target.count[depth])
    --depth;
  std::uint64_t run = size;
  for (std::size_t i = depth; i < rank; ++i) run *= common[i];
  for_each_row(common, depth, source_strides, target_strides, source_at, target_at,
               [&](std::uint64_t source_row, std::uint64_t target_row) {
                 std::memcpy(to + target_row * size, from + source_row * size, run);
               });
}

void copy_embedded(const Dimensions& inner, const Dimensions& offset, const Dimensions& outer,
                   char* embedded, char* dense, std::size_t size, bool pack) {
  const std::size_t rank = inner.size();
  if (offset.size() != rank || outer.size() != rank)
    throw std::invalid_argument("the memory selection has other dimensions than the variable");
  if (rank == 0) {
    std::memcpy(pack ? dense : embedded, pack ? embedded : dense, size);
    return;
  }
  const Dimensions strides = strides_of(outer);
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    if (offset[i] > outer[i] || inner[i] > outer[i] - offset[i])
      throw std::invalid_argument("the memory selection is larger than its memory");
    if (inner[i] == 0) return;
    at += offset[i] * strides[i];
  }
  for_each_row(inner, rank - 1, strides, strides_of(inner), at, 0,
               [&](std::uint64_t outer_row, std::uint64_t inner_row) {
                 char *a = embedded + outer_row * size, *b = dense + inner_row * size;
                 std::memcpy(pack ? b : a, pack ? a : b, inner[rank - 1] * size);
               });
}

}  // namespace hobbes::adios
