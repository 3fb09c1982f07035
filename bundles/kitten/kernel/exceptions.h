// What happens when something goes wrong: a report on the status page, and the end of this enclave
// alone.
#pragma once

namespace kitten {

/// A contradiction inside the kernel.
[[noreturn]] void panic(const char* why);

}  // namespace kitten
