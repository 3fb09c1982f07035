// Finding the inventory with hwloc.
#pragma once
#include <string>

#include "topology/inventory.h"

namespace hobbes {

/// Discovers a machine. `source` is "" for this one, "synthetic:<hwloc synthetic description>" or
/// "xml:<file>" for another (tests, planning). Errors: Code::invalid for a bad source,
/// Code::unavailable when hwloc finds no cores.
Result<Inventory> discover(const std::string& source = {});

}  // namespace hobbes
