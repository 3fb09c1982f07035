#include "writer.h"

#include <adios2/core/Attribute.h>
#include <adios2/helper/adiosFunctions.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>

#include "array_order.h"
#include "box.h"

namespace hobbes::adios {
namespace {

// The writer waits for its readers longer than a reader for its writer: who starts second is not
// known.
constexpr int patience = 10;

template <class T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
template <>
std::string bytes_of(const std::string& value) {
  return value;
}

}  // namespace

Writer::Writer(adios2::core::IO& io, const std::string& name, adios2::Mode mode,
               adios2::helper::Comm comm)
    : PluginEngineInterface(io, name, mode, std::move(comm)),
      parameters_(read_parameters(io.m_Parameters)),
      name_(stream_name(name)),
      rank_(m_Comm.Rank()),
      ranks_(m_Comm.Size()),
      buffers_(name_, rank_, parameters_.mode) {
  std::string failed;
  if (rank_ == 0) {
    try {
      publisher_ = std::make_unique<Publisher>(
          name_,
          Publisher::Options{parameters_.mode, parameters_.queue_limit, parameters_.discard});
      if (!publisher_->wait_for_readers(parameters_.rendezvous_readers,
                                        parameters_.open_timeout * patience))
        failed = "there are not " + std::to_string(parameters_.rendezvous_readers) +
                 " readers in time; start them, or set RendezvousReaderCount or OpenTimeoutSecs";
    } catch (const std::exception& e) {
      failed = e.what();
    }
  }
  std::vector<char> told(failed.begin(), failed.end());
  m_Comm.BroadcastVector(told);
  if (!told.empty())
    throw std::runtime_error("hobbes engine: cannot open the stream '" + name +
                             "' for writing: " + std::string(told.begin(), told.end()));
  m_IsOpen = true;
}

Writer::~Writer() {
  if (m_IsOpen) DestructorClose(m_FailVerbose);
}

adios2::StepStatus Writer::BeginStep(adios2::StepMode, float) {
  if (in_step_) throw std::logic_error("hobbes engine: BeginStep within a step");
  in_step_ = true;
  number_ = next_++;
  step_ = Step();
  step_.number = number_;
  buffers_.begin(number_);
  return adios2::StepStatus::OK;
}

// Puts outside of BeginStep and EndStep are one step, which ends with Close.
void Writer::ensure_step() {
  if (!in_step_) (void)BeginStep(adios2::StepMode::Append, -1);
}

Writer::Selection Writer::selection_of(const adios2::core::VariableBase& variable) const {
  return {row_major(m_IO, variable.m_Start), row_major(m_IO, variable.m_Count),
          row_major(m_IO, variable.m_MemoryStart), row_major(m_IO, variable.m_MemoryCount)};
}

std::size_t Writer::described(const adios2::core::VariableBase& variable) {
  for (std::size_t i = 0; i < step_.variables.size(); ++i)
    if (step_.variables[i].name == variable.m_Name) return i;
  Variable out;
  out.name = variable.m_Name;
  out.type = adios2::ToString(variable.m_Type);
  switch (variable.m_ShapeID) {
    case adios2::ShapeID::GlobalValue:
      out.shape = Shape::global_value;
      break;
    case adios2::ShapeID::LocalValue:
      out.shape = Shape::global_array;
      out.local_value = true;
      break;
    case adios2::ShapeID::LocalArray:
      out.shape = Shape::local_array;
      break;
    default:
      out.shape = Shape::global_array;
      out.global = row_major(m_IO, variable.m_Shape);
  }
  for (std::size_t i = 0; i < out.global.size(); ++i)
    if (out.global[i] == adios2::JoinedDim) out.joined = static_cast<std::int32_t>(i);
  if (out.local_value && out.type == adios2::ToString(adios2::DataType::String))
    throw std::invalid_argument("hobbes engine: '" + out.name +
                                "' is a text of each rank, which this engine does not have");
  step_.variables.push_back(std::move(out));
  return step_.variables.size() - 1;
}

template <class T>
void Writer::put(std::size_t place, bool single, const Selection& selection, const T* data) {
  Variable& known = step_.variables[place];
  Block block;
  block.writer = static_cast<std::uint32_t>(rank_);
  if (!single) {
    block.count = selection.count;
    if (known.shape == Shape::global_array && known.joined < 0) block.start = selection.start;
  }
  char* to = nullptr;
  if constexpr (std::is_same_v<T, std::string>) {
    block.data = buffers_.allocate(data->size(), &to);
    data->copy(to, data->size());
  } else {
    const std::uint64_t bytes = bytes_of(block.count, sizeof(T));
    block.data = buffers_.allocate(bytes, &to);
    if (selection.memory_count.empty())
      std::memcpy(to, data, bytes);
    else
      copy_embedded(selection.count, selection.memory_start, selection.memory_count,
                    const_cast<char*>(reinterpret_cast<const char*>(data)), to, sizeof(T), true);
  }
  if (single) known.blocks.clear();  // the last one counts
  known.blocks.push_back(std::move(block));
}

#define HOBBES_DEFINE(T)                                                                        \
  void Writer::DoPutSync(adios2::core::Variable<T>& variable, const T* data) {                  \
    ensure_step();                                                                              \
    put(described(variable), variable.m_SingleValue, selection_of(variable), data);             \
  }                                                                                             \
  void Writer::DoPutDeferred(adios2::core::Variable<T>& variable, const T* data) {              \
    if (variable.m_SingleValue) return DoPutSync(variable, data);                               \
    ensure_step();                                                                              \
    deferred_.push_back([this, place = described(variable), selection = selection_of(variable), \
                         data] { put(place, false, selection, data); });                        \
  }
ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_DEFINE)
#undef HOBBES_DEFINE

