// What a kind of enclave must be able to do. One driver per kind; nothing above this line knows
// what an enclave is made of.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/fd.h"
#include "core/result.h"
#include "enclave/record.h"

namespace hobbes {

/// A program of ours that is executed in the stead of the enclave's, with that program's path and
/// arguments behind its own.
struct Interpreter {
  int descriptor = -1;  ///< of its file, in the new process
  std::vector<std::string> arguments;
};

struct CreateRequest {
  Bundle bundle;
  std::string cpus, mems;    ///< leased, list syntax; empty: the bundle's own words count
  std::uint64_t memory = 0;  ///< leased bytes, 0: no limit from Hobbes
  std::map<unsigned, std::uint64_t> memory_by_node;
  std::string delegated_cgroup;  ///< made and limited by hobbesd, for callers without privilege;
                                 ///< empty: make one
  std::string console_socket;    ///< where the pseudo-terminal's master is sent
  bool no_pivot = false;
  bool no_new_keyring = false;
  int preserve_fds = 0;                        ///< descriptors 3 .. 3+n-1 are handed to the program
  std::vector<std::string> extra_environment;  ///< "K=V", set over the bundle's
  std::vector<int> passed_fds;  ///< become 3, 4, ... of the program, instead of preserve_fds
  std::optional<Interpreter> interpreter;
};

struct UpdateRequest {
  oci::Resources resources;
  bool leased = false;  ///< the lease has changed: this is the whole of it now
  CpuSet cpus;
  std::map<unsigned, std::uint64_t> memory;  ///< NUMA node -> bytes
};

struct ExecRequest {
  oci::Process process;
  std::string
      user;  ///< "USER[:GROUP]" by the enclave's own names, over the process's; empty: as that says
  std::vector<std::uint32_t>
      additional_gids;  ///< beside those of the process, or of the user by the enclave's own names
  std::string console_socket;
  int stdio[3] = {0, 1, 2};
  int preserve_fds = 0;
  std::vector<int> passed_fds;  ///< become 3, 4, ... of the program, instead of preserve_fds
  std::optional<Interpreter> interpreter;
  pid_t inner_pid = 0;  ///< wanted pid inside an enclave with a pid namespace of its own; 0: any
  std::string group;    ///< a control group of that name below the enclave's, for what belongs
                        ///< together; empty: the enclave's own
  std::vector<std::string> cgroups;  ///< "[CONTROLLER[,CONTROLLER...]:]PATH": groups below the
                                     ///< enclave's that exist, to be moved into
  bool ignore_paused =
      false;  ///< also when the enclave is paused: the program then begins when it is resumed
  bool die_with_parent = false;  ///< killed when the calling thread's process ends
  std::string cpus;              ///< bind to these inside the enclave's; empty: all of them
};

/// Puts `additional_gids` into the process, once whom it runs as is known.
void add_groups(ExecRequest& request);

/// Drivers are stateless and thread-safe; all state is in the record they are given.
class Driver {
 public:
  virtual ~Driver() = default;
  /// Null when this node can host the kind, else what is missing and how to get it.
  [[nodiscard]] virtual std::optional<Error> obstacle() const = 0;
  /// Makes the enclave process, a direct child of the caller, ready but not started. Saves the
  /// record before each claim. On failure everything is undone.
  virtual Result<void> create(const CreateRequest& request, EnclaveRecord& record) const = 0;
  /// Lets the program run. Errors include the program's own failure to execute.
  virtual Result<void> start(const EnclaveRecord& record) const = 0;
  /// `all`: every process of the enclave.
  virtual Result<void> signal(const EnclaveRecord& record, int number, bool all) const = 0;
  virtual Result<void> pause(const EnclaveRecord& record) const = 0;
  virtual Result<void> resume(const EnclaveRecord& record) const = 0;
  virtual Result<void> update(const EnclaveRecord& record, const UpdateRequest& request) const = 0;
  /// Starts another program inside; the result is the caller's direct child.
  virtual Result<pid_t> exec(const EnclaveRecord& record, const ExecRequest& request) const = 0;
  [[nodiscard]] virtual Result<std::vector<pid_t>> processes(const EnclaveRecord& record) const = 0;
  [[nodiscard]] virtual std::map<std::string, std::uint64_t> statistics(
      const EnclaveRecord& record) const = 0;
  /// A sign of life from inside, with what the enclave says of itself. Errors: it does not answer.
  [[nodiscard]] virtual Result<Json> ping(const EnclaveRecord& record) const = 0;
  /// Ends whatever still runs and takes everything away but the record's folder. Idempotent, and
  /// works on the record of a create that died half-way.
  virtual Result<void> destroy(const EnclaveRecord& record,
                               std::chrono::milliseconds deadline) const = 0;
};

/// The driver of a kind; every kind has one, whether or not this node can host it (`obstacle`).
const Driver& driver_for(Kind kind);

}  // namespace hobbes
