// `hobbes devices`: the devices of the Container Device Interface, and who holds them.
#pragma once
#include "core/result.h"
#include "shell/views.h"

namespace hobbes {

/// Asks hobbesd, which reads the descriptions, and prints what it says.
Result<void> show_devices(const Style& style);

}  // namespace hobbes
