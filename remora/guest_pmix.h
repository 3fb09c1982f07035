// The way of a rank in a virtual machine to the PMIx server: the guest's agent listens on the
// guest's loopback, and carries the rank's connection here.
#pragma once
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "enclave/record.h"

namespace hobbes {

/// For one rank and one connection. RAII: its end cuts the connection. Made and ended on one
/// thread; bytes are carried by a thread of its own.
class GuestPmix {
 public:
  /// `environment`: a rank's, as PmixServer gives it. The server's addresses in it are replaced by
  /// the one that the rank finds in its guest. Errors: what the agent tells; Code::unsupported when
  /// the environment names no server of this machine.
  static Result<std::unique_ptr<GuestPmix>> open(const EnclaveRecord& machine,
                                                 std::vector<std::string>& environment);
  GuestPmix(const GuestPmix&) = delete;
  GuestPmix& operator=(const GuestPmix&) = delete;
  ~GuestPmix();

 private:
  GuestPmix(Fd stream, std::uint16_t port);
  Fd stream_, server_;
  std::thread relay_;
};

}  // namespace hobbes
