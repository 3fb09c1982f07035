// What a snapshot costs the program whose segment it shows, against a copy that the program makes
// itself and against fork(2) of private memory. The program computes for 5 ms and writes to 1, 10
// or 100 % of the pages, again and again; it and who takes snapshots have a core each. Ratios to
// the copy of the same run.
#include "xemem/snapshot.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t size = 256U << 20U;
constexpr int snapshots = 10;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  (void)::sched_setaffinity(0, sizeof one, &one);
}

// Computes, then writes to every nth page.
struct Writer {
  char* base;
  std::size_t stride;
  char value = 0;
  double sum = 0;
  void step() {
    ++value;
    for (int i = 0; i < 1'500'000; ++i) sum = sum * 0.999 + i;
    for (std::size_t at = 0; at < size; at += stride) {
      static_cast<volatile char*>(base)[at] = value;
    }
  }
};

struct Cost {
  double lost = 0;   // seconds of the program's per snapshot
  double pause = 0;  // the longest step beyond a usual one
};

// Steps until `done`, and what of that time was not stepping. `usual`: seconds of a step.
Cost run(Writer& writer, double usual, const std::function<bool()>& done, int count) {
  Cost out;
  std::size_t steps = 0;
  const auto begin = Clock::now();
  while (!done()) {
    const auto before = Clock::now();
    writer.step();
    out.pause = std::max(out.pause, seconds_since(before) - usual);
    ++steps;
  }
  out.lost = std::max(0.0, seconds_since(begin) - usual * static_cast<double>(steps)) / count;
  return out;
}

double usual_step(Writer& writer) {
  std::vector<double> out;
  for (int i = 0; i < 40; ++i) {
    const auto before = Clock::now();
    writer.step();
    out.push_back(seconds_since(before));
  }
  return median(out);
}

struct Shared {
  std::atomic<int> taken;
  double took[snapshots];
};

// A child takes snapshots, 100 ms apart.
Cost of_snapshots(const hobbes::Segment& segment, Writer& writer, double usual, double* took) {
  auto* shared = static_cast<Shared*>(
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const std::uint64_t handle = segment.handle();
  const pid_t child = ::fork();
  if (child == 0) {
    pin(1);
    for (int i = 0; i < snapshots; ++i) {
      ::usleep(100'000);
      const auto begin = Clock::now();
      auto taken = hobbes::take_snapshot(handle);
      if (!taken) std::fprintf(stderr, "%s\n", taken.error().text().c_str());
      shared->took[i] = seconds_since(begin);
      ++shared->taken;
    }
    ::_exit(0);
  }
  Cost out = run(
      writer, usual, [&] { return shared->taken.load() == snapshots; }, snapshots);
  ::waitpid(child, nullptr, 0);
  *took = median({shared->took, shared->took + snapshots});
  ::munmap(shared, sizeof(Shared));
  return out;
}

// The program copies its memory itself, into memory that was used before.
double of_copying(const Writer& writer, std::size_t page) {
  std::vector<double> out;
  int fd = ::memfd_create("copy", page > 4096 ? MFD_HUGETLB : 0);
  if (::ftruncate(fd, size) != 0) return 0;
  auto* to = static_cast<char*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  std::memset(to, 0, size);
  for (int i = 0; i < 5; ++i) {
    const auto begin = Clock::now();
    std::memcpy(to, writer.base, size);
    out.push_back(seconds_since(begin));
  }
  ::munmap(to, size);
  ::close(fd);
  return median(out);
}

// A child of the program sees its private memory as it was.
Cost of_forks(std::size_t stride) {
  auto* base = static_cast<char*>(
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(base, 1, size);
  Writer writer{base, stride};
  const double usual = usual_step(writer);
  Cost out;
  for (int i = 0; i < snapshots; ++i) {
    const auto before = Clock::now();
    const pid_t child = ::fork();
    if (child == 0) {
      pin(1);
      ::usleep(50'000);
      ::_exit(0);
    }
    out.pause = std::max(out.pause, seconds_since(before));
    out.lost += seconds_since(before) / snapshots;
    out.lost +=
        run(
            writer, usual, [&] { return ::waitpid(child, nullptr, WNOHANG) == child; }, snapshots)
            .lost;
  }
  ::munmap(base, size);
  return out;
}

}  // namespace

int main() {
  pin(0);
  std::printf("256 MiB; milliseconds per snapshot\n%6s %8s %8s | %8s %8s %8s | %8s %8s | %s\n",
              "pages", "written", "copy", "lost", "pause", "taking", "fork", "pause",
              "lost and pause to the copy");
  for (std::size_t page : {std::size_t{4096}, std::size_t{2} << 20U}) {
    hobbes::SegmentOptions options;
    options.snapshots = true;
    options.page_size = page > 4096 ? page : 0;
    auto segment = hobbes::Segment::make("bench-" + std::to_string(page), size, options);
    if (!segment) {
      std::printf("%zu KiB pages: %s\n", page >> 10U, segment.error().text().c_str());
      continue;
    }
    auto* base = static_cast<char*>(segment->data());
    std::memset(base, 1, size);
    for (std::size_t percent : {1U, 10U, 100U}) {
      const std::size_t stride = page * std::max<std::size_t>(100 / percent, 1);
      Writer writer{base, stride};
      const double usual = usual_step(writer);
      const double copy = of_copying(writer, page);
      double took = 0;
      const Cost ours = of_snapshots(*segment, writer, usual, &took);
      const Cost forks = page == 4096 ? of_forks(stride) : Cost{};
      std::printf("%4zuKiB %7zu%% %8.2f | %8.2f %8.2f %8.2f | %8.2f %8.2f | %.2f %.3f\n",
                  page >> 10U, percent, copy * 1e3, ours.lost * 1e3, ours.pause * 1e3, took * 1e3,
                  forks.lost * 1e3, forks.pause * 1e3, ours.lost / copy, ours.pause / copy);
    }
  }
  return 0;
}
