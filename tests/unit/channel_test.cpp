// Channels between two ends in one process, without hobbesd: messages, waiting, ends, and peers
// that write what they like.
#include "ipc/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "waits.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;
using test::no_wait;
using test::soon;
using Status = Channel::Status;

struct Pipe {
  Fd hears, rings;
};
Pipe make_pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  Pipe out{Fd(ends[0]), Fd()};
  Fd writes(ends[1]);
  out.rings = Fd(::open(("/proc/self/fd/" + std::to_string(writes.get())).c_str(),
                        O_RDWR | O_NONBLOCK | O_CLOEXEC));
  return out;
}

// Both ends, and the memory as a hostile peer has it.
struct Pair {
  Fd memory;
  std::optional<Channel> caller, listener;
  explicit Pair(std::size_t size = HOBBES_CHANNEL_LEAST) {
    auto made = Channel::make_memory(size);
    EXPECT_TRUE(made) << made.error().text();
    memory = std::move(*made);
    Pipe to_listener = make_pipe(), to_caller = make_pipe();
    auto first = Channel::over(memory, std::move(to_caller.hears), std::move(to_listener.rings),
                               false, {"", 1, 0, 0});
    auto second = Channel::over(memory, std::move(to_listener.hears), std::move(to_caller.rings),
                                true, {"enclave", 2, 3, 4});
    EXPECT_TRUE(first && second);
    caller.emplace(std::move(*first));
    listener.emplace(std::move(*second));
  }
};

std::string received(Channel& channel, milliseconds patience = soon) {
  std::vector<char> bytes(channel.largest());
  std::size_t size = 0;
  Status status = channel.receive(bytes.data(), bytes.size(), &size, patience);
  return status == Status::good ? std::string(bytes.data(), size)
                                : "status " + std::to_string(static_cast<int>(status));
}

TEST(MessageRing, CarriesMessagesOfEverySizeInOrderBetweenTwoThreads) {
  constexpr std::size_t size = 4096;
  constexpr std::uint32_t count = 1'000'000;
  hobbes_channel_ring shared{};
  std::vector<std::uint64_t> data(size / 8);
  const MessageRing ring{&shared, reinterpret_cast<std::uint8_t*>(data.data()), size};
  std::thread writes([&] {
    MessageWriter writer(ring);
    std::minstd_rand sizes(1);
    std::uint32_t message[64];
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::size_t words = 1 + sizes() % 64;
      for (std::size_t w = 0; w < words; ++w) message[w] = i + static_cast<std::uint32_t>(w);
      while (writer.put(message, words * 4) == MessageRing::Status::full) std::this_thread::yield();
    }
  });
  MessageReader reader(ring);
  std::minstd_rand sizes(1);
  std::uint32_t message[64], wrong = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::size_t got = 0;
    while (reader.peek(&got) == MessageRing::Status::empty) std::this_thread::yield();
    const std::size_t words = 1 + sizes() % 64;
    if (got != words * 4) {
      ++wrong;
      break;
    }
    reader.take(message, got);
    for (std::size_t w = 0; w < words; ++w) wrong += message[w] != i + w ? 1 : 0;
  }
  writes.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(Channel, MessagesArriveWholeBothWays) {
  Pair pair;
  for (std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{56}, std::size_t{57}, pair.caller->largest()}) {
    std::string text(size, 'x');
    EXPECT_EQ(pair.caller->send(text.data(), text.size(), no_wait), Status::good);
    EXPECT_EQ(received(*pair.listener), text);
    EXPECT_EQ(pair.listener->send("head", 4, no_wait, text.data(), size > 4 ? size - 4 : 0),
              Status::good);
    EXPECT_EQ(received(*pair.caller).substr(0, 4), "head");
  }
  std::string large(pair.caller->largest() + 1, 'x');
  EXPECT_EQ(pair.caller->send(large.data(), large.size(), no_wait), Status::too_large);
  EXPECT_EQ(pair.listener->peer().enclave, "enclave");
}

TEST(Channel, AFullRingIsToldAndASmallBufferLosesNothing) {
  Pair pair;
  int sent = 0;
  while (pair.caller->send("0123456789", 10, no_wait) == Status::good) ++sent;
  EXPECT_GT(sent, 40);
  EXPECT_EQ(pair.caller->send("x", 1, milliseconds(20)), Status::again);
  char small[4];
  std::size_t size = 0;
  EXPECT_EQ(pair.listener->receive(small, sizeof small, &size, no_wait), Status::too_large);
  EXPECT_EQ(size, 10U);
  for (int i = 0; i < sent; ++i) EXPECT_EQ(received(*pair.listener, no_wait), "0123456789");
  EXPECT_EQ(received(*pair.listener, no_wait), "status 1");
  EXPECT_EQ(pair.caller->send("x", 1, no_wait), Status::good);
}

TEST(Channel, OneThreadWaitsForRoomWhileAnotherWaitsForMessages) {
  for (Waiting waiting : {Waiting::sleep, Waiting::spin_then_sleep}) {
    Pair pair;
    pair.caller->set_waiting(waiting);
    pair.listener->set_waiting(waiting);
    constexpr int count = 3000;
    auto sends = [](Channel& channel) {
      std::string text(300, 'y');
      for (int i = 0; i < count; ++i)
        ASSERT_EQ(channel.send(text.data(), text.size(), soon), Status::good) << i;
    };
    auto receives = [](Channel& channel) {
      for (int i = 0; i < count; ++i) ASSERT_EQ(received(channel).size(), 300U) << i;
    };
    std::thread a([&] { sends(*pair.caller); }), b([&] { receives(*pair.caller); }),
        c([&] { sends(*pair.listener); }), d([&] { receives(*pair.listener); });
    for (std::thread* one : {&a, &b, &c, &d}) one->join();
  }
}

