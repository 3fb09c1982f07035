// Loading a program into the co-kernel's memory, as Linux's execve does (fs/binfmt_elf.c,
// fs/binfmt_script.c; System V ABI, "Process Initialization").
#pragma once
#include <cstdint>

#include "abi/forward.h"

namespace proxy {

struct ProgramStart {
  const char* path;
  char** arguments;                ///< null-terminated
  char** environment;              ///< null-terminated
  const std::uint64_t* auxiliary;  ///< Linux's own, for what does not depend on the program
};

/// Replaces what the process has in the co-kernel by the program. It runs as soon as this returns.
/// Ends the process with a sentence when it cannot be loaded.
void load_program(hobbes_call& frame, unsigned slot, const ProgramStart& start);

/// What /proc/self/exe would lead to; its length.
long program_path(char* to, std::uint64_t size);

}  // namespace proxy
