// Making, starting and removing an enclave of any kind: the driver does the work, hobbesd keeps the
// books, the record in between lets anybody finish what was begun. hobbes-run and remora both come
// through here.
#pragma once
#include <string>

#include "bundle/bundle.h"
#include "core/json.h"
#include "core/result.h"
#include "enclave/record.h"

namespace hobbes {

struct EnclaveRequest {
  std::string root, id;  ///< its identity
  std::string bundle;    ///< folder
  std::string config;    ///< file read in place of its config.json; empty: that
  BundleOverrides overrides;
  bool terminal = false;  ///< the program gets a terminal even if the bundle does not say so
  std::string pid_file, console_socket;
  bool no_pivot = false, no_new_keyring = false;
  int preserve_fds = 0;
  int listen_fds = 0;  ///< sockets, from descriptor 3 on, before those that are preserved
  bool bound = false;  ///< hobbesd deletes it when the calling process ends, however it ends
  std::map<std::string, std::string> labels;  ///< added to the bundle's
};

/// Makes an enclave, ready to start. The enclave process is a child of the caller, which must have
/// one thread. On failure the node is as if it had never been attempted. Errors: everything
/// `load_bundle`, hobbesd's placement and the driver can say.
Result<EnclaveRecord> create_enclave(const EnclaveRequest& request);
/// Lets its program run, then runs the poststart hooks (whose failure is a warning).
Result<void> start_enclave(const EnclaveRecord& record);
/// Ends what runs, gives back what is held, runs the poststop hooks, and forgets it. Works when
/// hobbesd is away.
Result<void> remove_enclave(const EnclaveRecord& record);

/// The body of an "enclave.reserve" or "plan" request for a bundle.
Json reservation_of(const Bundle& bundle, const std::string& root, const std::string& id);
/// The "memory" of hobbesd's answer to such a request: NUMA node -> bytes.
std::map<unsigned, std::uint64_t> memory_by_node(const Json& placement);

}  // namespace hobbes
