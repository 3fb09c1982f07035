// Kind `palacios`: a virtual machine. Its enclave process is the monitor of vmm/, confined in a
// small `linux` enclave that has the leased cores and memory and nothing else.
#pragma once
#include "enclave/driver.h"
#include "enclave/drivers/linux/container.h"

namespace hobbes {

/// What a monitor may use beside the guest's memory, in bytes; page tables, of which there are two
/// kinds, grow with that.
constexpr std::uint64_t vm_overhead(std::uint64_t memory) { return (64ULL << 20U) + memory / 128; }

class PalaciosDriver final : public Driver {
 public:
  [[nodiscard]] std::optional<Error> obstacle() const override;
  Result<void> create(const CreateRequest& request, EnclaveRecord& record) const override;
  /// Boots it, and returns when its program runs. Errors: what is wrong with the image, or what the
  /// guest's agent said.
  Result<void> start(const EnclaveRecord& record) const override;
  Result<void> signal(const EnclaveRecord& record, int number, bool all) const override;
  Result<void> pause(const EnclaveRecord& record) const override;
  Result<void> resume(const EnclaveRecord& record) const override;
  Result<void> update(const EnclaveRecord& record, const UpdateRequest& request) const override;
  Result<pid_t> exec(const EnclaveRecord& record, const ExecRequest& request) const override;
  [[nodiscard]] Result<std::vector<pid_t>> processes(const EnclaveRecord& record) const override;
  [[nodiscard]] std::map<std::string, std::uint64_t> statistics(
      const EnclaveRecord& record) const override;
  [[nodiscard]] Result<Json> ping(const EnclaveRecord& record) const override;
  Result<void> destroy(const EnclaveRecord& record,
                       std::chrono::milliseconds deadline) const override;

 private:
  LinuxDriver service_;
};

/// Asks an enclave's monitor; vmm/main.cpp lists the operations. `out`: the descriptors it hands
/// back.
Result<Json> ask_monitor(const EnclaveRecord& record, const Json& request,
                         std::chrono::milliseconds deadline = std::chrono::seconds(30),
                         std::vector<Fd>* out = nullptr);

struct ForwardedPort {
  Fd stream;               ///< what the first who connects there says, and hears
  std::uint16_t port = 0;  ///< of the guest's loopback
};
/// Makes the guest's agent listen. It stops when the stream is closed. Errors: what the agent
/// tells; Code::unsupported when it is too old.
Result<ForwardedPort> forward_port(const EnclaveRecord& record);

}  // namespace hobbes
