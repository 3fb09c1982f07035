// Telling "waits for ever" from "computes for long": every rank's stack, looked at several times.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hobbes {

/// Watches a set of processes over several looks. One thread.
class DeadlockWatch {
 public:
  struct Verdict {
    pid_t pid;         ///< one that waits
    std::string call;  ///< the MPI function it waits in
  };
  struct Subject {
    pid_t pid;
    std::uint64_t messages;  ///< it has sent and received so far
  };
  /// Looks once. A verdict when for `looks_needed` looks every process was inside the same blocking
  /// MPI call and none of them began to send or receive anything.
  std::optional<Verdict> look(const std::vector<Subject>& subjects);

  static constexpr int looks_needed = 5;

 private:
  struct Waiting {
    std::string call;
    std::uint64_t returns_to, messages;
    bool operator==(const Waiting&) const = default;
  };
  static std::optional<Waiting> call_of(const Subject& subject);
  std::map<pid_t, Waiting> waiting_;
  int same_ = 0;
};

}  // namespace hobbes
