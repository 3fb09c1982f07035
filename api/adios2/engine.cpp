#include "engine.h"

#include <stdexcept>

#include "reader.h"
#include "writer.h"

adios2::plugin::PluginEngineInterface* EngineCreate(adios2::core::IO& io, const std::string& name,
                                                    adios2::Mode mode, adios2::helper::Comm comm) {
  switch (mode) {
    case adios2::Mode::Write:
      return new hobbes::adios::Writer(io, name, mode, std::move(comm));
    case adios2::Mode::Read:
      return new hobbes::adios::Reader(io, name, mode, std::move(comm));
    default:
      throw std::invalid_argument(
          "hobbes engine: the stream '" + name +
          "' can be opened for Write and for Read, step by step, and in no other mode");
  }
}

void EngineDestroy(adios2::plugin::PluginEngineInterface* engine) { delete engine; }
