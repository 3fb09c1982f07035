// Telling "waits for ever" from "computes for long": what every rank says of itself, looked at
// several times. It works for ranks of every kind of enclave, since nobody looks into them.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace hobbes {

/// Watches a set of ranks over several looks. One thread.
class DeadlockWatch {
 public:
  struct Subject {
    unsigned rank;           ///< of the universe
    std::uint64_t messages;  ///< as in progress.h
    std::uint64_t waits;
  };
  /// Looks once. A verdict, a rank that waits, when for `looks_needed` looks every rank was inside
  /// the same blocking call and none of them began to send or receive anything.
  std::optional<unsigned> look(const std::vector<Subject>& subjects);

  static constexpr int looks_needed = 5;

 private:
  struct Waiting {
    std::uint64_t messages, waits;
    bool operator==(const Waiting&) const = default;
  };
  std::map<unsigned, Waiting> waiting_;
  int same_ = 0;
};

}  // namespace hobbes
