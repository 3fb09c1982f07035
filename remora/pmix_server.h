// RPMI: the PMIx server that makes unmodified Open MPI programs one job, without mpirun.
// The attributes Open MPI needs are those of the PMIx 4 standard
// (https://pmix.github.io/pmix-standard). Each rank is in one process set, `hobbes://APP`: Open MPI
// 5.0 asks a process for the name of its set, so a process can have one only.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Who is in the job: app number and rank within it, in order of global rank.
struct PmixRank {
  unsigned app = 0, app_rank = 0;
};

struct PmixEvent {
  enum class Kind { connected, finalized, aborted, published } kind;
  unsigned rank = 0;
  int status = 0;         ///< of an abort
  std::string key, text;  ///< message of an abort; a published key and its value
};

/// One per process (PMIx allows no more). Its own threads call back; take() hands their events to
/// the owner's thread.
class PmixServer;
/// Ends a server within a few seconds, or leaves it to the end of the process: the library may wait
/// for itself for ever (a progress thread of 4.2.2 locks a mutex of a peer that is gone), and by
/// then the result of the job is known.
struct EndPmixServer {
  void operator()(PmixServer* server) const;
};

class PmixServer {
 public:
  virtual ~PmixServer() = default;
  /// Starts serving a job. `directory` (0700, exists) is the session's and is visible to every rank
  /// at that path. `apps` has the names of the apps with MPI, by their numbers. SIGCHLD must be
  /// blocked before. Errors: Code::os with PMIx's reason.
  static Result<std::unique_ptr<PmixServer, EndPmixServer>> start(
      const std::string& job, const std::string& directory, const std::vector<PmixRank>& ranks,
      const std::vector<std::string>& apps);
  /// What a rank must find in its environment, "K=V".
  virtual Result<std::vector<std::string>> environment_of(unsigned rank) = 0;
  /// Readable when take() has something.
  [[nodiscard]] virtual int descriptor() const = 0;
  virtual std::vector<PmixEvent> take() = 0;
};

}  // namespace hobbes
