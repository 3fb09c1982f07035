// The fabric beside what it is measured against, in one run: a bare ping-pong in shared memory, two
// eventfds, a pair of Unix sockets, memcpy. Usage: fabric [--json]; needs a hobbesd.
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "ipc/service.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "fabric: %s\n", why.c_str());
  std::_Exit(1);
}

void on_cpu(int number) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(number, &set);
  (void)::sched_setaffinity(0, sizeof set, &set);
}

int cpus[2] = {0, 1};

// One process for each end, each on a core of its own.
template <class Work>
pid_t other_end(Work work) {
  pid_t child = ::fork();
  if (child == 0) {
    on_cpu(cpus[1]);
    work();
    std::_Exit(0);
  }
  on_cpu(cpus[0]);
  return child;
}

// Nanoseconds for one of `count` rounds: the median of five runs.
template <class Round>
double rounds(int count, Round round) {
  std::vector<double> runs;
  for (int run = 0; run < 5; ++run) {
    auto begin = Clock::now();
    for (int i = 0; i < count; ++i) round();
    runs.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / count);
  }
  std::sort(runs.begin(), runs.end());
  return runs[2];
}

void end(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

struct alignas(64) Mailbox {
  std::uint64_t number;
  char bytes[64];
};

double bare_ping_pong() {
  auto* box = static_cast<Mailbox*>(::mmap(nullptr, 2 * sizeof(Mailbox), PROT_READ | PROT_WRITE,
                                           MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  auto post = [](Mailbox& to, const char* bytes, std::uint64_t number) {
    std::memcpy(to.bytes, bytes, 64);
    __atomic_store_n(&to.number, number, __ATOMIC_RELEASE);
  };
  auto take = [](Mailbox& from, char* bytes, std::uint64_t number) {
    while (__atomic_load_n(&from.number, __ATOMIC_ACQUIRE) != number) {
    }
    std::memcpy(bytes, from.bytes, 64);
  };
  pid_t child = other_end([&] {
    char bytes[64];
    for (std::uint64_t i = 1;; ++i) {
      take(box[0], bytes, i);
      post(box[1], bytes, i);
    }
  });
  char bytes[64] = {};
  std::uint64_t i = 0;
  double out = rounds(200'000, [&] {
    post(box[0], bytes, ++i);
    take(box[1], bytes, i);
  });
  end(child);
  return out;
}

double two_eventfds() {
  int there = ::eventfd(0, 0), back = ::eventfd(0, 0);
  std::uint64_t one = 1;
  pid_t child = other_end([&] {
    for (;;)
      if (::read(there, &one, 8) != 8 || ::write(back, &one, 8) != 8) return;
  });
  double out = rounds(10'000, [&] {
    if (::write(there, &one, 8) != 8 || ::read(back, &one, 8) != 8) die("eventfd");
  });
  end(child);
  return out;
}

double unix_sockets() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) die("socketpair");
  char bytes[64] = {};
  pid_t child = other_end([&] {
    for (;;)
      if (::read(ends[1], bytes, 64) != 64 || ::write(ends[1], bytes, 64) != 64) return;
  });
  double out = rounds(10'000, [&] {
    if (::write(ends[0], bytes, 64) != 64 || ::read(ends[0], bytes, 64) != 64) die("socket");
  });
  end(child);
  return out;
}

