// A round trip between two processes: by the doorbell of a segment, against two eventfds inherited
// over fork. Interleaved rounds, medians.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <vector>

#include "xemem/segment.h"

namespace {

constexpr int trips = 5000;
constexpr std::chrono::milliseconds patience(10'000);

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Microseconds of one round trip; the child answers whenever it hears.
double round_trip(const std::function<bool()>& ring, const std::function<bool()>& hear) {
  auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < trips; ++i)
    if (!ring() || !hear()) return -1;
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
             .count() /
         trips;
}

double by_doorbell() {
  auto mine = hobbes::SegmentAccess::get("bell", false);
  if (!mine || !mine->doorbell().listen()) return -1;
  int ready[2];
  if (::pipe(ready) != 0) return -1;
  pid_t child = ::fork();
  if (child == 0) {
    auto theirs = hobbes::SegmentAccess::get("bell", false);
    bool good = theirs && theirs->doorbell().listen() && ::write(ready[1], "r", 1) == 1;
    for (int i = 0; good && i < trips; ++i)
      good = hobbes::Doorbell::wait(theirs->doorbell().descriptor(), patience) &&
             theirs->doorbell().ring();
    ::_exit(good ? 0 : 1);
  }
  char word = 0;
  double out = ::read(ready[0], &word, 1) != 1
                   ? -1
                   : round_trip([&] { return static_cast<bool>(mine->doorbell().ring()); },
                                [&] {
                                  return static_cast<bool>(hobbes::Doorbell::wait(
                                      mine->doorbell().descriptor(), patience));
                                });
  ::close(ready[0]);
  ::close(ready[1]);
  ::waitpid(child, nullptr, 0);
  return out;
}

double by_eventfd() {
  int there = ::eventfd(0, EFD_NONBLOCK), back = ::eventfd(0, EFD_NONBLOCK);
  auto ring = [](int fd) { return ::eventfd_write(fd, 1) == 0; };
  auto hear = [](int fd) {
    eventfd_t count = 0;
    pollfd one{fd, POLLIN, 0};
    while (::eventfd_read(fd, &count) != 0)
      if (::poll(&one, 1, static_cast<int>(patience.count())) <= 0) return false;
    return true;
  };
  pid_t child = ::fork();
  if (child == 0) {
    bool good = true;
    for (int i = 0; good && i < trips; ++i) good = hear(there) && ring(back);
    ::_exit(good ? 0 : 1);
  }
  double out = round_trip([&] { return ring(there); }, [&] { return hear(back); });
  ::waitpid(child, nullptr, 0);
  ::close(there);
  ::close(back);
  return out;
}

}  // namespace

int main() {
  auto segment = hobbes::Segment::make("bell", 4096);
  if (!segment) {
    std::fprintf(stderr, "%s\n", segment.error().text().c_str());
    return 1;
  }
  std::vector<double> ours, plain;
  for (int round = 0; round < 9; ++round) {
    ours.push_back(by_doorbell());
    plain.push_back(by_eventfd());
    if (ours.back() < 0 || plain.back() < 0) return 1;
  }
  std::printf("round trip: doorbell %.1f us, eventfd %.1f us, ratio %.2f\n", median(ours),
              median(plain), median(ours) / median(plain));
  return 0;
}
