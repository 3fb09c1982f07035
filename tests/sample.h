// Long repetitions: complete under `check --soak`, otherwise a sample of them.
#pragma once
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>

namespace hobbes::test {

/// Draws what a test repeats. The seed is printed, and $HOBBES_SEED repeats a sample.
class Sample {
 public:
  Sample() : seed_(chosen_seed()), random_(seed_) {
    if (!complete()) std::printf("sample: HOBBES_SEED=%u repeats it\n", seed_);
  }
  [[nodiscard]] static bool complete() { return std::getenv("HOBBES_SOAK") != nullptr; }
  /// Whether this one is drawn: one of `every` on average, each when complete.
  bool draws(unsigned every) { return complete() || random_() % every == 0; }
  /// Any number.
  unsigned number() { return static_cast<unsigned>(random_()); }
  /// How often to repeat: `count` when complete, otherwise one part of so many.
  [[nodiscard]] static int of(int count, int parts = 4) {
    return complete() ? count : (count + parts - 1) / parts;
  }

 private:
  static unsigned chosen_seed() {
    if (const char* given = std::getenv("HOBBES_SEED"))
      return static_cast<unsigned>(std::strtoul(given, nullptr, 10));
    return static_cast<unsigned>(std::time(nullptr)) ^ static_cast<unsigned>(::getpid());
  }
  unsigned seed_;
  std::mt19937 random_;
};

}  // namespace hobbes::test
