// Memory of Linux that programs have mapped shared: pinned by the module, in a slot of it. The slot
// is given back when no address space has it mapped any more.
#pragma once
#include <cstdint>

namespace kitten {

/// One more address space has it.
void hold_shared(unsigned slot);
/// One less.
void drop_shared(unsigned slot);
/// It was pinned, and nobody shows it.
void release_unused(unsigned slot);

}  // namespace kitten