void Writer::PerformPuts() {
  std::vector<std::function<void()>> work;
  work.swap(deferred_);  // what fails is not tried again
  for (const auto& one : work) one();
}

std::vector<Attribute> Writer::attributes() const {
  std::vector<Attribute> out;
  for (const auto& [name, attribute] : m_IO.GetAttributes()) {
    Attribute one;
    one.name = name;
    one.type = adios2::ToString(attribute->m_Type);
    one.single = attribute->m_IsSingleValue;
#define HOBBES_ATTRIBUTE(T)                                                                    \
  if (attribute->m_Type == adios2::helper::GetDataType<T>()) {                                 \
    const auto& typed = dynamic_cast<const adios2::core::Attribute<T>&>(*attribute);           \
    if (one.single)                                                                            \
      one.elements.push_back(bytes_of<T>(typed.m_DataSingleValue));                            \
    else                                                                                       \
      for (const T& element : typed.m_DataArray) one.elements.push_back(bytes_of<T>(element)); \
  }
    ADIOS2_FOREACH_STDTYPE_1ARG(HOBBES_ATTRIBUTE)
#undef HOBBES_ATTRIBUTE
    out.push_back(std::move(one));
  }
  return out;
}

std::vector<std::string> Writer::gather(const std::string& mine) {
  if (ranks_ == 1) return {mine};
  const std::vector<std::size_t> sizes = m_Comm.GatherValues(mine.size());
  std::size_t total = 0;
  for (std::size_t size : sizes) total += size;
  std::string all(total, '\0');
  m_Comm.GathervArrays(mine.data(), mine.size(), sizes.data(), sizes.size(), all.data());
  std::vector<std::string> out;
  std::size_t at = 0;
  for (std::size_t size : sizes) {
    out.push_back(all.substr(at, size));
    at += size;
  }
  return out;
}

