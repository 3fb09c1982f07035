#include "buffers.h"

#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "hobbes.h"

namespace hobbes::adios {
namespace {

constexpr std::size_t alignment = 64, smallest = 1U << 20U;

std::size_t rounded(std::size_t size, std::size_t to) { return (size + to - 1) / to * to; }

}  // namespace

BufferPool::BufferPool(std::string name, int rank, unsigned mode)
    : name_(std::move(name)), rank_(rank), mode_(mode) {}

BufferPool::~BufferPool() {
  for (const Buffer& buffer : buffers_) (void)hobbes_segment_detach(buffer.base);
}

void BufferPool::begin(std::uint64_t step) {
  largest_step_ = std::max(largest_step_, step_size_);
  step_ = step;
  step_size_ = 0;
  current_ = SIZE_MAX;
}

BufferPool::Buffer& BufferPool::buffer_for(std::size_t size) {
  // The smallest that is large enough: the others stay for larger steps.
  std::size_t best = SIZE_MAX;
  for (std::size_t i = 0; i < buffers_.size(); ++i)
    if (buffers_[i].free && buffers_[i].size >= size &&
        (best == SIZE_MAX || buffers_[i].size < buffers_[best].size))
      best = i;
  if (best == SIZE_MAX) {
    Buffer fresh;
    // A half more than was ever needed: steps that grow a little each time would need a new one
    // each.
    fresh.size = rounded(std::max({size, smallest, largest_step_ + largest_step_ / 2}), smallest);
    drop_smaller(fresh.size);
    const std::string name = name_ + "." + std::to_string(::getpid()) + "." +
                             std::to_string(rank_) + "." + std::to_string(next_++);
    void* address = nullptr;
    fresh.segment = hobbes_segment_make(name.c_str(), fresh.size, mode_, 0, &address);
    if (fresh.segment < 0) throw std::runtime_error(hobbes_error());
    fresh.base = static_cast<char*>(address);
    buffers_.push_back(fresh);
    best = buffers_.size() - 1;
  }
  Buffer& out = buffers_[best];
  out.free = false;
  out.step = step_;
  out.used = 0;
  current_ = best;
  return out;
}

// What is free and too small now would never be used again.
void BufferPool::drop_smaller(std::size_t size) {
  std::erase_if(buffers_, [&](const Buffer& buffer) {
    const bool drop = buffer.free && buffer.size < size;
    if (drop) (void)hobbes_segment_detach(buffer.base);
    return drop;
  });
  current_ = SIZE_MAX;
}

Place BufferPool::allocate(std::size_t size, char** address) {
  const bool fits =
      current_ != SIZE_MAX &&
      size <= buffers_[current_].size - std::min(buffers_[current_].used, buffers_[current_].size);
  Buffer& buffer = fits ? buffers_[current_] : buffer_for(size);
  const Place out{buffer.segment, buffer.used, size};
  *address = buffer.base + buffer.used;
  buffer.used = rounded(buffer.used + size, alignment);
  step_size_ += rounded(size, alignment);
  return out;
}

void BufferPool::keep_only(const std::set<std::uint64_t>& held) {
  for (Buffer& buffer : buffers_)
    if (!buffer.free && held.count(buffer.step) == 0) buffer.free = true;
}

void Attachments::step_ended() {
  constexpr std::uint64_t patience = 8;
  ++steps_;
  std::erase_if(segments_, [&](const auto& entry) {
    const Attachment& one = entry.second;
    if (one.used + patience >= steps_) return false;
    (void)hobbes_segment_detach(one.base);
    (void)hobbes_segment_release(one.access);
    return true;
  });
}

Attachments::~Attachments() {
  for (const auto& [segment, one] : segments_) {
    (void)hobbes_segment_detach(one.base);
    (void)hobbes_segment_release(one.access);
  }
}

const char* Attachments::at(const Place& place) {
  auto known = segments_.find(place.segment);
  if (known == segments_.end()) {
    Attachment fresh;
    fresh.access = hobbes_segment_get(place.segment, HOBBES_RDONLY);
    if (fresh.access < 0) throw std::runtime_error(hobbes_error());
    const std::int64_t size = hobbes_segment_size(fresh.access);
    void* base = size > 0 ? hobbes_segment_attach(fresh.access, 0, 0) : nullptr;
    if (base == nullptr) {
      const std::string why = hobbes_error();
      (void)hobbes_segment_release(fresh.access);
      throw std::runtime_error(why);
    }
    fresh.base = static_cast<char*>(base);
    fresh.size = static_cast<std::uint64_t>(size);
    known = segments_.emplace(place.segment, fresh).first;
  }
  Attachment& there = known->second;
  there.used = steps_;
  if (place.offset > there.size || place.size > there.size - place.offset)
    throw std::runtime_error("a block of a step lies outside of its writer's segment");
  return there.base + place.offset;
}

}  // namespace hobbes::adios
