#include "remora/deadlock.h"

#include <algorithm>
#include <array>

#include "remora/stacks.h"

namespace hobbes {
namespace {

// Calls that return only when another rank does something. One-sided ones are not among them: they
// move data without a message to count.
bool blocks(const std::string& call) {
  static const std::array<const char*, 28> names = {
      "MPI_Recv",     "MPI_Send",      "MPI_Ssend",         "MPI_Sendrecv",  "MPI_Sendrecv_replace",
      "MPI_Wait",     "MPI_Waitall",   "MPI_Waitany",       "MPI_Waitsome",  "MPI_Probe",
      "MPI_Mprobe",   "MPI_Mrecv",     "MPI_Barrier",       "MPI_Bcast",     "MPI_Gather",
      "MPI_Gatherv",  "MPI_Scatter",   "MPI_Scatterv",      "MPI_Allgather", "MPI_Allgatherv",
      "MPI_Alltoall", "MPI_Alltoallv", "MPI_Alltoallw",     "MPI_Reduce",    "MPI_Allreduce",
      "MPI_Scan",     "MPI_Exscan",    "MPI_Reduce_scatter"};
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return call == name; });
}

}  // namespace

// The outermost MPI frame and the address in the program it returns to.
std::optional<DeadlockWatch::Waiting> DeadlockWatch::call_of(const Subject& subject) {
  auto stacks = stacks_of(subject.pid);
  if (!stacks) return std::nullopt;
  for (const Stack& stack : *stacks) {
    if (stack.thread != subject.pid) continue;
    for (std::size_t i = stack.frames.size(); i-- > 0;) {
      std::string symbol = stack.frames[i].symbol;
      if (symbol.rfind("PMPI_", 0) == 0) symbol.erase(0, 1);
      if (symbol.rfind("MPI_", 0) != 0) continue;
      if (!blocks(symbol)) return std::nullopt;
      return Waiting{symbol, i + 1 < stack.frames.size() ? stack.frames[i + 1].address : 0,
                     subject.messages};
    }
  }
  return std::nullopt;
}

std::optional<DeadlockWatch::Verdict> DeadlockWatch::look(const std::vector<Subject>& subjects) {
  std::map<pid_t, Waiting> now;
  for (const Subject& subject : subjects) {
    auto waiting = call_of(subject);
    if (!waiting) {  // one that computes can still send
      same_ = 0;
      waiting_.clear();
      return std::nullopt;
    }
    now[subject.pid] = *waiting;
  }
  same_ = now == waiting_ ? same_ + 1 : 1;
  waiting_ = std::move(now);
  if (same_ < looks_needed || waiting_.empty()) return std::nullopt;
  return Verdict{waiting_.begin()->first, waiting_.begin()->second.call};
}

}  // namespace hobbes
