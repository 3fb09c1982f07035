// Typed reading of OCI objects; internal to bundles/.
#pragma once
#include "bundle/inspect.h"
#include "bundle/oci.h"

namespace hobbes {
oci::Config inspect_config(const Inspect& at);
oci::Process inspect_process(const Inspect& at);
oci::Resources inspect_resources(const Inspect& at);
}  // namespace hobbes
