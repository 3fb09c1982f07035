// Network devices that leave the node for an enclave: linux.netDevices of the runtime-spec.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// A conversation with the kernel about one network namespace's devices and addresses
/// (rtnetlink(7)). Not thread-safe.
class Rtnetlink {
 public:
  /// An address of a device, as a message of the kernel's has it.
  using Address = std::vector<char>;

  /// In the caller's namespace, or in that of an open file; the calling process has no other
  /// threads.
  static Result<Rtnetlink> open(const Fd* network_namespace);
  /// Errors: Code::not_found.
  Result<unsigned> index_of(const std::string& device);
  Result<bool> is_up(unsigned index);
  /// The permanent addresses of global scope.
  Result<std::vector<Address>> addresses(unsigned index);
  Result<void> add_address(unsigned index, const Address& address);
  Result<void> set_up(unsigned index);
  /// To another namespace, where it has a new name, which must be free there.
  Result<void> move(unsigned index, const Fd& network_namespace, const std::string& name);

 private:
  explicit Rtnetlink(Fd socket) : socket_(std::move(socket)) {}
  Result<std::vector<Address>> ask(std::vector<char> request, bool dump);
  Fd socket_;
  unsigned sequence_ = 0;
};

/// Devices in the network namespace of an enclave process that is being made: they come back, with
/// their names and addresses, when this ends before keep(). Without that the kernel would destroy
/// virtual ones with the namespace. Move-only.
class MovedDevices {
 public:
  /// `devices`: name on the node -> name in the enclave. Each arrives up and with its addresses.
  /// Errors: Code::not_found, no such device; Code::exists, Code::denied. None has moved after an
  /// error.
  static Result<MovedDevices> move(const std::map<std::string, std::string>& devices,
                                   const std::string& network_namespace);
  void keep() { back_.clear(); }
  MovedDevices(MovedDevices&&) = default;
  MovedDevices& operator=(MovedDevices&&) = delete;
  ~MovedDevices();

 private:
  struct Moved {
    std::string name, inside;
    bool up;
  };
  MovedDevices(Fd here, Fd there, Rtnetlink ours, Rtnetlink theirs)
      : here_(std::move(here)),
        there_(std::move(there)),
        ours_(std::move(ours)),
        theirs_(std::move(theirs)) {}
  Result<void> move_one(const std::string& name, const std::string& inside);
  Fd here_, there_;
  Rtnetlink ours_, theirs_;
  std::vector<Moved> back_;
};

}  // namespace hobbes
