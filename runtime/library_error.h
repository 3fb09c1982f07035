// How errors leave the C API.
#pragma once
#include "core/result.h"

namespace hobbes {

/// Keeps the text for hobbes_error(), sets errno, and returns its negative.
int failed(const Error& error);

}  // namespace hobbes
