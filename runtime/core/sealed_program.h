// Executing this program from a copy that nobody can change.
#pragma once
#include <string>

#include "core/result.h"

namespace hobbes {

/// Once at the start of a program that will enter enclaves: goes on as the same program in sealed
/// memory, with the same arguments, so that what /proc/PID/exe shows to an enclave is a copy and no
/// file of the host (the class of CVE-2019-5736). Does nothing in the copy. Only what is loaded is
/// copied, not debugging information. Errors: the copy cannot be made, and nothing may enter an
/// enclave.
Result<void> continue_as_sealed_copy(char** argv);
/// Where the program was started from, also in the copy.
std::string program_file();

}  // namespace hobbes
