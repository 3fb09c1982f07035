#include "enclave/driver.h"

#include <unistd.h>

#include "enclave/drivers/kitten/driver.h"
#include "enclave/drivers/linux/container.h"

namespace hobbes {
namespace {

// A kind whose driver is not part of this build: it refuses to create, and has nothing to act on otherwise.
class AbsentDriver final : public Driver {
 public:
  AbsentDriver(std::string kind, std::string missing, std::string remedy)
      : kind_(std::move(kind)), missing_(std::move(missing)), remedy_(std::move(remedy)) {}

  [[nodiscard]] std::optional<Error> obstacle() const override {
    return Error{Code::unsupported, "host enclaves of kind " + kind_, missing_, remedy_};
  }
  Result<void> create(const CreateRequest&, EnclaveRecord&) const override { return *obstacle(); }
  Result<void> start(const EnclaveRecord&) const override { return *obstacle(); }
  Result<void> signal(const EnclaveRecord&, int, bool) const override { return *obstacle(); }
  Result<void> pause(const EnclaveRecord&) const override { return *obstacle(); }
  Result<void> resume(const EnclaveRecord&) const override { return *obstacle(); }
  Result<void> update(const EnclaveRecord&, const UpdateRequest&) const override { return *obstacle(); }
  Result<pid_t> exec(const EnclaveRecord&, const ExecRequest&) const override { return *obstacle(); }
  [[nodiscard]] Result<std::vector<pid_t>> processes(const EnclaveRecord&) const override { return *obstacle(); }
  [[nodiscard]] std::map<std::string, std::uint64_t> statistics(const EnclaveRecord&) const override { return {}; }
  [[nodiscard]] Result<Json> ping(const EnclaveRecord&) const override { return *obstacle(); }
  Result<void> destroy(const EnclaveRecord&, std::chrono::milliseconds) const override { return {}; }

 private:
  std::string kind_, missing_, remedy_;
};

}  // namespace

const Driver& driver_for(Kind kind) {
  static const LinuxDriver linux_driver;
  static const KittenDriver kitten;
  static const AbsentDriver palacios("palacios", "this build has no virtual machine driver", "use kind linux");
  switch (kind) {
    case Kind::kitten:
      return kitten;
    case Kind::palacios:
      return palacios;
    case Kind::linux_:
      break;
  }
  return linux_driver;
}

}  // namespace hobbes
