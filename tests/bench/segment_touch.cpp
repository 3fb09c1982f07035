// First touch of 1 GiB: a segment attached by name, against a plain shared mapping of a memfd.
// Interleaved rounds, medians.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "xemem/segment.h"

namespace {

constexpr std::size_t size = 1U << 30U;

double seconds_of(auto work) {
  auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main() {
  std::vector<double> ours, plain, attach;
  for (int round = 0; round < 5; ++round) {
    auto segment = hobbes::Segment::make("bench", size);
    if (!segment) {
      std::fprintf(stderr, "%s\n", segment.error().text().c_str());
      return 1;
    }
    void* mapped = nullptr;
    attach.push_back(seconds_of([&] {
      auto got = hobbes::SegmentAccess::get("bench", true);
      mapped = got ? got->map(0, size).value_or(nullptr) : nullptr;
    }));
    if (mapped == nullptr) return 1;
    ours.push_back(seconds_of([&] { std::memset(mapped, 1, size); }));
    ::munmap(mapped, size);

    int fd = ::memfd_create("plain", 0);
    if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return 1;
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    plain.push_back(seconds_of([&] { std::memset(memory, 1, size); }));
    ::munmap(memory, size);
    ::close(fd);
  }
  std::printf("attach %.0f us; first touch: segment %.2f GB/s, plain %.2f GB/s, ratio %.2f\n",
              median(attach) * 1e6, 1.0 / median(ours) * size * 1e-9,
              1.0 / median(plain) * size * 1e-9, median(plain) / median(ours));
  return 0;
}
