// Kind `linux`: an enclave as namespaces and control groups of this Linux.
#pragma once
#include "enclave/driver.h"

namespace hobbes {

class LinuxDriver final : public Driver {
 public:
  [[nodiscard]] std::optional<Error> obstacle() const override;
  Result<void> create(const CreateRequest& request, EnclaveRecord& record) const override;
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
};

}  // namespace hobbes