double channel(Waiting waiting, int count) {
  auto listener = Listener::open("bench-channel", {});
  if (!listener) die(listener.error().text());
  pid_t child = other_end([&] {
    auto accepted = listener->accept(milliseconds(10'000));
    if (!accepted) std::_Exit(1);
    accepted->set_waiting(waiting);
    char bytes[64];
    std::size_t size = 0;
    while (accepted->receive(bytes, 64, &size, Channel::forever) == Channel::Status::good)
      (void)accepted->send(bytes, size, Channel::forever);
  });
  auto connected = Channel::connect("bench-channel", {}, milliseconds(10'000));
  if (!connected) die(connected.error().text());
  connected->set_waiting(waiting);
  char bytes[64] = {};
  std::size_t size = 0;
  double out = rounds(count, [&] {
    if (connected->send(bytes, 64, Channel::forever) != Channel::Status::good ||
        connected->receive(bytes, 64, &size, Channel::forever) != Channel::Status::good)
      die("channel");
  });
  end(child);
  return out;
}

// What throughput is held against: 4 KiB copied into and out of 16 slots, with a flag for each,
// from core to core.
double bare_hand_over() {
  struct alignas(64) Slot {
    std::uint64_t full;
    alignas(64) char bytes[4096];
  };
  constexpr std::size_t slots = 16;
  auto* slot = static_cast<Slot*>(::mmap(nullptr, slots * sizeof(Slot), PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  auto until = [](std::uint64_t& flag, std::uint64_t value) {
    while (__atomic_load_n(&flag, __ATOMIC_ACQUIRE) != value) {
    }
  };
  pid_t child = other_end([&] {
    std::vector<char> bytes(4096);
    for (std::size_t i = 0;; i = (i + 1) % slots) {
      until(slot[i].full, 1);
      std::memcpy(bytes.data(), slot[i].bytes, 4096);
      __atomic_store_n(&slot[i].full, std::uint64_t{0}, __ATOMIC_RELEASE);
    }
  });
  std::vector<char> bytes(4096);
  std::size_t i = 0;
  double out = rounds(100'000, [&] {
    until(slot[i].full, 0);
    std::memcpy(slot[i].bytes, bytes.data(), 4096);
    __atomic_store_n(&slot[i].full, std::uint64_t{1}, __ATOMIC_RELEASE);
    i = (i + 1) % slots;
  });
  end(child);
  return out;
}

double throughput() {
  auto listener = Listener::open("bench-throughput", {});
  if (!listener) die(listener.error().text());
  pid_t child = other_end([&] {
    auto accepted = listener->accept(milliseconds(10'000));
    if (!accepted) std::_Exit(1);
    accepted->set_waiting(Waiting::spin);
    std::vector<char> bytes(4096);
    std::size_t size = 0;
    while (accepted->receive(bytes.data(), 4096, &size, Channel::forever) ==
           Channel::Status::good) {
    }
  });
  auto connected = Channel::connect("bench-throughput", {}, milliseconds(10'000));
  if (!connected) die(connected.error().text());
  connected->set_waiting(Waiting::spin);
  std::vector<char> bytes(4096);
  double out = rounds(100'000, [&] {
    if (connected->send(bytes.data(), 4096, Channel::forever) != Channel::Status::good)
      die("throughput");
  });
  end(child);
  return out;
}

pid_t calculator(Waiting waiting) {
  return other_end([&] {
    auto service = Service::open("bench-service");
    if (!service) die(service.error().text());
    service->commands().set_waiting(waiting);
    service->add("double", "twice a number", [](double x) { return 2 * x; });
    (void)service->serve(Channel::forever);
  });
}

double remote_call(Waiting waiting, int count, int clients) {
  pid_t child = calculator(waiting);
  std::vector<ServiceClient> all;
  for (int i = 0; i < clients; ++i) {
    auto client = ServiceClient::connect("bench-service", {}, milliseconds(10'000));
    if (!client) die(client.error().text());
    client->commands().set_waiting(waiting);
    all.push_back(std::move(*client));
  }
  std::size_t next = 0;
  double out = rounds(count, [&] {
    auto answer = all[next++ % all.size()].call<double>("double", 21.0, milliseconds(10'000));
    if (!answer) die(answer.error().text());
  });
  end(child);
  ::usleep(50'000);  // its name goes with it
  return out;
}

double connecting() {
  auto listener = Listener::open("bench-connect", {});
  if (!listener) die(listener.error().text());
  pid_t child = other_end([&] {
    for (;;) (void)listener->accept(milliseconds(10'000));
  });
  double out = rounds(200, [&] {
    auto connected = Channel::connect("bench-connect", {}, milliseconds(1000));
    if (!connected) die(connected.error().text());
  });
  end(child);
  return out;
}

void print(const char* what, double ns, double against, const char* peer) {
  std::printf("%-44s %12.0f ns", what, ns);
  if (against > 0) std::printf("   %8.2f of %s", ns / against, peer);
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace hobbes

int main() {
  using namespace hobbes;
  const double bare = bare_ping_pong(), eventfds = two_eventfds(), sockets = unix_sockets();
  print("bare ping-pong of 64 bytes", bare, 0, "");
  print("two eventfds", eventfds, 0, "");
  print("Unix sockets, 64 bytes", sockets, 0, "");
  print("channel, 64 bytes, spinning", channel(Waiting::spin, 200'000), bare, "the bare ping-pong");
  print("channel, 64 bytes, sleeping", channel(Waiting::sleep, 10'000), eventfds, "two eventfds");
  const double copy = bare_hand_over();
  print("bare hand-over of 4 KiB", copy, 0, "");
  print("channel, one message of 4 KiB, spinning", throughput(), copy, "the bare one");
  print("call with a number, spinning", remote_call(Waiting::spin, 50'000, 1), sockets,
        "Unix sockets");
  print("call with a number, sleeping", remote_call(Waiting::sleep, 10'000, 1), sockets,
        "Unix sockets");
  print("call by one of 200 clients, sleeping", remote_call(Waiting::sleep, 10'000, 200), sockets,
        "Unix sockets");
  print("connect", connecting(), 0, "");
  return 0;
}