TEST(Channel, ItsDescriptorTellsOfMessagesAndOfTheEnd) {
  Pair pair;
  auto tells = [&](int patience) {
    pollfd ready{pair.listener->descriptor(), POLLIN, 0};
    return ::poll(&ready, 1, patience) > 0;
  };
  EXPECT_EQ(received(*pair.listener, no_wait), "status 1");
  EXPECT_FALSE(tells(0));
  EXPECT_EQ(pair.caller->send("1", 1, no_wait), Status::good);
  EXPECT_TRUE(tells(1000));
  EXPECT_EQ(received(*pair.listener, no_wait), "1");
  EXPECT_EQ(received(*pair.listener, no_wait), "status 1");
  EXPECT_FALSE(tells(0));
  EXPECT_EQ(pair.caller->send("last", 4, no_wait), Status::good);
  pair.caller.reset();
  EXPECT_TRUE(tells(1000));
  EXPECT_EQ(received(*pair.listener, no_wait), "last")
      << "what was sent before the end is received";
  EXPECT_EQ(received(*pair.listener, no_wait), "status 2");
  EXPECT_EQ(pair.listener->send("x", 1, no_wait), Status::closed);
}

TEST(Channel, ASenderTakesNoWakeUpFromWhoPollsTheDescriptor) {
  for (milliseconds patience : {no_wait, milliseconds(50)}) {
    Pair pair;
    while (pair.caller->send("0123456789", 10, no_wait) == Status::good) {
    }
    EXPECT_EQ(received(*pair.caller, no_wait), "status 1") << "from here on it is told by poll(2)";
    EXPECT_EQ(pair.listener->send("x", 1, no_wait), Status::good);
    EXPECT_EQ(pair.caller->send("no room", 7, patience), Status::again);
    pollfd ready{pair.caller->descriptor(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 1000), 1) << patience.count();
    EXPECT_EQ(received(*pair.caller, no_wait), "x");
  }
}

TEST(Channel, APeerThatRingsWithoutEndHoldsNobodyUp) {
  auto memory = Channel::make_memory(HOBBES_CHANNEL_LEAST);
  ASSERT_TRUE(memory);
  Pipe storm = make_pipe(), back = make_pipe();
  Fd floods(::fcntl(storm.rings.get(), F_DUPFD_CLOEXEC, 3));
  ASSERT_GE(::fcntl(floods.get(), F_SETPIPE_SZ, 1 << 20), 0);
  auto victim = Channel::over(*memory, std::move(storm.hears), std::move(back.rings), true, {});
  ASSERT_TRUE(victim);
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    std::vector<char> bytes(1 << 16);
    while (!stop.load()) (void)!::write(floods.get(), bytes.data(), bytes.size());
  });
  for (int i = 0; i < 2000; ++i) EXPECT_EQ(received(*victim, no_wait), "status 1");
  EXPECT_EQ(received(*victim, milliseconds(30)), "status 1");
  stop.store(true);
  flood.join();
}

TEST(Channel, AVeryLongPatienceIsLong) {
  Pair pair;
  std::thread later([&] {
    ::usleep(20'000);
    EXPECT_EQ(pair.caller->send("x", 1, milliseconds::max()), Status::good);
  });
  EXPECT_EQ(received(*pair.listener, milliseconds::max()), "x");
  later.join();
}

TEST(Channel, MemoryThatIsNoChannelsIsRefused) {
  auto refused = [](const Fd& memory) {
    Pipe one = make_pipe(), other = make_pipe();
    auto opened = Channel::over(memory, std::move(one.hears), std::move(other.rings), true, {});
    return !opened && opened.error().code == Code::corrupt;
  };
  Fd plain(::memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(plain.get(), 3 * 4096), 0);
  EXPECT_TRUE(refused(plain)) << "its size can be changed under the reader";
  ASSERT_EQ(::fcntl(plain.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_TRUE(refused(plain)) << "it has no header";
  for (std::size_t size : {std::size_t{0}, std::size_t{4095}, std::size_t{6000}, SIZE_MAX})
    EXPECT_FALSE(Channel::make_memory(size)) << size;
}

TEST(Channel, GarbageFromThePeerIsAnErrorAndNeverACrash) {
  std::mt19937_64 random(20'261'126);
  int corrupt = 0;
  for (int round = 0; round < 300; ++round) {
    Pair pair;
    const std::size_t bytes = HOBBES_CHANNEL_HEADER + 2 * HOBBES_CHANNEL_LEAST;
    auto* words = static_cast<std::uint64_t*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pair.memory.get(), 0));
    ASSERT_NE(words, MAP_FAILED);
    std::vector<char> buffer(pair.listener->largest());
    for (int step = 0; step < 300; ++step) {
      std::size_t size = 0;
      switch (random() % 4) {
        case 0:
          __atomic_store_n(&words[random() % (bytes / 8)],
                           random() % 2 == 0 ? random() : random() % 8192, __ATOMIC_RELAXED);
          break;
        case 1:
          (void)pair.caller->send(buffer.data(), random() % buffer.size(), no_wait);
          break;
        case 2: {
          Status status = pair.listener->receive(buffer.data(), buffer.size(), &size, no_wait);
          EXPECT_TRUE(status != Status::good || size <= buffer.size());
          corrupt += status == Status::corrupt ? 1 : 0;
          break;
        }
        default:
          (void)pair.listener->send(buffer.data(), random() % buffer.size(), no_wait);
          (void)pair.caller->receive(buffer.data(), random() % buffer.size(), &size, no_wait);
      }
    }
    ::munmap(words, bytes);
  }
  EXPECT_GT(corrupt, 0);
}

}  // namespace
}  // namespace hobbes
