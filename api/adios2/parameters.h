// The parameters of the engine, named as those of ADIOS2's SST engine where it has them.
#pragma once
#include <adios2/common/ADIOSTypes.h>

#include <chrono>
#include <cstddef>
#include <string>

namespace hobbes::adios {

struct Parameters {
  std::size_t rendezvous_readers = 1;             ///< RendezvousReaderCount
  std::size_t queue_limit = 0;                    ///< QueueLimit; 0: no limit
  bool discard = false;                           ///< QueueFullPolicy: Block or Discard
  std::chrono::milliseconds open_timeout{60000};  ///< OpenTimeoutSecs
  bool newest = false;   ///< AlwaysProvideLatestTimestep: a reader skips older steps
  unsigned mode = 0600;  ///< Mode: who may read, octal
};

/// Throws std::invalid_argument that names the parameter. Parameters of the plug-in mechanism and
/// of other engines are let pass, as other engines do.
Parameters read_parameters(const adios2::Params& given);
/// The name of a stream's service and the beginning of its segments' names. ADIOS2 gives engines of
/// plug-ins the value of PluginName, so that this names the stream.
std::string stream_name(const std::string& file);

}  // namespace hobbes::adios
