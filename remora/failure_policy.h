// What a composition must end for, beside a process that ends badly: docs/COMPOSITION.md,
// "Running".
#pragma once
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "remora/deadlock.h"
#include "remora/progress.h"
#include "remora/rank.h"

namespace hobbes {

struct Failure {
  int status = 1;   ///< of `remora run`
  std::string why;  ///< names the culprit
};

/// It knows the time only by what it is told. One thread.
class FailurePolicy {
 public:
  using Time = Rank::Clock::time_point;
  struct Limits {
    std::chrono::seconds whole{0};   ///< 0: none
    std::chrono::seconds init{8};    ///< from the first in MPI_Init until the last must be there
    std::chrono::seconds peers{60};  ///< from the first that joins until the last must have joined
  };
  /// `progress` reads what a rank has counted.
  FailurePolicy(Limits limits, Time begin, std::function<remora_progress(unsigned)> progress)
      : limits_(limits), begin_(begin), progress_(std::move(progress)) {}

  /// A rank has joined, or has reached MPI_Init. Only the first counts.
  void note_join(Time now) {
    if (!first_joined_) first_joined_ = now;
  }
  void note_init(Time now) {
    if (!first_init_) first_init_ = now;
  }
  /// To be called several times a second. Nothing: all is well.
  std::optional<Failure> look(Time now, const std::vector<Rank>& ranks);

 private:
  std::optional<Failure> look_for_missing_peers(Time now, const std::vector<Rank>& ranks);
  std::optional<Failure> look_for_late_inits(Time now, const std::vector<Rank>& ranks);
  std::optional<Failure> look_for_deadlock(Time now, const std::vector<Rank>& ranks);

  Limits limits_;
  Time begin_;
  std::function<remora_progress(unsigned)> progress_;
  std::optional<Time> first_joined_, first_init_;
  std::optional<DeadlockWatch> deadlock_;
  Time next_look_{};
};

}  // namespace hobbes
