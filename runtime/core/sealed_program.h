// Executing this program so that nobody who sees it can change its file.
#pragma once
#include <string>

#include "core/result.h"

namespace hobbes {

/// Once at the start of a program that will enter enclaves, before it has threads: goes on as the
/// same program, with the same arguments, from where /proc/PID/exe gives an enclave no way to write
/// to the file (the class of CVE-2019-5736). For root that is a read-only mount of the file in no
/// mount namespace, which ends with the execution of the program; for others, and on kernels before
/// Linux 5.12, it is sealed memory with a copy of what is loaded. Does nothing the second time.
/// Errors: neither can be made, and nothing may enter an enclave.
Result<void> continue_sealed(char** argv);
/// Where the program was started from, also afterwards.
std::string program_file();

}  // namespace hobbes
