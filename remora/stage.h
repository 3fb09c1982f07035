// The enclaves of a composition: made from their bundles, or borrowed, and taken away again in
// reverse order.
#pragma once
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "enclave/record.h"
#include "ipc/client.h"
#include "remora/composition.h"

namespace hobbes {

/// RAII: its destruction removes what it made. Used from one thread.
class Stage {
 public:
  struct Place {
    EnclaveRecord record;
    oci::Process process;  ///< the bundle's, a template for ranks
    CpuSet cpus;           ///< empty: not leased
    std::uint64_t memory = 0;
    bool own_pid_namespace = false, own_user_namespace = false;
    bool host_root = false;
    std::string folder;  ///< the working directory of apps that name none
    bool made = false;
    bool needed = false;  ///< has apps of its own
  };

  /// Makes every enclave that has apps. `session` is the composition's folder, visible at the same
  /// path in each; so are `share`, a folder of the user's, and `folder`, where he is, when not
  /// empty; the latter where the root is the host's only.
  /// `bundles`: a folder that nobody else sees, for what enclaves are made from.
  static Result<Stage> set_up(const Composition& composition, const std::string& session,
                              const std::string& bundles, const std::string& share,
                              const std::string& folder, bool keep);
  /// What set_up would take, all at once, one line per enclave.
  static Result<std::string> plan(const Composition& composition);
  Stage(Stage&& other) noexcept = default;
  Stage& operator=(Stage&&) = delete;
  ~Stage();

  /// In order of Composition::enclaves.
  [[nodiscard]] const std::vector<Place>& places() const { return places_; }

 private:
  Stage() = default;
  std::vector<Place> places_;
  bool keep_ = false;
};

/// The id that an enclave of a composition gets.
std::string enclave_id(const Composition& composition, const CompositionEnclave& enclave);

}  // namespace hobbes
