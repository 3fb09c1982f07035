#include "reader.h"

#include <adios2/core/Attribute.h>
#include <adios2/helper/adiosFunctions.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "array_order.h"
#include "box.h"

namespace hobbes::adios {
namespace {

std::runtime_error damaged(const std::string& name) {
  return std::runtime_error("hobbes engine: the step's description of '" + name + "' is damaged");
}

constexpr float longest_wait = 1e6F;  // seconds

// What rank 0 tells the other ranks of the next step; plain bytes for a broadcast.
struct News {
  std::uint64_t status = 0, number = 0;
  Place description;
};

template <class T>
T value_of(const std::string& bytes, const std::string& name) {
  T out{};
  if (bytes.size() != sizeof out) throw damaged(name);
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}
template <>
std::string value_of(const std::string& bytes, const std::string&) {
  return bytes;
}

}  // namespace

Reader::Reader(adios2::core::IO& io, const std::string& name, adios2::Mode mode,
               adios2::helper::Comm comm)
    : PluginEngineInterface(io, name, mode, std::move(comm)),
      parameters_(read_parameters(io.m_Parameters)),
      rank_(m_Comm.Rank()),
      ranks_(m_Comm.Size()) {
  std::string failed;
  if (rank_ == 0) {
    try {
      subscriber_ = std::make_unique<Subscriber>(stream_name(name), parameters_.open_timeout);
    } catch (const std::exception& e) {
      failed = e.what();
    }
  }
  std::vector<char> told(failed.begin(), failed.end());
  m_Comm.BroadcastVector(told);
  if (!told.empty())
    throw std::runtime_error("hobbes engine: cannot open the stream '" + name +
                             "' for reading: " + std::string(told.begin(), told.end()));
  m_IsOpen = true;
}

Reader::~Reader() {
  if (m_IsOpen) DestructorClose(m_FailVerbose);
}

adios2::StepStatus Reader::BeginStep(adios2::StepMode, float timeout) {
  if (in_step_) throw std::logic_error("hobbes engine: BeginStep within a step");
  News news;
  if (subscriber_) {
    std::optional<std::chrono::milliseconds> limit;
    if (timeout >= 0)
      limit = std::chrono::milliseconds(
          static_cast<std::int64_t>(std::min(timeout, longest_wait) * 1000));
    const Subscriber::Next next = subscriber_->next(parameters_.newest, limit);
    news = {static_cast<std::uint64_t>(next.status), next.number, next.description};
  }
  if (ranks_ > 1) m_Comm.Bcast(reinterpret_cast<char*>(&news), sizeof news, 0);
  switch (static_cast<Subscriber::Status>(news.status)) {
    case Subscriber::Status::late:
      return adios2::StepStatus::NotReady;
    case Subscriber::Status::ended:
      return adios2::StepStatus::EndOfStream;
    case Subscriber::Status::failed:
      return adios2::StepStatus::OtherError;
    case Subscriber::Status::ready:
      break;
  }
  // All ranks read the step, or none does.
  const int mine = learn(news.number, news.description) ? 1 : 0;
  int all = mine;
  if (ranks_ > 1) m_Comm.Allreduce(&mine, &all, 1, adios2::helper::Comm::Op::Min);
  in_step_ = all != 0;
  if (in_step_) return adios2::StepStatus::OK;
  if (subscriber_) subscriber_->release(news.number);
  return adios2::StepStatus::OtherError;
}

bool Reader::learn(std::uint64_t number, const Place& description) {
  try {
    lent_.clear();
    step_ = decode(attachments_.at(description), description.size);
    check_complete(step_);
    if (step_.number != number) throw damaged("its number");
    define_all();
    define_attributes();
    return true;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "hobbes engine: step %llu of '%s' cannot be read: %s\n",
                 static_cast<unsigned long long>(number), m_Name.c_str(), e.what());
    return false;
  }
}

template <class T>
void Reader::define(const Variable& variable) {
  adios2::Dims shape = host_order(m_IO, variable.global), start(shape.size(), 0), count = shape;
  if (variable.shape == Shape::local_array) {
    shape.clear();
    start.clear();
    count = host_order(m_IO, variable.blocks.front().count);
  }
  (void)bytes_of(variable.global, sizeof(T));  // ADIOS2 multiplies without looking
  auto* known = m_IO.InquireVariable<T>(variable.name);
  const bool fits = known != nullptr && known->m_Shape.size() == shape.size() &&
                    known->m_Count.size() == count.size();
  if (!fits) {
    if (known != nullptr) (void)m_IO.RemoveVariable(variable.name);
    known = &m_IO.DefineVariable<T>(variable.name, shape, start, count, false);
  }
  defined_.insert(variable.name);
  // A selection is good for a step, as in other engines.
  known->m_Shape = shape;
  known->m_Start = start;
  known->m_Count = count;
  known->m_MemoryStart.clear();
  known->m_MemoryCount.clear();
  known->m_SelectionType = adios2::SelectionType::BoundingBox;
  known->m_BlockID = 0;
  known->m_Engine = this;
  known->m_AvailableStepsStart = static_cast<std::size_t>(step_.number);
  known->m_AvailableStepsCount = 1;
  known->m_ReadAsLocalValue = variable.local_value;
  known->m_ReadAsJoined = variable.joined >= 0;
  if (variable.shape == Shape::global_value && !variable.blocks.empty()) {
    const Place& place = variable.blocks.front().data;
    known->m_Value = value_of<T>(std::string(attachments_.at(place), place.size), variable.name);
  }
}

