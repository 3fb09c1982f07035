#include "remora/deadlock.h"

namespace hobbes {

std::optional<unsigned> DeadlockWatch::look(const std::vector<Subject>& subjects) {
  std::map<unsigned, Waiting> now;
  for (const Subject& subject : subjects) {
    if (subject.waits % 2 == 0) {  // one that computes can still send
      same_ = 0;
      waiting_.clear();
      return std::nullopt;
    }
    now[subject.rank] = {subject.messages, subject.waits};
  }
  same_ = now == waiting_ ? same_ + 1 : 1;
  waiting_ = std::move(now);
  if (same_ < looks_needed || waiting_.empty()) return std::nullopt;
  return waiting_.begin()->first;
}

}  // namespace hobbes
