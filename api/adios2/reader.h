// The engine in mode Read.
#pragma once
#include <adios2/engine/plugin/PluginEngineInterface.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "buffers.h"
#include "format.h"
#include "parameters.h"
#include "subscriber.h"

namespace hobbes::adios {

class Reader final : public adios2::plugin::PluginEngineInterface {
 public:
  Reader(adios2::core::IO& io, const std::string& name, adios2::Mode mode,
         adios2::helper::Comm comm);
  ~Reader() override;

  adios2::StepStatus BeginStep(adios2::StepMode mode, float timeout) override;
  size_t CurrentStep() const override { return static_cast<size_t>(step_.number); }
  void PerformGets() override;
  void EndStep() override;
  adios2::MinVarInfo* MinBlocksInfo(const adios2::core::VariableBase& variable,
                                    size_t step) const override;
  bool VarShape(const adios2::core::VariableBase& variable, size_t step,
                adios2::Dims& shape) const override;

 protected:
#define HOBBES_DECLARE(T)                                                \
  void DoGetSync(adios2::core::Variable<T>& variable, T* data) override; \
  void DoGetDeferred(adios2::core::Variable<T>& variable, T* data) override;
  ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_DECLARE)
#undef HOBBES_DECLARE
  void DoClose(int transport) override;
  void DestructorClose(bool verbose) noexcept override;

 private:
  struct Selection {
    bool block = false;
    std::size_t block_id = 0;
    Dimensions start, count, memory_start, memory_count;
  };
  [[nodiscard]] const Variable& found(const std::string& name) const;
  Selection selection_of(const adios2::core::VariableBase& variable) const;
  template <class T>
  void get(const std::string& name, const Selection& selection, T* data);
  template <class T>
  void define(const Variable& variable);
  void define_all();
  void define_attributes();
  /// Whether the step's description could be read; why not is printed.
  bool learn(std::uint64_t number, const Place& description);
  void forget_variables();
  [[nodiscard]] Dimensions* host_ordered(const Dimensions& dimensions) const;

  Parameters parameters_;
  int rank_, ranks_;
  std::unique_ptr<Subscriber> subscriber_;  // in rank 0
  mutable Attachments attachments_;
  Step step_;
  std::map<std::string, std::size_t> places_;  // name -> variable of the step
  std::set<std::string> defined_;              // in the IO by this engine
  mutable std::deque<Dimensions> lent_;        // to answers of MinBlocksInfo, until the next step
  bool in_step_ = false;
  std::vector<std::function<void()>> deferred_;
};

}  // namespace hobbes::adios