void Reader::define_all() {
  places_.clear();
  for (std::size_t i = 0; i < step_.variables.size(); ++i)
    places_.emplace(step_.variables[i].name, i);
  // What this step does not have cannot be inquired.
  std::erase_if(defined_, [&](const std::string& name) {
    if (places_.count(name) != 0) return false;
    (void)m_IO.RemoveVariable(name);
    return true;
  });
  for (const Variable& variable : step_.variables) {
    const adios2::DataType there = m_IO.InquireVariableType(variable.name);
    if (there != adios2::DataType::None && adios2::ToString(there) != variable.type)
      (void)m_IO.RemoveVariable(variable.name);
#define HOBBES_VARIABLE(T) \
  if (variable.type == adios2::ToString(adios2::helper::GetDataType<T>())) define<T>(variable);
    ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_VARIABLE)
#undef HOBBES_VARIABLE
  }
}

void Reader::define_attributes() {
  for (const Attribute& one : step_.attributes) {
    if (one.elements.empty()) continue;
    const adios2::DataType there = m_IO.InquireAttributeType(one.name);
    if (there != adios2::DataType::None && adios2::ToString(there) != one.type)
      (void)m_IO.RemoveAttribute(one.name);
#define HOBBES_ATTRIBUTE(T)                                                           \
  if (one.type == adios2::ToString(adios2::helper::GetDataType<T>())) {               \
    std::vector<T> values;                                                            \
    for (const std::string& element : one.elements)                                   \
      values.push_back(value_of<T>(element, one.name));                               \
    if (one.single)                                                                   \
      m_IO.DefineAttribute<T>(one.name, values.front(), "", "/", true);               \
    else                                                                              \
      m_IO.DefineAttribute<T>(one.name, values.data(), values.size(), "", "/", true); \
  }
    ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_ATTRIBUTE)
#undef HOBBES_ATTRIBUTE
  }
}

const Variable& Reader::found(const std::string& name) const {
  auto at = places_.find(name);
  if (!in_step_ || at == places_.end())
    throw std::invalid_argument("hobbes engine: the variable '" + name + "' is not in this step");
  return step_.variables[at->second];
}

Reader::Selection Reader::selection_of(const adios2::core::VariableBase& variable) const {
  return {variable.m_SelectionType == adios2::SelectionType::WriteBlock,
          variable.m_BlockID,
          row_major(m_IO, variable.m_Start),
          row_major(m_IO, variable.m_Count),
          row_major(m_IO, variable.m_MemoryStart),
          row_major(m_IO, variable.m_MemoryCount)};
}

template <class T>
void Reader::get(const std::string& name, const Selection& selection, T* data) {
  const Variable& variable = found(name);
  auto bytes_at = [&](const Block& block) {
    if constexpr (!std::is_same_v<T, std::string>)
      if (block.data.size != bytes_of(block.count, sizeof(T))) throw damaged(name);
    return attachments_.at(block.data);
  };
  if constexpr (std::is_same_v<T, std::string>) {
    const Block& block = variable.blocks.front();
    data->assign(bytes_at(block), block.data.size);
  } else {
    if (variable.shape == Shape::global_value) {
      std::memcpy(data, bytes_at(variable.blocks.front()), sizeof(T));
      return;
    }
    // Where the selection lies: in one block, or in the whole array.
    const bool of_block = selection.block || variable.shape == Shape::local_array;
    if (of_block && selection.block_id >= variable.blocks.size())
      throw std::invalid_argument("hobbes engine: '" + name + "' has " +
                                  std::to_string(variable.blocks.size()) + " blocks in this step");
    Box target{selection.start, selection.count};
    if (of_block) {
      // A part of a block counts from its beginning. Without one all of it is read, for which the
      // program has made room by the block that it has selected, or by the count it was told.
      const Block& block = variable.blocks[selection.block_id];
      const bool part = variable.shape == Shape::local_array && !block.count.empty() &&
                        selection.start.size() == block.count.size();
      if (!part && !selection.block && selection.count != block.count)
        throw std::invalid_argument("hobbes engine: select a block of '" + name + "' first");
      if (!part) target = {Dimensions(block.count.size(), 0), block.count};
    }
    const std::size_t rank =
        of_block ? variable.blocks[selection.block_id].count.size() : variable.global.size();
    if (target.start.size() != rank || target.count.size() != rank)
      throw std::invalid_argument("hobbes engine: the selection of '" + name +
                                  "' has other dimensions than it");
    const std::uint64_t wanted = bytes_of(target.count, sizeof(T));
    std::vector<char> dense;
    char* to = reinterpret_cast<char*>(data);
    const bool embedded = !selection.memory_count.empty();
    if (embedded) {
      dense.resize(wanted);
      to = dense.data();
    }
    if (of_block) {
      const Block& block = variable.blocks[selection.block_id];
      copy_common({Dimensions(rank, 0), block.count}, bytes_at(block), target, to, sizeof(T));
    } else {
      for (const Block& block : variable.blocks) {
        if (block.start.size() != rank) throw damaged(name);
        copy_common({block.start, block.count}, bytes_at(block), target, to, sizeof(T));
      }
    }
    if (embedded)
      copy_embedded(target.count, selection.memory_start, selection.memory_count,
                    reinterpret_cast<char*>(data), dense.data(), sizeof(T), false);
  }
}

