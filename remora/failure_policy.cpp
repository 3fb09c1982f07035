#include "remora/failure_policy.h"

#include <algorithm>

#include "remora/stacks.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;
using Phase = Rank::Phase;

// Of a rank in MPI_Finalize before the others are looked at, and between two looks.
constexpr milliseconds deadlock_patience(3000), deadlock_interval(700);

// " in MPI_Recv", where the rank's stack can be seen.
std::string call_of(const Rank& rank) {
  auto call = rank.stack_is_seen ? outermost_mpi_call(rank.pid) : std::nullopt;
  return call ? " in " + *call : "";
}

}  // namespace

std::optional<Failure> FailurePolicy::look(Time now, const std::vector<Rank>& ranks) {
  if (auto missing = look_for_missing_peers(now, ranks)) return missing;
  if (limits_.whole.count() > 0 && now > begin_ + limits_.whole) {
    auto slow = std::find_if(ranks.begin(), ranks.end(),
                             [](const Rank& r) { return r.phase != Phase::ended; });
    return Failure{124, "the time limit of " + std::to_string(limits_.whole.count()) +
                            " s has passed; " +
                            (slow != ranks.end() ? slow->full_name() + " still runs" : "")};
  }
  if (auto late = look_for_late_inits(now, ranks)) return late;
  return look_for_deadlock(now, ranks);
}

std::optional<Failure> FailurePolicy::look_for_missing_peers(Time now,
                                                             const std::vector<Rank>& ranks) {
  if (!first_joined_ || now <= *first_joined_ + limits_.peers) return std::nullopt;
  first_joined_.reset();
  auto missing =
      std::find_if(ranks.begin(), ranks.end(), [](const Rank& r) { return r.awaited(); });
  if (missing == ranks.end()) return std::nullopt;
  return Failure{1, "rank " + std::to_string(missing->app_rank) + " of app \"" + missing->app_name +
                        "\" has not joined within " + std::to_string(limits_.peers.count()) + " s"};
}

std::optional<Failure> FailurePolicy::look_for_late_inits(Time now,
                                                          const std::vector<Rank>& ranks) {
  if (!first_init_) return std::nullopt;
  auto found = [&](auto condition) -> const Rank* {
    auto at = std::find_if(ranks.begin(), ranks.end(), condition);
    return at != ranks.end() ? &*at : nullptr;
  };
  if (const Rank* skipped = found([](const Rank& r) { return r.skipped; }))
    return Failure{
        1, skipped->full_name() + " exited without MPI_Init while others wait for it there"};
  // The time to reach MPI_Init runs from when all have joined.
  if (found([](const Rank& r) { return r.awaited(); }) != nullptr) first_init_ = now;
  if (now <= *first_init_ + limits_.init) return std::nullopt;
  first_init_.reset();  // looked at once: from here on all are inside
  auto outside = [](const Rank& r) {
    return r.mpi && r.phase != Phase::ended && r.phase < Phase::in_init;
  };
  if (const Rank* late = found([&](const Rank& r) { return outside(r) && !r.connected; }))
    return Failure{1, late->full_name() + " has not reached MPI_Init " +
                          std::to_string(limits_.init.count()) + " s after the first one"};
  auto is_connected = [&](const Rank& r) { return outside(r) && !r.external && r.connected; };
  if (const Rank* strange =
          found([&](const Rank& r) { return is_connected(r) && !r.has_component; }))
    return Failure{1, strange->full_name() +
                          " is in MPI_Init without the remora component (is its Open MPI another "
                          "one?)"};
  const Rank* other = found(is_connected);
  if (other == nullptr) return std::nullopt;
  // Programs of MPI sessions have no MPI_Init to wait in for each other.
  if (const Rank* waiting = found([](const Rank& r) { return r.phase == Phase::in_init; }))
    return Failure{1, waiting->full_name() + " waits in MPI_Init for " + other->full_name() +
                          ", which uses MPI sessions only: either all programs of a composition "
                          "call MPI_Init or none"};
  return std::nullopt;
}

// Someone has entered MPI_Finalize; if all who have not are waiting inside MPI, and go on waiting
// in the very same call, nobody will ever send what they wait for.
std::optional<Failure> FailurePolicy::look_for_deadlock(Time now, const std::vector<Rank>& ranks) {
  if (now < next_look_) return std::nullopt;
  next_look_ = now + deadlock_interval;
  const Rank* leaver = nullptr;
  std::vector<DeadlockWatch::Subject> others;
  for (const Rank& rank : ranks) {
    if (!rank.mpi || rank.phase == Phase::ended || rank.phase == Phase::finalized) continue;
    if (rank.phase == Phase::in_finalize) {
      if (now - rank.since > deadlock_patience && (leaver == nullptr || rank.since < leaver->since))
        leaver = &rank;
    } else {
      const remora_progress at = progress_(rank.global);
      others.push_back({rank.global, at.messages, at.waits});
    }
  }
  if (leaver == nullptr || others.empty()) {
    deadlock_.reset();
    return std::nullopt;
  }
  if (!deadlock_) deadlock_.emplace();
  auto number = deadlock_->look(others);
  if (!number) return std::nullopt;
  const Rank& waiting = ranks[*number];
  return Failure{1, leaver->full_name() + " is in MPI_Finalize while " + waiting.full_name() +
                        " waits" + call_of(waiting) + " for a message that cannot come"};
}

}  // namespace hobbes
