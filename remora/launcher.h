// Running a composition: enclaves, ranks, output, and an end that names who caused it.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "core/result.h"
#include "remora/composition.h"

namespace hobbes {

struct LaunchOptions {
  std::chrono::seconds timeout{0};  ///< 0: none; afterwards exit status 124
  std::chrono::seconds init_timeout{
      8};              ///< from the first rank in MPI_Init until the last must be there
  int stdin_rank = 0;  ///< universe rank that reads our standard input; -1: none
  std::string share;   ///< folder that every enclave sees, writable, at the same path
                       ///< ($REMORA_SHARE); may be empty
  std::string folder;  ///< where it is run from; absolute, or empty for none
  std::vector<std::string>
      environment;               ///< "K=V" for every rank, over what is inherited and what we set
  bool own_name = false;         ///< the name was chosen by the user: it is an error if it is taken
  bool report_bindings = false;  ///< say which CPUs each rank is bound to
  bool timestamps = false;       ///< the time before each line
  std::string output;  ///< folder that also gets each rank's output, as APP/RANK/stdout and stderr;
                       ///< empty: none
  bool quiet = false;  ///< no account of what happens, only the programs' output
  bool prefix = true;  ///< "[app:rank] " before each line
  bool dry_run = false;  ///< print the placement and take nothing
  bool host = false;     ///< enclaves without a bundle are joined by others (`remora host`)
  std::chrono::seconds peer_timeout{
      60};            ///< of a host: from the first rank that joins until the last must be there
  bool keep = false;  ///< leave the enclaves it made
};

/// Runs to the end and returns the exit status of the first rank that failed, 0 when none did. Must
/// be called while the process has one thread. Whatever happens, nothing it made is left behind.
/// Errors: what kept it from starting.
Result<int> launch(const Composition& composition, const LaunchOptions& options);

}  // namespace hobbes