#define HOBBES_DEFINE(T)                                                                           \
  void Reader::DoGetSync(adios2::core::Variable<T>& variable, T* data) {                           \
    get(variable.m_Name, selection_of(variable), data);                                            \
  }                                                                                                \
  void Reader::DoGetDeferred(adios2::core::Variable<T>& variable, T* data) {                       \
    (void)found(variable.m_Name);                                                                  \
    deferred_.push_back([this, name = variable.m_Name, selection = selection_of(variable), data] { \
      get(name, selection, data);                                                                  \
    });                                                                                            \
  }
ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_DEFINE)
#undef HOBBES_DEFINE

void Reader::PerformGets() {
  std::vector<std::function<void()>> work;
  work.swap(deferred_);
  for (const auto& one : work) one();
}

// The writer may use the step's memory again only when all ranks have read, or have failed to.
void Reader::EndStep() {
  if (!in_step_) throw std::logic_error("hobbes engine: EndStep without BeginStep");
  std::exception_ptr failed;
  try {
    PerformGets();
  } catch (...) {
    failed = std::current_exception();
  }
  in_step_ = false;
  if (ranks_ > 1) m_Comm.Barrier();
  if (subscriber_) subscriber_->release(step_.number);
  attachments_.step_ended();
  if (failed) std::rethrow_exception(failed);
}

Dimensions* Reader::host_ordered(const Dimensions& dimensions) const {
  const adios2::Dims ordered = host_order(m_IO, dimensions);
  return &lent_.emplace_back(ordered.begin(), ordered.end());
}

// The caller deletes the answer and copies what its pointers lead to.
adios2::MinVarInfo* Reader::MinBlocksInfo(const adios2::core::VariableBase& variable,
                                          size_t) const {
  auto at = places_.find(variable.m_Name);
  if (!in_step_ || at == places_.end() || variable.m_Type == adios2::DataType::String)
    return nullptr;
  const Variable& there = step_.variables[at->second];
  const std::size_t rank = there.blocks.front().count.size();
  auto out = std::make_unique<adios2::MinVarInfo>(static_cast<int>(rank),
                                                  host_ordered(there.global)->data());
  out->Step = static_cast<size_t>(step_.number);
  out->WasLocalValue = there.local_value;
  out->IsValue = there.shape == Shape::global_value;
  for (std::size_t i = 0; i < there.blocks.size(); ++i) {
    const Block& block = there.blocks[i];
    adios2::MinBlockInfo one{};
    one.WriterID = static_cast<int>(block.writer);
    one.BlockID = i;
    if (there.local_value) {  // numbers instead of pointers, as ADIOS2 has it
      one.Start = reinterpret_cast<size_t*>(i);
      one.Count = reinterpret_cast<size_t*>(size_t{1});
    } else {
      one.Start = host_ordered(block.start)->data();
      one.Count = host_ordered(block.count)->data();
    }
    if ((out->IsValue || there.local_value) && block.data.size >= variable.m_ElementSize)
      one.BufferP = const_cast<char*>(attachments_.at(block.data));
    out->BlocksInfo.push_back(one);
  }
  return out.release();
}

// Variables that lead to this engine must not outlive it.
void Reader::forget_variables() {
  for (const std::string& name : defined_) (void)m_IO.RemoveVariable(name);
  defined_.clear();
}

bool Reader::VarShape(const adios2::core::VariableBase& variable, size_t,
                      adios2::Dims& shape) const {
  auto at = places_.find(variable.m_Name);
  if (!in_step_ || at == places_.end()) return false;
  shape = host_order(m_IO, step_.variables[at->second].global);
  return true;
}

void Reader::DoClose(int) {
  const int mine = in_step_ ? 1 : 0;
  int all = mine;
  if (ranks_ > 1) m_Comm.Allreduce(&mine, &all, 1, adios2::helper::Comm::Op::Min);
  if (all != 0) EndStep();
  in_step_ = false;
  if (ranks_ > 1) m_Comm.Barrier();  // what another rank still reads is not given back
  subscriber_.reset();
  forget_variables();
  m_IsOpen = false;
}

void Reader::DestructorClose(bool) noexcept {
  forget_variables();
  m_IsOpen = false;
}

}  // namespace hobbes::adios
