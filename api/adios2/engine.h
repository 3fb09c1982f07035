// An engine of ADIOS2 (2.9 and newer) whose steps travel through segments of the node: engine type
// "plugin" with PluginName "hobbes" and PluginLibrary "hobbes_adios2". docs/ADIOS2.md has its
// parameters. ADIOS2 expects exceptions: errors are std::runtime_error and std::invalid_argument.
#pragma once
#include <adios2/engine/plugin/PluginEngineInterface.h>

extern "C" {
/// Called by ADIOS2 at IO::Open; the result is given back to EngineDestroy.
adios2::plugin::PluginEngineInterface* EngineCreate(adios2::core::IO& io, const std::string& name,
                                                    adios2::Mode mode, adios2::helper::Comm comm);
void EngineDestroy(adios2::plugin::PluginEngineInterface* engine);
}
