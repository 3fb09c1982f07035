// Kind `kitten`: a lightweight kernel on cores and memory taken from Linux through hobbes.ko. Its
// enclave process is a control process in a small `linux` enclave, which holds the module's
// descriptor: when it ends, however it ends, everything goes back.
#pragma once
#include "enclave/driver.h"
#include "enclave/drivers/linux/container.h"

namespace hobbes {

class KittenDriver final : public Driver {
 public:
  [[nodiscard]] std::optional<Error> obstacle() const override;
  Result<void> create(const CreateRequest& request, EnclaveRecord& record) const override;
  /// Boots it, and returns when its kernel answers. Errors: what the kernel reported.
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
  Result<void> boot(const EnclaveRecord& record) const;
  LinuxDriver service_;
};

/// Asks an enclave's control process; see control.cpp for the operations.
Result<Json> ask_control(const EnclaveRecord& record, const Json& request,
                         std::chrono::milliseconds deadline = std::chrono::seconds(30));

}  // namespace hobbes
