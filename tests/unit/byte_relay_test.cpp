// Two streams joined into one.
#include "core/byte_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace hobbes {
namespace {

// far(i) -- near(i) ==relay== near(1 - i) -- far(1 - i)
class ByteRelay : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 2; ++i) {
      int ends[2];
      ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
      near[i].reset(ends[0]);
      far[i].reset(ends[1]);
    }
    relay = std::thread([this] { relay_bytes(near[0], near[1]); });
  }
  void TearDown() override {
    for (Fd& fd : far) fd.reset();
    if (relay.joinable()) relay.join();
  }
  void put(int side, const std::string& bytes) const {
    ASSERT_EQ(::send(far[side].get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  [[nodiscard]] std::string get(int side, std::size_t size) const {
    std::string out(size, '\0');
    ssize_t got = ::recv(far[side].get(), out.data(), size, MSG_WAITALL);
    out.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return out;
  }
  Fd near[2], far[2];
  std::thread relay;
};

TEST_F(ByteRelay, CarriesBothWays) {
  put(0, "question");
  EXPECT_EQ(get(1, 8), "question");
  put(1, "answer");
  EXPECT_EQ(get(0, 6), "answer");
}

TEST_F(ByteRelay, WhatWasSaidLastArrivesBeforeTheEnd) {
  put(0, "last words");
  far[0].reset();
  relay.join();
  near[1].reset();
  EXPECT_EQ(get(1, 10), "last words");
  EXPECT_EQ(get(1, 1), "");
}

TEST_F(ByteRelay, MuchInBothDirectionsAtOnceAndASlowReaderLoseNothing) {
  const std::size_t much = 8 << 20;
  std::thread writers[2];
  for (int side = 0; side < 2; ++side)
    writers[side] = std::thread([this, side] {
      std::string bytes(much, static_cast<char>('a' + side));
      for (std::size_t at = 0; at < much;) {
        ssize_t n = ::send(far[side].get(), bytes.data() + at, much - at, MSG_NOSIGNAL);
        if (n <= 0) return;
        at += static_cast<std::size_t>(n);
      }
    });
  ::usleep(50'000);
  EXPECT_EQ(get(0, much), std::string(much, 'b'));
  EXPECT_EQ(get(1, much), std::string(much, 'a'));
  for (std::thread& writer : writers) writer.join();
}

TEST_F(ByteRelay, IsEndedFromOutside) {
  put(0, "x");
  EXPECT_EQ(get(1, 1), "x");
  ::shutdown(near[1].get(), SHUT_RDWR);
  relay.join();
  EXPECT_EQ(get(1, 1), "") << "the far side sees the end";
}

}  // namespace
}  // namespace hobbes
