// The drawing of a node for a page or a paper: sockets, NUMA nodes, cores and memory with their
// owners.
#pragma once
#include <string>

#include "nis/reader.h"

namespace hobbes {

/// A self-contained SVG document (SVG 1.1) of what the mirror shows now. Every shape of an enclave
/// has `data-enclave="HANDLE"` and a class `owner-N`, N from 0 to 7 in the order of the enclaves'
/// handles, so that a page can restyle it; without a style sheet it has colours of its own.
std::string topology_svg(NisReader& nis);

}  // namespace hobbes
