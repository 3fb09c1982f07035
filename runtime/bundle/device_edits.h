// What the devices of a bundle change in it: containerEdits of the Container Device Interface.
// Source: https://github.com/cncf-tags/container-device-interface (SPEC.md, "OCI Edits").
#pragma once
#include <string>
#include <vector>

#include "bundle/bundle.h"

namespace hobbes {

/// Whether a text is a fully qualified name, "vendor.com/class=name".
bool is_device_name(const std::string& text);

/// The text of a JSON string or whole number: YAML reads a text of digits as a number. Empty: the
/// value is neither.
std::string plain_text(const Json& value);

/// Paths on the host of the device nodes that containerEdits name. Json::exception for edits of
/// another shape.
std::vector<std::string> device_nodes_of(const Json& edits);

/// Changes `bundle` by a list of containerEdits, in their order: environment, device nodes with the
/// right to use them, mounts, hooks, additional groups. Type and numbers of a node are those that
/// it has on the host; what the edit says of them counts where it is not there. A node or a mount
/// takes the place of one that the bundle has there. Errors: Code::unsupported for an edit that is
/// not one of these; Code::invalid where what comes out is no valid bundle; Code::not_found for a
/// node that is not there.
Result<void> apply_device_edits(Bundle& bundle, const Json& edits);

}  // namespace hobbes