Step Writer::merged(const std::vector<std::string>& parts) const {
  Step out;
  out.number = number_;
  out.attributes = attributes();
  std::map<std::string, std::size_t> places;
  for (const std::string& part : parts) {
    Step one = decode(part.data(), part.size());
    for (Variable& variable : one.variables) {
      auto [at, fresh] = places.emplace(variable.name, out.variables.size());
      if (fresh) {
        out.variables.push_back(std::move(variable));
        continue;
      }
      // A value of all ranks is one; those of the others say the same.
      if (variable.shape == Shape::global_value) continue;
      auto& blocks = out.variables[at->second].blocks;
      blocks.insert(blocks.end(), variable.blocks.begin(), variable.blocks.end());
    }
  }
  for (Variable& variable : out.variables) {
    if (variable.local_value) {
      variable.global = {variable.blocks.size()};
      for (std::size_t i = 0; i < variable.blocks.size(); ++i)
        variable.blocks[i].start = {i}, variable.blocks[i].count = {1};
    }
    if (variable.joined < 0) continue;
    const auto along = static_cast<std::size_t>(variable.joined);
    std::uint64_t at = 0;
    for (Block& block : variable.blocks) {
      block.start.assign(block.count.size(), 0);
      block.start[along] = at;
      at += block.count[along];
    }
    variable.global[along] = at;
  }
  return out;
}

std::string Writer::publish(const std::vector<std::string>& parts) {
  if (!publisher_) return "";
  for (const std::string& part : parts)
    if (part.empty()) return "another rank could not put what it has";
  try {
    if (!publisher_->has_room()) return "";
    const std::string description = encode(merged(parts));
    char* to = nullptr;
    const Place place = buffers_.allocate(description.size(), &to);
    description.copy(to, description.size());
    publisher_->publish(number_, place);
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

// Each rank must know which of its segments nobody needs any more.
void Writer::learn_what_is_held() {
  std::vector<std::size_t> held;
  if (publisher_)
    for (std::uint64_t number : publisher_->held()) held.push_back(number);
  if (ranks_ > 1) m_Comm.BroadcastVector(held);
  buffers_.keep_only(std::set<std::uint64_t>(held.begin(), held.end()));
}

// A rank that fails still takes part in what all ranks do together.
void Writer::EndStep() {
  if (!in_step_) throw std::logic_error("hobbes engine: EndStep without BeginStep");
  std::string own;
  try {
    PerformPuts();
  } catch (const std::exception& e) {
    own = e.what();
  }
  std::erase_if(step_.variables, [](const Variable& one) { return one.blocks.empty(); });
  const std::string failed = publish(gather(own.empty() ? encode(step_) : ""));
  std::vector<char> told(failed.begin(), failed.end());
  if (ranks_ > 1) m_Comm.BroadcastVector(told);
  in_step_ = false;
  learn_what_is_held();
  if (!own.empty() || !told.empty())
    throw std::runtime_error(
        "hobbes engine: step " + std::to_string(number_) + " of '" + m_Name +
        "' was not published: " + (own.empty() ? std::string(told.begin(), told.end()) : own));
}

void Writer::DoClose(int) {
  if (closed_) return;
  closed_ = true;
  // Puts outside of steps are one step, for ranks without any as well.
  const int mine = in_step_ ? 1 : 0;
  int any = mine;
  if (ranks_ > 1) m_Comm.Allreduce(&mine, &any, 1, adios2::helper::Comm::Op::Max);
  if (any != 0) {
    ensure_step();
    EndStep();
  }
  if (publisher_ && !publisher_->end(parameters_.open_timeout * patience))
    std::fprintf(stderr,
                 "hobbes engine: the stream '%s' is closed, although readers still hold steps\n",
                 m_Name.c_str());
  // Segments go with the engine: no rank may leave before the readers have.
  m_Comm.Barrier();
  publisher_.reset();
  m_IsOpen = false;
}

void Writer::DestructorClose(bool verbose) noexcept {
  if (verbose && !closed_)
    std::fprintf(stderr,
                 "hobbes engine: the stream '%s' was not closed; its readers are told that "
                 "it failed\n",
                 m_Name.c_str());
  m_IsOpen = false;
}

}  // namespace hobbes::adios
