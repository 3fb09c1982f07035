// A spin lock. Interrupts must be off while it is held, which `Locked` sees to.
#pragma once
#include "cpu.h"

namespace kitten {

/// Called by a core that waits for another, so that it goes on serving translation shootdowns
/// (cores.cpp).
void serve_while_waiting();

class SpinLock {
 public:
  void take() {
    while (__atomic_exchange_n(&held_, true, __ATOMIC_ACQUIRE)) {
      serve_while_waiting();
      cpu::relax();
    }
  }
  /// Gives up after so many looks.
  bool try_for(std::uint64_t looks) {
    while (looks-- > 0) {
      if (!__atomic_exchange_n(&held_, true, __ATOMIC_ACQUIRE)) return true;
      cpu::relax();
    }
    return false;
  }
  void release() { __atomic_store_n(&held_, false, __ATOMIC_RELEASE); }

 private:
  bool held_ = false;
};

class Locked {
 public:
  explicit Locked(SpinLock& lock) : lock_(lock) { lock_.take(); }
  ~Locked() { lock_.release(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  cpu::Quiet quiet_;
  SpinLock& lock_;
};

}  // namespace kitten
