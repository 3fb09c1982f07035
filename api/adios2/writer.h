// The engine in mode Write.
#pragma once
#include <adios2/engine/plugin/PluginEngineInterface.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "buffers.h"
#include "format.h"
#include "parameters.h"
#include "publisher.h"

namespace hobbes::adios {

class Writer final : public adios2::plugin::PluginEngineInterface {
 public:
  Writer(adios2::core::IO& io, const std::string& name, adios2::Mode mode,
         adios2::helper::Comm comm);
  ~Writer() override;

  adios2::StepStatus BeginStep(adios2::StepMode mode, float timeout) override;
  size_t CurrentStep() const override { return static_cast<size_t>(number_); }
  void PerformPuts() override;
  void EndStep() override;

 protected:
#define HOBBES_DECLARE(T)                                                      \
  void DoPutSync(adios2::core::Variable<T>& variable, const T* data) override; \
  void DoPutDeferred(adios2::core::Variable<T>& variable, const T* data) override;
  ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_DECLARE)
#undef HOBBES_DECLARE
  void DoClose(int transport) override;
  void DestructorClose(bool verbose) noexcept override;

 private:
  struct Selection {
    Dimensions start, count, memory_start, memory_count;
  };
  Selection selection_of(const adios2::core::VariableBase& variable) const;
  /// The variable's place in step_. What it says of the variable is kept: the program may remove
  /// it.
  std::size_t described(const adios2::core::VariableBase& variable);
  template <class T>
  void put(std::size_t place, bool single, const Selection& selection, const T* data);
  [[nodiscard]] std::vector<Attribute> attributes() const;
  /// In rank 0: the descriptions of all ranks.
  std::vector<std::string> gather(const std::string& mine);
  [[nodiscard]] Step merged(const std::vector<std::string>& parts) const;
  /// Publishes it in rank 0; why it could not, "" otherwise.
  std::string publish(const std::vector<std::string>& parts);
  void learn_what_is_held();
  void ensure_step();

  Parameters parameters_;
  std::string name_;
  int rank_, ranks_;
  BufferPool buffers_;
  std::unique_ptr<Publisher> publisher_;  // in rank 0
  Step step_;                             // of this rank
  std::uint64_t number_ = 0, next_ = 0;
  bool in_step_ = false, closed_ = false;
  std::vector<std::function<void()>> deferred_;
};

}  // namespace hobbes::adios
